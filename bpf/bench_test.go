// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/packet"
)

// Test runs repeat one packet, which is soon in every cache. So each benchmark goes
// through many packets in random order, a few repeats each; the kernel measures only
// its program. Compare the ratios: both numbers of one are from the same run.

const (
	spread  = 4096 // packets
	repeats = 4
	size    = 1 << 18 // of the maps
	lo      = 1       // the device of a test run without context
)

// measure runs the packets and reports ns per verdict, and how many times that of the
// first call it is. The zero base is set by the first.
func measure(b *testing.B, p *ebpf.Program, frames [][]byte, want uint32, base *float64) {
	b.Helper()
	var ns float64
	var runs int
	for b.Loop() {
		for range spread {
			frame := frames[rand.IntN(len(frames))]
			ret, d, err := p.Benchmark(frame, repeats, nil)
			if err != nil {
				b.Fatal(err)
			}
			if ret != want {
				b.Fatalf("verdict %d\n%s", int32(ret), packet.Dump(frame))
			}
			ns += float64(d.Nanoseconds())
			runs++
		}
	}
	ns /= float64(runs)
	if *base == 0 {
		*base = ns
	}
	b.ReportMetric(0, "ns/op") // mostly the system call
	b.ReportMetric(ns, "ns/verdict")
	b.ReportMetric(ns / *base, "x")
}

// nth is an address of its own for each number.
func nth(f family, n int) netip.Addr {
	a := f.remote.As16()
	binary.BigEndian.PutUint32(a[12:], uint32(n))
	if f.remote.Is4() {
		a[12] = 11
		return netip.AddrFrom16(a).Unmap()
	}
	return netip.AddrFrom16(a)
}

// BenchmarkToPod judges segments from random addresses by as many entries of policy.
func BenchmarkToPod(b *testing.B) {
	l := newLab(b)
	l.enter(b)
	for _, f := range families() {
		var base float64
		for _, entries := range []int{10, 1_000, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/entries=%d", f.name, entries), func(b *testing.B) {
				l.enter(b)
				w := loadWorld(b, l, f, size)
				w.pod(f.server, NetFlPod{Set: governed, Ifindex: lo})
				fill(b, w, entries)
				frames := make([][]byte, spread)
				for i := range frames {
					src := nth(f, rand.IntN(entries))
					frames[i] = packet.TCP(at(src, 40000), at(f.server, 80), packet.ACK).Bytes()
				}
				measure(b, w.FlToPod, frames, next, &base)
			})
		}
	}
}

// fill makes so many addresses, each of a class of its own that may reach port 80.
func fill(b *testing.B, w *world, entries int) {
	b.Helper()
	addrs, classes := make([]NetFlAddr, entries), make([]NetFlAddress, entries)
	keys, rules := make([]NetFlPolicyKey, entries), make([]NetFlPolicy, entries)
	for i := range entries {
		class := uint64(i) + 1
		addrs[i], classes[i] = addrOf(nth(w.f, i)), NetFlAddress{Class: class}
		keys[i] = NetFlPolicyKey{Set: governed, Class: class, Port: be(80), Proto: tcp}
		rules[i] = NetFlPolicy{Rule: rule, Action: uint32(allow)}
	}
	if n, err := w.FlAddressesV1.BatchUpdate(addrs, classes, nil); err != nil || n != entries {
		b.Fatalf("write %d of %d addresses: %v", n, entries, err)
	}
	if n, err := w.FlPolicyV1.BatchUpdate(keys, rules, nil); err != nil || n != entries {
		b.Fatalf("write %d of %d entries: %v", n, entries, err)
	}
}

// BenchmarkToPodPaths is what a packet costs that needs more or less than one probe.
func BenchmarkToPodPaths(b *testing.B) {
	l := newLab(b)
	l.enter(b)
	f := families()[0]
	var base float64
	for _, path := range []struct {
		name  string
		want  uint32
		world func(w *world)
	}{
		{"ungoverned", next, func(w *world) { w.pod(w.f.server, NetFlPod{Ifindex: lo}) }},
		{"reply", next, func(w *world) { w.conn(at(w.f.server, 80), at(w.f.remote, 40000), tcp, direct, 0, 0) }},
		{"first probe", next, func(w *world) { w.policy(classRemote, 80, tcp, allow) }},
		{"fourth probe", next, func(w *world) { w.policy(classAny, 0, 0, allow) }},
	} {
		b.Run(path.name, func(b *testing.B) {
			l.enter(b)
			w := loadWorld(b, l, f, size)
			w.pod(f.server, NetFlPod{Set: governed, Ifindex: lo})
			w.address(f.remote, classRemote, addrManaged)
			path.world(w)
			frame := packet.TCP(at(f.remote, 40000), at(f.server, 80), packet.ACK).Bytes()
			measure(b, w.FlToPod, [][]byte{frame}, path.want, &base)
		})
	}
}

// BenchmarkFromPod reads packets of known flows, as many as there are, and finds them.
func BenchmarkFromPod(b *testing.B) {
	l := newLab(b)
	l.enter(b)
	for _, f := range families() {
		var base float64
		for _, c := range []struct {
			name  string
			flows int
			frame func(src, dst netip.AddrPort) packet.Packet
		}{
			{"udp", 1, packet.UDP},
			{"udp", spread, packet.UDP},
			{"tcp", spread, func(src, dst netip.AddrPort) packet.Packet { return packet.TCP(src, dst, packet.ACK) }},
		} {
			b.Run(fmt.Sprintf("%s/%s/flows=%d", f.name, c.name, c.flows), func(b *testing.B) {
				l.enter(b)
				w := loadWorld(b, l, f, size)
				w.pod(f.client, NetFlPod{Ifindex: lo})
				frames := make([][]byte, c.flows)
				for i := range frames {
					src, dst := at(f.client, 40000), at(nth(f, i), 80)
					p := c.frame(src, dst)
					frames[i] = p.Bytes()
					w.remember(tupleIn(p), direct, 0, 0)
				}
				measure(b, w.FlFromPod, frames, next, &base)
			})
		}
	}
}

// BenchmarkConnect is what the choice of a backend costs a connect(), as the kernel
// accounts for its program.
func BenchmarkConnect(b *testing.B) {
	l := newLab(b)
	l.enter(b)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stats.Close() })
	f := families()[0]
	here(b, f.service)
	var base float64
	for _, c := range []struct {
		name  string
		world func(w *sockWorld)
	}{
		{"without routes", func(w *sockWorld) { w.service(53, udp, SockFlSvc{Id: 1}, w.backend(0), w.backend(1)) }},
		{"without routes, captured", func(w *sockWorld) {
			w.service(53, udp, SockFlSvc{Id: 1}, w.backend(0), w.backend(1))
			w.capture()
		}},
		{"routed", func(w *sockWorld) {
			both := []netip.AddrPort{w.backend(0), w.backend(1)}
			w.routed(53, udp, SockFlSvc{Id: 1, RoutedId: 2}, both, both)
		}},
		{"routed, captured", func(w *sockWorld) {
			both := []netip.AddrPort{w.backend(0), w.backend(1)}
			w.routed(53, udp, SockFlSvc{Id: 1, RoutedId: 2}, both, both)
			w.capture()
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			l.enter(b)
			w := newSockWorld(b, l, f)
			serve(b, w.backend(0), "a")
			serve(b, w.backend(1), "b")
			c.world(w)
			for b.Loop() {
				w.child.ask(b, "udp", w.dialled(53), 200)
			}
			s, err := w.FlConnect4.Stats()
			if err != nil {
				b.Fatal(err)
			}
			ns := float64(s.Runtime.Nanoseconds()) / float64(s.RunCount)
			if base == 0 {
				base = ns
			}
			b.ReportMetric(0, "ns/op") // mostly the client
			b.ReportMetric(ns, "ns/connect")
			b.ReportMetric(ns/base, "x")
		})
	}
}
