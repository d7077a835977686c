// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.io/fairlead/conformance/istio/wire"
	"fairlead.io/fairlead/conformance/istio/world"
)

// Half is one of the two that are compared.
type Half interface {
	Load(*world.Scenario) error
	Way(*world.Pod, netip.AddrPort) wire.Way
	Judge() func(from, to netip.AddrPort) bool
}

// Outcome counts answers by their description.
type Outcome map[string]int

func (o Outcome) total() (n int) {
	for _, c := range o {
		n += c
	}
	return n
}

// String lists the answers with their shares.
func (o Outcome) String() string {
	n := o.total()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(o)) {
		if len(o) == 1 {
			return k
		}
		out = append(out, fmt.Sprintf("%3.0f%% %s", 100*float64(o[k])/float64(n), k))
	}
	return strings.Join(out, " | ")
}

// How many requests are sent where the scenario leaves it open: a few, and so many where
// the few differ.
const (
	few  = 5
	many = 240
)

// So many requests tell shares by themselves: an answer that comes now and then may be
// missing.
const enough = 40

// settle is how long copies of requests may be on their way when the answers are there.
const settle = 40 * time.Millisecond

// asker sends the requests of a scenario.
type asker struct {
	world   *world.World
	echo    *wire.Echo
	mirrors bool // copies may come later than the answer
	delays  bool // how long an answer takes is the configuration's doing
	refuses bool // hosts that nobody knows are refused somewhere
}

// ask sends a request n times.
func (a *asker) ask(h Half, q *world.Request, n int) (Outcome, error) {
	w, echo := a.world, a.echo
	echo.Judge(h.Judge())
	from := w.Pod(q.Source)
	addr, err := w.Resolve(q.Host, from)
	if err != nil {
		return nil, err
	}
	dst := netip.AddrPortFrom(addr, q.Port)
	session := func() *wire.Session {
		return &wire.Session{From: from.Addr, Dst: dst, Way: func(d netip.AddrPort) wire.Way { return h.Way(from, d) }}
	}
	parallel := 1
	switch {
	case q.Together:
		parallel = n
	case n > 20 && !q.Keep && !q.Order:
		parallel = 8
	}
	type one struct {
		reply wire.Reply
		id    string
	}
	all := make([]one, n)
	work := make(chan int, n)
	for i := range n {
		work <- i
	}
	close(work)
	var done sync.WaitGroup
	for range parallel {
		done.Go(func() {
			s := session()
			defer s.Close()
			for i := range work {
				all[i].reply, all[i].id = s.Send(q)
			}
		})
	}
	done.Wait()
	if a.mirrors {
		time.Sleep(settle)
	}
	out := Outcome{}
	servers := map[netip.AddrPort]bool{}
	var order []netip.AddrPort
	for i := range all {
		all[i].reply.Seen = echo.Take(all[i].id)
		if s := all[i].reply.Server; s != nil {
			servers[s.Server] = true
			order = append(order, s.Server)
		}
		out[a.describe(q, &all[i].reply)]++
	}
	if q.Spread {
		out = extend(out, fmt.Sprintf("by %s", fewOrMany(len(servers))))
	}
	if q.Order {
		out = extend(out, turns(order))
	}
	return out, nil
}

func fewOrMany(n int) string {
	switch n {
	case 0, 1:
		return fmt.Sprint(n)
	}
	return "several"
}

// turns reports whether servers take turns strictly.
func turns(order []netip.AddrPort) string {
	distinct := map[netip.AddrPort]bool{}
	for _, a := range order {
		distinct[a] = true
	}
	n := len(distinct)
	for i := range order {
		if i >= n && order[i] != order[i-n] {
			return "in no order"
		}
	}
	return "in turns"
}

func extend(o Outcome, what string) Outcome {
	out := Outcome{}
	for k, n := range o {
		out[k+" "+what] += n
	}
	return out
}

// alike reports whether two outcomes come from the same shares, as far as their numbers
// can tell.
func alike(a, b Outcome) bool {
	na, nb := float64(a.total()), float64(b.total())
	if na == 0 || nb == 0 {
		return na == nb
	}
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for k := range keys {
		pa, pb := float64(a[k])/na, float64(b[k])/nb
		p := (float64(a[k]) + float64(b[k])) / (na + nb)
		if math.Abs(pa-pb) > 4*math.Sqrt(p*(1-p)*(1/na+1/nb))+1e-9 {
			return false
		}
	}
	return true
}

// sameSupport reports whether the same answers came, whatever their shares.
func sameSupport(a, b Outcome) bool {
	return slices.Equal(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)))
}
