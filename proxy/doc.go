// SPDX-License-Identifier: Apache-2.0

// Package proxy is the node proxy: the process that runs a node's Envoy and keeps
// what it is to serve.
//
//	agent ──feed.sock──► proxy ──xds-0.sock──► Envoy
//	                       │
//	                       └── proxy-state: what was accepted last
//
// The agent feeds it with resources by delta ADS; the proxy passes them to Envoy
// by delta ADS and answers the agent what Envoy answers. So the agent may die or
// be replaced while Envoy restarts: the proxy serves on, from memory, and after
// its own restart from a file.
//
// Envoy also asks the proxy, over authority.sock, whose routes a request gets that
// names another host than the service that it goes to; see package authority.
//
// Envoy is a child, but outlives the proxy if the proxy is killed: the next one in the
// same pid namespace finds it by its command line and takes it over. It runs without
// privileges but one, CAP_NET_ADMIN, which transparent sockets need. In a container it
// ends with the proxy.
//
// Two Envoys may run at a time, in banks 0 and 1, each with ports of its own: to
// replace Envoy is to start another one in the other bank, to tell the kernel when
// it is ready, and to let the first one finish. The other bank may also hold an
// Envoy that stands by. The kernel tries the bank that it was told of, then the
// other one.
//
// Two proxies, too, may run on a folder at a time, each in a pid namespace of its own: a
// container follows another. One of them is in charge. README.md says what they do, and
// what a pod needs.
package proxy
