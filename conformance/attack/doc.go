// SPDX-License-Identifier: Apache-2.0

// Package attack tries what a pod with raw sockets can: every attempt fails the test if it
// succeeds. It runs on the lab, on two nodes with a real kernel and a real Envoy. An attempt
// counts only with a control: the same thing, done by whom it is allowed to, succeeds, or the
// datapath counts what it dropped.
package attack
