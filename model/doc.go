// SPDX-License-Identifier: Apache-2.0

// Package model is the neutral model: what any control plane can say about
// services, workloads, routes and permissions, in words that belong to none of
// them.
//
//	objects ── translators ──► model ── merge ──► model ── plan ──► Envoy and kernel rows
//
// The package imports the standard library alone, holds data and pure functions
// over it, and never reads a clock, a file or a network. Values that were handed
// to a table are immutable.
//
// Content and origin are kept apart: fields named Src say which object, field,
// file and line something came from. They are left out of every encoding and
// every hash (json:"-"), so two control planes that say the same thing give the
// same bytes.
package model
