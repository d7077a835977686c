// SPDX-License-Identifier: Apache-2.0

// Package agent ties a node together: it watches a source of objects, computes the
// node's plan, feeds the proxy and writes the kernel's maps, in that order, and
// answers for what it did.
//
// The agent may die at any time: kernel and proxy go on with what they have, and
// the next agent takes over and writes just the difference.
package agent
