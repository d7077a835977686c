// SPDX-License-Identifier: Apache-2.0

// Package authority says which frontend a request is for that names another host
// than those of the frontend whose address it goes to.
//
// Envoy asks, as an external authorization server, for requests that no virtual host
// of the frontend's own takes; all others cost nothing here. The answer names the
// scope whose routes the request gets, or refuses it:
//
//	request to 10.96.0.7:80, Host "api.bank"
//	  routes of 10.96.0.7:80: own names? no ─► Check{host, port 80, unknown pass}
//	  names: "api.bank", port 80 ─► route table bank/api:80 ─► scope 10.96.0.9:80
//	  x-fl-dst: 10.96.0.9:80 ─► routes of bank/api:80
//
// # Names
//
// A name is what Envoy matches domains by: the host without its port, in lower case,
// without a dot at the end; letters, digits, "-", "_" and dots, or an address. A
// frontend has a name at its own port, whatever port the request writes behind it.
// Of several frontends that have a name the first of these is meant:
//
//  1. one that has it exactly;
//  2. one that has the longest suffix ("*.example.com") of it;
//  3. among equals, the one whose route table has the smallest name.
//
// A short name, "peers" or "*.peers" of a frontend, means the service of the client's
// namespace, which is read from its SPIFFE id: "peers" is looked up as "peers.shop"
// before, and "pod-0.peers" as "pod-0.peers.shop" after all else. The short names of
// other namespaces' services are nobody's.
//
// # Decisions
//
//   - A host that a frontend has, but not for the client's family of addresses, is
//     refused, whatever becomes of unknown hosts: its endpoints cannot be reached
//     with the client's address, and the address that it was sent to is not its own.
//   - A host that is the very address that the client has dialled, and that a
//     frontend has (a pod of a headless service), passes on to there.
//   - Anything else is unknown: a name that nobody has at the port, one that the
//     frontend found would not take as it is written, one that leads back to where
//     the request comes from, and what is no name at all, like "pass" in a scope's key.
//     Unknown hosts pass on to where they were going, or are refused with 502, as the
//     frontend says that was asked.
//
// Only scopes of destinations and of hosts are ever answered: no host gets at those
// of what comes in for local pods.
package authority
