// SPDX-License-Identifier: Apache-2.0

// Package faults breaks a node's parts one by one, under load of every kind from both
// nodes, with a prober of what is forbidden: agents, proxies and Envoys that die, hang,
// lack means or are replaced by others, folders and file systems that go away, backends
// that come and go. Each test counts what failed, and when.
//
// README.md says which fault is proved where.
package faults
