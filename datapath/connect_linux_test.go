// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Pairs are connections to two addresses by turns.
type Pairs struct {
	Direct, Service string
	N               int
}

// Compare is the median of service times divided by the median of direct times.
func (h *Helper) Compare(p Pairs, out *float64) error {
	times := map[string][]time.Duration{}
	for range p.N {
		for _, a := range []string{p.Direct, p.Service} {
			took, err := connect(netip.MustParseAddrPort(a))
			if err != nil {
				return fmt.Errorf("connect to %s: %w", a, err)
			}
			times[a] = append(times[a], took)
		}
	}
	*out = float64(median(times[p.Service])) / float64(median(times[p.Direct]))
	return nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// connect uses bare system calls, and resets the connection so that no port is left
// in TIME_WAIT.
func connect(to netip.AddrPort) (time.Duration, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	if err := unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	start := time.Now()
	err = unix.Connect(s, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	return time.Since(start), err
}

// BenchmarkConnect reports what dialling a service costs, relative to dialling its
// backend, at a number of services.
func BenchmarkConnect(b *testing.B) {
	n := newNetwork(b)
	node, client, server := n.start("a"), n.start("a1"), n.start("a2")
	call[None](server, "Listen", Server{Network: "tcp4", Addr: "0.0.0.0:8080", Name: "a2"})
	call[None](node, "Open", n.options("a"))
	backend := netip.AddrPortFrom(n.hosts["a2"].v4, 8080)
	for _, services := range []int{1, 100, 10_000} {
		var p Planned
		for i := range services {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], 10<<24|96<<16+uint32(i)+1)
			p.Services = append(p.Services, &plan.Service{
				Addr: netip.AddrFrom4(a), Port: 80, Protocol: model.TCP, Mode: plan.Kernel,
				Backends: []plan.KernelBackend{{Addr: backend, Weight: 1}},
			})
		}
		for _, pod := range []string{"a1", "a2"} {
			p.Pods = append(p.Pods, &plan.Pod{Addr: n.hosts[pod].v4, Name: "ns/" + pod})
		}
		call[None](node, "Sync", p)
		last := p.Services[services-1]
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			// Fewer tell nothing.
			pairs := Pairs{Direct: backend.String(), Service: netip.AddrPortFrom(last.Addr, last.Port).String(), N: max(b.N, 200)}
			b.ReportMetric(call[float64](client, "Compare", pairs), "ratio")
			b.ReportMetric(0, "ns/op") // times of this machine say nothing
		})
	}
}
