// SPDX-License-Identifier: Apache-2.0

// Package twonodes puts up a lab of two nodes for the tests of a package, with real
// agents, proxies and Envoys, and removes it however they end: processes and mounts that
// are left are an error.
package twonodes
