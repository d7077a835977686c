// SPDX-License-Identifier: Apache-2.0

// Package chaos tests what lasts: a node's proxy over thousands of random changes,
// good and bad, and nodes whose processes are killed again and again. Both are under
// load, of which every single request is accounted for.
//
// The tests are short unless flags say otherwise; "make chaos" runs them in full.
// A run says its seed, and -seed makes the next one take the same decisions.
package chaos
