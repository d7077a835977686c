// SPDX-License-Identifier: Apache-2.0

// Package incr computes tables from tables, and after an edit only what read it.
//
// A Stage says which keys exist because of which input rows, and computes the rows
// of one key through a Reader that records every read: rows, absent rows, index
// queries, whole tables. Run recomputes stale keys stage by stage; rows that come
// out equal stop the wave. A computation from scratch is the same with everything
// stale, so for any sequence of edits the result equals the result from scratch.
//
// Computations must be pure. Values are shared and immutable.
package incr
