// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
)

// svcRouted says that captured clients have backends of their own.
const svcRouted = 1 << 5

// routedCases are of services whose routes the kernel follows, for captured clients.
func routedCases() []sockCase {
	list := func(of ...netip.AddrPort) []netip.AddrPort { return of }
	return []sockCase{
		{"routes are for captured clients, and for nobody else", func(t *testing.T, w *sockWorld) {
			w.routed(80, tcp, SockFlSvc{Id: 1, RoutedId: 2}, list(w.backend(0)), list(w.backend(1)))
			w.routed(53, udp, SockFlSvc{Id: 3, RoutedId: 4}, list(w.backend(0)), list(w.backend(1)))
			reached := func(server string) {
				t.Helper()
				for socket, port := range map[string]uint16{"tcp": 80, "udp": 53, "sendto": 53} {
					got := w.child.ask(t, socket, w.dialled(port), 3)
					all(t, got, 3, server)
					if socket != "sendto" && got[0].Peer != w.dialled(port) {
						t.Errorf("%s: getpeername says %s, want %s", socket, got[0].Peer, w.dialled(port))
					}
				}
			}
			reached("a")
			put(t, w.FlCapturedV1, netnsCookie(t)+1, uint32(1)<<30) // somebody else
			reached("a")
			w.capture(http)
			reached("b")
			w.capture() // the proxy has no port for it yet
			reached("b")
			put(t, w.FlCapturedV1, netnsCookie(t), uint32(1)<<(http-1)) // as an earlier release wrote it
			reached("a")
		}},
		{"a captured client gets a service's own backends where there are no routes", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1}, w.backend(0))
			w.capture(modes...)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
		}},
		{"routes have weights of their own", func(t *testing.T, w *sockWorld) {
			a, b := w.backend(0), w.backend(1)
			w.routed(80, tcp, SockFlSvc{Id: 1, RoutedId: 2}, list(a, b), list(a, a, a, b))
			const n = 400
			near := func(want int) {
				t.Helper()
				count := all(t, w.child.ask(t, "tcp", w.dialled(80), n), n, "a", "b")
				// Five deviations of the wider of the two: one run in a million is outside.
				if count["a"] < want-50 || count["a"] > want+50 {
					t.Errorf("%v, want about %d of a", count, want)
				}
			}
			near(200)
			w.capture()
			near(300)
		}},
		{"routes that lead nowhere refuse captured clients alone", func(t *testing.T, w *sockWorld) {
			w.routed(80, tcp, SockFlSvc{Id: 1}, list(w.backend(0)), nil)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			w.capture()
			w.refused("tcp", 80, 1)
			w.head(80, tcp, SockFlSvc{Id: 1, Slots: 1, Flags: svcRouted, RoutedId: 9, RoutedSlots: 2})
			w.refused("tcp", 80, 2) // slots that are not there
		}},
		{"a service without endpoints refuses all but captured clients that are led elsewhere", func(t *testing.T, w *sockWorld) {
			w.routed(80, tcp, SockFlSvc{RoutedId: 2}, nil, list(w.backend(1)))
			w.refused("tcp", 80, 1)
			w.capture()
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "b")
		}},
		{"affinity keeps captured clients and others on their backends", func(t *testing.T, w *sockWorld) {
			both := list(w.backend(0), w.backend(1))
			w.routed(80, tcp, SockFlSvc{Id: 1, RoutedId: 2, Affinity: 60}, both, both)
			for range 2 {
				if count := all(t, w.child.ask(t, "tcp", w.dialled(80), 30), 30, "a", "b"); len(count) != 1 {
					t.Errorf("answered by %v", count)
				}
				w.capture()
			}
		}},
		{"affinity ends where a client is captured, and where it is no more", func(t *testing.T, w *sockWorld) {
			w.routed(80, tcp, SockFlSvc{Id: 1, RoutedId: 2, Affinity: 60}, list(w.backend(0)), list(w.backend(1)))
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
			w.capture()
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "b")
			if err := w.FlCapturedV1.Delete(netnsCookie(t)); err != nil {
				t.Fatal(err)
			}
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
		}},
		{"both sets of backends are replaced with one write", func(t *testing.T, w *sockWorld) {
			a, b := list(w.backend(0)), list(w.backend(1))
			w.routed(80, tcp, SockFlSvc{Id: 1, RoutedId: 2}, a, b)
			w.routed(80, tcp, SockFlSvc{Id: 3, RoutedId: 4}, b, a)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "b")
			w.capture()
			all(t, w.child.ask(t, "tcp", w.dialled(80), 3), 3, "a")
		}},
		{"a client that the proxy takes keeps the address, whoever is led where", func(t *testing.T, w *sockWorld) {
			w.service(80, tcp, SockFlSvc{Id: 1, Flags: uint32(opaque)}, w.backend(0))
			w.capture() // no port for the mode
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "a")
			w.capture(opaque)
			all(t, w.child.ask(t, "tcp", w.dialled(80), 1), 1, "service")
		}},
	}
}
