// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Sink takes whatever comes and says at the end of it how many bytes that were.
func (h *Helper) Sink(addr string, _ *None) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10)) // what came counts
				_ = binary.Write(c, binary.BigEndian, n)                                                              // the client misses it
			}()
		}
	}()
	return nil
}

// Stream is a connection that is filled for some time.
type Stream struct {
	To  string
	For time.Duration
}

// Fill is the bytes a second that arrived.
func (h *Helper) Fill(s Stream, out *float64) error {
	c, err := net.Dial("tcp4", s.To)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 256<<10)
	began := time.Now()
	for time.Since(began) < s.For {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	var n int64
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		return err
	}
	*out = float64(n) / time.Since(began).Seconds()
	return nil
}

// Questions are asked one after another, all on one connection or each on its own.
type Questions struct {
	To    string
	N     int
	Fresh bool
}

// Answered is how long an answer took, in ns.
type Answered struct{ P50, P99 float64 }

// Answers asks.
func (h *Helper) Answers(q Questions, out *Answered) error {
	var took []time.Duration
	var kept net.Conn
	for range q.N {
		began := time.Now()
		c := kept
		if c == nil {
			var err error
			if c, err = net.Dial("tcp4", q.To); err != nil {
				return err
			}
			// Else ports would be used up.
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
		}
		if _, err := ask(c, 2*time.Second); err != nil {
			return err
		}
		took = append(took, time.Since(began))
		if q.Fresh {
			if err := c.Close(); err != nil {
				return err
			}
		} else {
			kept = c
		}
	}
	if kept != nil {
		_ = kept.Close() // all has been said
	}
	slices.Sort(took)
	*out = Answered{float64(took[len(took)/2]), float64(took[len(took)*99/100])}
	return nil
}

// tracked is what has a node track connections, as kube-proxy's rules do.
const tracked = `table ip kube-proxy { chain forward { type filter hook forward priority filter; ct state invalid drop; }; }`

// pair is a client and a server on two nodes.
type pair struct {
	client *process
	server netip.Addr
}

// startPair makes nodes with or without the datapath, which track connections or not.
func startPair(b *testing.B, datapath, track bool, verdicts int) pair {
	b.Helper()
	n := newNetwork(b)
	server := n.start("b1")
	call[None](server, "Listen", Server{Network: "tcp4", Addr: "0.0.0.0:8080", Name: "b1"})
	call[None](server, "Sink", "0.0.0.0:8081")
	w := &world{network: n, proc: map[string]*process{"a": n.start("a"), "b": n.start("b")}, plan: map[string]Planned{}}
	for node, p := range w.proc {
		if track {
			n.nft(node, tracked)
		}
		if datapath {
			call[None](p, "Open", n.options(node))
			call[None](p, "Sync", w.judged(node, verdicts))
		} else {
			call[None](p, "SetSysctl", [2]string{"net/ipv4/ip_forward", "1"}) // as the datapath does
		}
	}
	if datapath {
		w.ready()
	}
	return pair{n.start("a1"), n.hosts["b1"].v4}
}

// measure is throughput, in bytes a second, and how long answers take, in ns.
func (p pair) measure() map[string]float64 {
	out := map[string]float64{"throughput": call[float64](p.client, "Fill", Stream{netip.AddrPortFrom(p.server, 8081).String(), time.Second})}
	for name, fresh := range map[string]bool{"kept": false, "fresh": true} {
		a := call[Answered](p.client, "Answers", Questions{To: netip.AddrPortFrom(p.server, 8080).String(), N: 5_000, Fresh: fresh})
		out[name+"-p50"], out[name+"-p99"] = a.P50, a.P99
	}
	return out
}

// BenchmarkTraffic reports what traffic between pods of two nodes is with policy enforced on
// both sides and flows told and read, relative to the same without any datapath: on nodes that
// track connections, as all with kube-proxy do, and on bare ones. Rounds take turns; figures
// are medians of the rounds' ratios.
func BenchmarkTraffic(b *testing.B) {
	const verdicts, rounds = 10_000, 15
	with, without, bare := startPair(b, true, true, verdicts), startPair(b, false, true, 0), startPair(b, false, false, 0)
	for b.Loop() {
		ratios := map[string][]float64{}
		for range rounds {
			on, tracking, off := with.measure(), without.measure(), bare.measure()
			for name, v := range on {
				ratios[name+"/without"] = append(ratios[name+"/without"], v/tracking[name])
				ratios[name+"/bare"] = append(ratios[name+"/bare"], v/off[name])
			}
		}
		for name, r := range ratios {
			slices.Sort(r)
			b.ReportMetric(r[len(r)/2], name)
		}
	}
	b.ReportMetric(0, "ns/op") // times of this machine say nothing
}

// judged is a plan in which each pod is governed and lets in who has one of many classes,
// the others' among them, by port.
func (w *world) judged(node string, verdicts int) Planned {
	p := w.basePlan(node)
	for set, pod := range []string{"a1", "a2", "b1"} {
		p.govern(pod, uint64(set)+1)
		for i := range verdicts {
			for _, port := range []uint16{8080, 8081} {
				p.Verdicts = append(p.Verdicts, &plan.Verdict{
					Set: uint64(set) + 1, Class: uint64(i) + 1, Port: port, Proto: model.TCP, Action: plan.Allow, Rule: uint64(i) + 1,
				})
			}
		}
	}
	return p
}
