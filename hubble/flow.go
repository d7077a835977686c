// SPDX-License-Identifier: Apache-2.0

// Package hubble keeps the node's recent flows and hands them to observers: what
// the kernel decided about connections and what the proxy answered to requests.
package hubble

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Flow is one decision. Those of the proxy have HTTP, for a request, or TCP, for a
// connection that was not read as requests; those of the kernel have neither.
type Flow struct {
	Time    time.Time `json:"time"`
	Node    string    `json:"node"`
	Verdict string    `json:"verdict"`          // one of Verdicts, or Lost
	Reason  string    `json:"reason,omitempty"` // one of Reasons, or Envoy's word; for Lost: where
	// Meaning is the reason in words and Advice what to do about it, of what was refused.
	Meaning     string   `json:"meaning,omitempty"`
	Advice      string   `json:"advice,omitempty"`
	Direction   string   `json:"direction,omitempty"` // where: from-pod, from-net, to-pod, connect; proxy
	Protocol    string   `json:"protocol,omitempty"`
	Source      Peer     `json:"source"`
	Destination Peer     `json:"destination"`
	Service     string   `json:"service,omitempty"`   // ns/name:port that the client dialled
	DecidedBy   []string `json:"decidedBy,omitempty"` // objects and fields that decided
	Rule        string   `json:"rule,omitempty"`      // id behind DecidedBy
	HTTP        *HTTP    `json:"http,omitempty"`
	TCP         *TCP     `json:"tcp,omitempty"`
	Process     string   `json:"process,omitempty"` // command and pid, for connects
	// Cluster and Upstream are where the proxy sent it. The host that a request named
	// may have led it elsewhere than to the Destination that it went to.
	Cluster  string         `json:"cluster,omitempty"`
	Upstream netip.AddrPort `json:"upstream,omitzero"`
	// Lost is how many flows are missing here, for the verdict Lost.
	Lost uint64 `json:"lost,omitempty"`
}

// Lost is the verdict of a Flow that stands for some that are missing. Filters let it pass:
// what is missing might have been asked for.
const Lost = "lost"

// Where flows are lost: for want of room in the kernel's ring, of time to read Envoy's
// access log, and of followers who read what they asked for.
const (
	LostInKernel    = "kernel"
	LostInAccessLog = "access-log"
	LostByObserver  = "observers"
)

// Peer is one end of a flow.
type Peer struct {
	Addr     netip.AddrPort `json:"addr,omitzero"`
	Pod      string         `json:"pod,omitempty"`  // ns/name
	Node     string         `json:"node,omitempty"` // whose own address it is: the kubelet, say
	Identity string         `json:"identity,omitempty"`
}

// HTTP is the request and its answer.
type HTTP struct {
	Method    string        `json:"method"`
	Authority string        `json:"authority"`
	Path      string        `json:"path"`
	Status    uint32        `json:"status"`
	Flags     string        `json:"flags,omitempty"` // Envoy's response flags and details
	Duration  time.Duration `json:"duration"`
}

// TCP is a connection that has ended.
type TCP struct {
	Sent     uint64 `json:"sent"`     // bytes from the source
	Received uint64 `json:"received"` // bytes to the source
	// ServerName is what a client of TLS asked for, if the proxy looked.
	ServerName string        `json:"serverName,omitempty"`
	Flags      string        `json:"flags,omitempty"` // Envoy's response flags
	Duration   time.Duration `json:"duration"`
}

// Name is the pod or the node if it is known, else the address.
func (p Peer) Name() string {
	name := p.Pod
	switch {
	case name == "" && p.Node == "":
		return p.Addr.String()
	case name == "":
		name = "node/" + p.Node
	}
	if p.Addr.IsValid() {
		name += fmt.Sprintf(":%d", p.Addr.Port())
	}
	return name
}

// Ring holds the last flows and feeds followers. Safe for concurrent use.
type Ring struct {
	mu        sync.Mutex
	flows     []Flow
	next      int
	full      bool
	followers map[*Follower]bool
	lost      uint64
	seen      uint64
}

// NewRing keeps the last n flows.
func NewRing(n int) *Ring {
	return &Ring{flows: make([]Flow, n), followers: map[*Follower]bool{}}
}

// Add records a flow. A follower that does not keep up loses it, counted in Lost.
func (r *Ring) Add(f Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows[r.next] = f
	r.next = (r.next + 1) % len(r.flows)
	r.full = r.full || r.next == 0
	if f.Verdict != Lost {
		r.seen++
	}
	for to := range r.followers {
		if !to.want.Wants(f) {
			continue
		}
		select {
		case to.flows <- f:
		default:
			to.lost++
			r.lost++
		}
	}
}

// Last returns up to n recent flows of those that are wanted, oldest first.
func (r *Ring) Last(n int, want Filter) []Flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last(n, want)
}

func (r *Ring) last(n int, want Filter) []Flow {
	all := r.flows[:r.next]
	if r.full {
		all = slices.Concat(r.flows[r.next:], r.flows[:r.next])
	}
	var out []Flow
	for _, f := range slices.Backward(all) {
		if len(out) == n {
			break
		}
		if want.Wants(f) {
			out = append(out, f)
		}
	}
	slices.Reverse(out)
	return out
}

// Follower is given flows as they come.
type Follower struct {
	ring  *Ring
	want  Filter
	flows chan Flow
	lost  uint64
}

// Follow returns up to n recent flows and who is given those after them, of those that
// are wanted. Stop it when done.
func (r *Ring) Follow(n int, want Filter) (recent []Flow, f *Follower) {
	f = &Follower{ring: r, want: want, flows: make(chan Flow, 4096)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.followers[f] = true
	return r.last(n, want), f
}

// Flows are those that come. The channel is not closed.
func (f *Follower) Flows() <-chan Flow { return f.flows }

// Lost is how many there was no room for since it was asked last.
func (f *Follower) Lost() uint64 {
	f.ring.mu.Lock()
	defer f.ring.mu.Unlock()
	n := f.lost
	f.lost = 0
	return n
}

// Stop ends the following.
func (f *Follower) Stop() {
	f.ring.mu.Lock()
	defer f.ring.mu.Unlock()
	delete(f.ring.followers, f)
}

// Counts are the flows that were added, and those that followers lost.
func (r *Ring) Counts() (seen, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen, r.lost
}
