// SPDX-License-Identifier: Apache-2.0

package hubble

import "strings"

// Reason is why a flow became what it did, under the name that Flow.Reason has.
type Reason struct {
	Name string
	// By is who gives it.
	By Judge
	// Refuses: what has it does not get to where it was sent.
	Refuses bool
	// Policy: users' objects have it so. Such a flow names them, and the rule.
	Policy bool
	Text   string // what is so, in a few words
	// Advice is what to do about it, for those that refuse and are not policy's, and for
	// those of policy whose objects do not say by themselves what is amiss.
	Advice string
}

// Judge is who decides about a flow.
type Judge string

// Judges.
const (
	Kernel Judge = "kernel"
	Proxy  Judge = "proxy"
)

// Names of reasons that are not the kernel's, or that are asked for.
const (
	ByPolicy    = "policy"
	RateLimit   = "rate-limit"
	NoRoute     = "no-route"
	UnknownHost = "unknown-host"
	NoBackend   = "no-backend"
	Unchecked   = "unchecked"
	Fragment    = "fragment"
)

const seeStatus = "fairlead status says how Envoy and agent are"

// Reasons are all that have names: first the kernel's, in its order, then Envoy's.
// Counters of the kernel that are no flow's reason are among them.
var Reasons = []Reason{
	{Name: "direct", By: Kernel, Text: "goes where it was sent, not by Envoy"},
	{Name: "outbound", By: Kernel, Text: "goes to Envoy, for the client's routes"},
	{Name: "inbound", By: Kernel, Text: "goes to Envoy, which judges requests for the destination"},
	{Name: "socket", By: Kernel, Text: "belongs to a connection that Envoy or the node has"},
	{Name: "reply", By: Kernel, Text: "answers what the pod has sent"},
	{Name: "allowed", By: Kernel, Text: "a rule allows it, or nothing governs the pod"},
	{Name: "checked", By: Kernel, Text: "an Envoy has judged the request"},
	{Name: "probe", By: Kernel, Text: "is a probe of the kubelet"},
	{Name: "balanced", By: Kernel, Text: "got a backend of the service"},
	{Name: ByPolicy, By: Kernel, Refuses: true, Policy: true, Text: "no rule allows it"},
	{Name: Unchecked, By: Kernel, Refuses: true, Policy: true, Text: "rules are about requests, and no Envoy has seen this one",
		Advice: "if it should get in: allow the port as a whole, or have the client captured; what is no request of HTTP cannot be judged by such rules"},
	{Name: "spoofed", By: Kernel, Refuses: true, Text: "its source address is not the sender's",
		Advice: "find out what in the pod sends it; a pod may use the addresses that its status has, and no others"},
	{Name: "reserved-port", By: Kernel, Refuses: true, Text: "its source port is the proxy's",
		Advice: "have the client open connections from ports below 61000: net.ipv4.ip_local_port_range of its pod"},
	{Name: "truncated", By: Kernel, Refuses: true, Text: "its headers are cut short",
		Advice: "find out what sends it: no well-behaved sender does; it may be an attack, or a device that breaks packets"},
	{Name: "extension", By: Kernel, Refuses: true, Text: "has headers that are not looked into: of IPv6 extensions, or VLANs in VLANs",
		Advice: "have the sender do without them: IPsec's AH in particular hides what policy has to see"},
	{Name: Fragment, By: Kernel, Refuses: true, Policy: true, Text: "a fragment has no ports to judge it by",
		Advice: "have the sender send smaller datagrams than its MTU, or find the MTU on the way: a governed pod gets no fragments"},
	{Name: "no-proxy", By: Kernel, Refuses: true, Text: "nobody listens at the proxy's port: the client tries again, for 3 s",
		Advice: seeStatus + "; agent.whenProxyAbsent says what becomes of connections meanwhile"},
	{Name: "assign", By: Kernel, Refuses: true, Text: "the socket that it is for could not be had",
		Advice: "nothing, if it is rare: the sender sends it again; else " + seeStatus},
	{Name: "loopback", By: Kernel, Refuses: true, Text: "is for a loopback address, and comes from elsewhere",
		Advice: "find out what sends it: loopback addresses are reached from inside alone; it may be an attack on what listens there"},
	{Name: "map-full", By: Kernel, Refuses: true, Text: "the table of connections has no room for it: its answers are judged as if they were new",
		Advice: "see how full fl_conntrack_v1 is, by fairlead status, and what opens so many connections"},
	{Name: NoBackend, By: Kernel, Refuses: true, Text: "the service has no endpoint for it",
		Advice: "see whether the service's selector finds pods, whether these are ready, and whether they have an address of the client's family"},
	{Name: "unknown-pod", By: Kernel, Refuses: true, Text: "is for an address that is not the pod's behind this interface",
		Advice: "nothing, while pods come and go; else see why the node routes it there: ip route get ADDRESS"},
	{Name: "event-lost", By: Kernel, Text: "a flow that the ring of events had no room for"},
	{Name: "observed", By: Kernel, Text: "got in though it would be refused, or judged by Envoy: the namespace is observed"},
	{Name: "proxy-absent", By: Kernel, Refuses: true, Text: "nobody listened at the proxy's port for 3 s, while the client tried again: it is refused",
		Advice: seeStatus + "; agent.whenProxyAbsent says what becomes of connections meanwhile"},

	{Name: "would-be-proxied", By: Kernel, Text: "would go to Envoy if its namespace were not observed"},
	{Name: "would-be-routed", By: Kernel, Text: "would get a backend of the service's routes if its namespace were not observed"},
	{Name: ByPolicy, By: Proxy, Refuses: true, Policy: true, Text: "no rule allows it"},
	{Name: RateLimit, By: Proxy, Refuses: true, Policy: true, Text: "there were too many requests"},
	{Name: NoRoute, By: Proxy, Refuses: true, Policy: true, Text: "the destination has routes, and none takes it"},
	{Name: UnknownHost, By: Proxy, Refuses: true, Policy: true, Text: "its host is nobody's, and who sends it may reach known ones alone",
		Advice: "declare the host, by a ServiceEntry or a Service, or let unknown ones pass"},

	{Name: "UF", By: Proxy, Refuses: true, Text: "the backend could not be connected to", Advice: "see whether it listens at the port, and whether its own policy lets Envoy in"},
	{Name: "UH", By: Proxy, Refuses: true, Text: "the service has no healthy backend", Advice: "see whether its pods are ready"},
	{Name: "UO", By: Proxy, Refuses: true, Text: "limits on connections or requests are reached", Advice: "see the limits that the destination's policy sets, and what opens so many"},
	{Name: "UT", By: Proxy, Refuses: true, Text: "the backend did not answer in time", Advice: "see the backend, and the time that its route gives it"},
	{Name: "NC", By: Proxy, Refuses: true, Text: "its route leads to a backend that is not there", Advice: "see what its route names; " + seeStatus},
	{Name: "NR", By: Proxy, Refuses: true, Text: "no route takes the connection", Advice: "see the routes for its destination: fairlead explain"},
	{Name: "DF", By: Proxy, Refuses: true, Text: "the backend's name could not be resolved", Advice: "see whether the node's DNS knows it"},
}

// ReasonOf finds what a flow's reason means: of Envoy's flags, which may be several with
// commas, the first that says something. False: it has no name here.
func ReasonOf(by Judge, name string) (Reason, bool) {
	for part := range strings.SplitSeq(name, ",") {
		other := -1
		for i, r := range Reasons {
			if r.Name == part && r.By == by {
				return r, true
			}
			if r.Name == part {
				other = i
			}
		}
		if other >= 0 { // the kernel refuses for want of a known host, too
			return Reasons[other], true
		}
	}
	return Reason{}, false
}

// Explain says in a flow that did not get through, or would not, what its reason means and
// what to do about it.
func (f *Flow) Explain() {
	if f.Verdict != "dropped" && f.Verdict != "denied" && f.Verdict != "audited" {
		return
	}
	by := Kernel
	if f.Direction == "proxy" {
		by = Proxy
	}
	r, ok := ReasonOf(by, f.Reason)
	if !ok {
		return
	}
	f.Meaning, f.Advice = r.Text, r.Advice
	if r.Name == ByPolicy && f.Rule != "" {
		f.Meaning = "a rule denies it"
	}
	if r.Policy && len(f.DecidedBy) == 0 {
		f.Advice = strings.TrimPrefix(f.Advice+"; ", "; ") + "no object says so any more: what it was judged by has changed since"
	}
}
