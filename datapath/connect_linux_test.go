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

// Turns are connections to several addresses by turns, N to each.
type Turns struct {
	To []string
	N  int
}

// Connects is the median time, in ns, that a connection to each took.
func (h *Helper) Connects(p Turns, out *[]float64) error {
	times := make([][]time.Duration, len(p.To))
	for range p.N {
		for i, a := range p.To {
			took, err := connect(netip.MustParseAddrPort(a))
			if err != nil {
				return fmt.Errorf("connect to %s: %w", a, err)
			}
			times[i] = append(times[i], took)
		}
	}
	for _, t := range times {
		*out = append(*out, float64(median(t)))
	}
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
		p := n.serviced(services, backend)
		call[None](node, "Sync", p)
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			// Fewer tell nothing.
			took := call[[]float64](client, "Connects", Turns{To: []string{backend.String(), nthService(viaDatapath, services-1)}, N: max(b.N, 5_000)})
			b.ReportMetric(took[1]/took[0], "ratio")
			b.ReportMetric(0, "ns/op") // times of this machine say nothing
		})
	}
}

// serviced is a plan with pods a1 and a2 and so many services, all of one backend.
func (n *network) serviced(services int, backend netip.AddrPort) Planned {
	var p Planned
	for i := range services {
		at := netip.MustParseAddrPort(nthService(viaDatapath, i))
		p.Services = append(p.Services, &plan.Service{
			Addr: at.Addr(), Port: at.Port(), Protocol: model.TCP, Mode: plan.Kernel,
			Backends: []plan.KernelBackend{{Addr: backend, Weight: 1}},
		})
	}
	for _, pod := range []string{"a1", "a2"} {
		p.Pods = append(p.Pods, &plan.Pod{Addr: n.hosts[pod].v4, Name: "ns/" + pod})
	}
	return p
}

// The second byte of services' addresses says who translates them.
const (
	viaDatapath = 96 // the datapath
	viaMap      = 97 // the node's rules, found in a map
	viaRules    = 98 // the node's rules, one after another
)

// nthService is a service's address and port, port 80.
func nthService(kind byte, i int) string {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|uint32(kind)<<16+uint32(i)+1)
	return netip.AddrPortFrom(netip.AddrFrom4(a), 80).String()
}
