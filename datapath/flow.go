// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fairlead.io/fairlead/model"
)

// Verdicts of a flow.
const (
	Forwarded  = "forwarded"
	Redirected = "redirected" // to the proxy
	Dropped    = "dropped"
	// Audited: it would have been dropped, and went on, because the pod is observed.
	Audited = "audited"
)

// Reasons of flows that went on because the pod is observed, in place of the kernel's.
const (
	WouldProxy = "would-be-proxied" // it would have been redirected
	WouldRoute = "would-be-routed"  // it would have got a backend of the service's routes
)

// Directions of a flow: where it was decided.
const (
	FromPod = "from-pod" // a local pod sends
	FromNet = "from-net" // an uplink receives for a local pod
	ToPod   = "to-pod"   // a local pod is about to receive
	Connect = "connect"  // a process dials a service
)

// Flow is one decision of the kernel about a connection or a packet.
type Flow struct {
	Time      time.Time `json:"time"`
	Direction string    `json:"direction"`
	Verdict   string    `json:"verdict"`
	Reason    string    `json:"reason"` // one of Reasons, WouldProxy or WouldRoute
	Class     uint64    `json:"class,omitempty"`
	Set       uint64    `json:"set,omitempty"`
	Rule      uint64    `json:"rule,omitempty"`
	Protocol  string    `json:"protocol"`
	// Source is who opened the connection or sent the packet. For Connect it is the
	// backend that was chosen, zero if there is none.
	Source netip.AddrPort `json:"source,omitzero"`
	// Destination is where it went. For Connect it is the service that was dialled.
	Destination netip.AddrPort `json:"destination,omitzero"`
	Ifindex     int            `json:"ifindex,omitempty"`
	ProxyPort   uint16         `json:"proxyPort,omitempty"` // for Redirected
	PID         int            `json:"pid,omitempty"`       // for Connect
	Command     string         `json:"command,omitempty"`   // for Connect
	// Netns is the cookie of the network namespace that the process is in, for Connect, and
	// Client the local pod (ns/name) whose it is, if it is a captured one.
	Netns  uint64 `json:"netns,omitempty"`
	Client string `json:"client,omitempty"`
}

// firstDrop is the first of Reasons that drops.
const firstDrop = 9

// lostEvents is the index of the counter of flows that the ring had no room for.
const lostEvents = 22

// proxyAbsent is a reason that drops, and came after the others. Reasons are numbers of counters, which
// outlive the programs: none is ever given to another.
const proxyAbsent = "proxy-absent"

// Reasons are the names of the kernel's reasons by number.
func Reasons() []string {
	return []string{
		"direct", "outbound", "inbound", "socket", "reply", "allowed", "checked", "probe", "balanced",
		"policy", "unchecked", "spoofed", "reserved-port", "truncated", "extension", "fragment",
		"no-proxy", "assign", "loopback", "map-full", "no-backend", "unknown-pod", "event-lost", "observed", proxyAbsent,
	}
}

// Drops reports whether a reason is one for which the kernel refuses.
func Drops(reason string) bool {
	n := slices.Index(Reasons(), reason)
	return n >= firstDrop && n < lostEvents || reason == proxyAbsent
}

// toFlow reads an event; wall is the time at which the kernel's clock was 0.
func toFlow(raw []byte, wall time.Time) (Flow, error) {
	var e event
	if err := decode(string(raw), &e); err != nil {
		return Flow{}, fmt.Errorf("read flow: %w", err)
	}
	f := Flow{
		Time:        wall.Add(time.Duration(e.Time)),
		Reason:      fmt.Sprintf("reason-%d", e.Reason),
		Direction:   fmt.Sprintf("direction-%d", e.Direction),
		Verdict:     Forwarded,
		Class:       e.Class,
		Set:         e.Set,
		Rule:        e.Rule,
		Protocol:    protocolName(e.Tuple.Proto),
		Source:      endpoint(e.Tuple.Source, e.Tuple.SourcePort),
		Destination: endpoint(e.Tuple.Destination, e.Tuple.DestPort),
		Ifindex:     int(e.Ifindex),
		ProxyPort:   e.Port,
		PID:         int(e.PID),
		Command:     string(bytes.TrimRight(e.Command[:], "\x00")),
	}
	if names := Reasons(); int(e.Reason) < len(names) {
		f.Reason = names[e.Reason]
	}
	if names := []string{FromPod, FromNet, ToPod, Connect}; int(e.Direction) < len(names) {
		f.Direction = names[e.Direction]
	}
	if f.Direction == Connect {
		f.Netns, f.Set = f.Set, 0 // no policy is asked there
	}
	switch {
	case e.Flags&eventObserved != 0:
		f.wouldBe(e.Reason)
	case e.Reason >= firstDrop:
		f.Verdict = Dropped
	case f.Reason == "outbound" || f.Reason == "inbound":
		f.Verdict = Redirected
	}
	return f, nil
}

// eventObserved is the flag of an event that says what did not happen.
const eventObserved = 1 << 0

// wouldBe says of a flow that went on what would have become of it.
func (f *Flow) wouldBe(reason uint8) {
	switch {
	case reason >= firstDrop:
		f.Verdict = Audited
	case f.Reason == "balanced":
		f.Reason = WouldRoute
	default:
		f.Reason = WouldProxy
	}
}

func endpoint(a addr, p port) netip.AddrPort {
	if a == (addr{}) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.addr(), p.host())
}

func protocolName(n uint8) string {
	switch n {
	case 6:
		return string(model.TCP)
	case 17:
		return string(model.UDP)
	case 1:
		return "ICMP"
	case 58:
		return "ICMPv6"
	}
	return fmt.Sprint(n)
}
