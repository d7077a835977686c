// SPDX-License-Identifier: Apache-2.0

// Package diff tells what another configuration would change, for whom: of two sets of
// tables (two folders, one folder's control planes, today's owner and another one) what
// requests and connections get that differs, and who may do more or less.
//
// It compares what things mean, not how they are written. Of each frontend it makes
// requests that the matches of both sides tell apart, several conditions at once too (see
// search), and compares what each side does with them; of each workload's port it does so
// with the rules of its policies and with everybody who may send. Where both sides are the
// same to the byte nothing is asked. Where requests cannot prove that there is no
// difference (two expressions of which no text that is tried shows one), that is told as a
// difference, and as one that may widen.
//
//	old, new ──► frontends ──► requests of their matches ──► routes that differ
//	        ├──► workloads ──► sources × requests of their rules ──► permissions that differ
//	        └──► services, workloads ──► what they are and who is behind them
package diff
