// SPDX-License-Identifier: Apache-2.0

// Package apart gives a namespace an Envoy of its own under load, and has all kinds of
// things happen to it: killed, stopped, out of memory, with configuration that it rejects.
// The other namespace's requests are not to know of it, nor one Envoy's user of the
// other's sockets. It also reads what Envoys may do from the kernel, and compares that
// with the list in proxy/README.md.
package apart
