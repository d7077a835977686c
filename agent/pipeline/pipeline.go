// SPDX-License-Identifier: Apache-2.0

// Package pipeline is the one way through the house: objects in, a node's plan
// out. The command line runs it once over files, the agent after every change; the
// code is the same.
//
//	objects ── translators ──► model ── merge ──► plan
package pipeline

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gateway"
	"fairlead.io/fairlead/translators/host"
	"fairlead.io/fairlead/translators/istio"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/linkerd"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/smi"
)

// Options are the inputs that are not objects.
type Options struct {
	Node         string // whose plan
	TrustDomain  string // of the workloads' identities; "" = cluster.local
	Domain       string // of the services' DNS names; "" = cluster.local
	Agents       bool   // see kubernetes.Options
	Leases, Self string // as above
	Observe      bool   // likewise
	Enforce      bool   // likewise
	IstioVersion string // whose behaviour is wanted; "" = the newest that is known
	// IstioOutboundTrafficPolicy and IstioDetectionTimeout come before what MeshConfig
	// says, unless they are zero and nil; see istio.Options.
	IstioOutboundTrafficPolicy string
	IstioDetectionTimeout      *time.Duration
	GatewayRequireGrants       bool // see gateway.Options
	// What Linkerd is told at its installation; see linkerd.Options.
	LinkerdControlPlaneNamespace string
	LinkerdDefaultInboundPolicy  string
	LinkerdClusterNetworks       []netip.Prefix
}

// trustDomain is what SPIFFE says that a trust domain is made of; domain is a name of DNS.
var (
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	domain      = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

// validateNames refuses names that would make identities which no policy can name, or
// hosts which nobody can look up.
func (o Options) validateNames() error {
	if o.TrustDomain != "" && !trustDomain.MatchString(o.TrustDomain) {
		return fmt.Errorf("trust domain %q: want lower-case letters, digits, dots, dashes and underscores, at most 255, as in cluster.local", o.TrustDomain)
	}
	if o.Domain != "" && (!domain.MatchString(strings.ToLower(o.Domain)) || len(o.Domain) > 253) {
		return fmt.Errorf("cluster domain %q: want a name of DNS, as in cluster.local", o.Domain)
	}
	return nil
}

// Planes is the explicit list of control planes, in the documented order: where a
// namespace names no owner, the first that has routes for a frontend serves them.
func Planes(o Options) ([]translators.Translator, error) {
	if err := o.validateNames(); err != nil {
		return nil, err
	}
	i, err := istio.New(istio.Options{Version: o.IstioVersion, Domain: o.Domain, TrustDomain: cmp.Or(o.TrustDomain, kubernetes.DefaultTrustDomain),
		OutboundTrafficPolicy: o.IstioOutboundTrafficPolicy, DetectionTimeout: o.IstioDetectionTimeout})
	if err != nil {
		return nil, err
	}
	l, err := linkerd.New(linkerd.Options{TrustDomain: o.TrustDomain, Domain: o.Domain, ControlPlaneNamespace: o.LinkerdControlPlaneNamespace,
		DefaultInboundPolicy: o.LinkerdDefaultInboundPolicy, ClusterNetworks: o.LinkerdClusterNetworks})
	if err != nil {
		return nil, err
	}
	return []translators.Translator{i, smi.New(smi.Options{TrustDomain: o.TrustDomain, Domain: o.Domain}), l,
		gateway.New(gateway.Options{RequireGrants: o.GatewayRequireGrants})}, nil
}

// Pipeline computes the plan of one node. It is not safe for concurrent use.
type Pipeline struct {
	store   *incr.Store
	planes  []string
	host    *host.Host
	decoder *objects.Decoder
}

// New returns an empty pipeline.
func New(o Options) (*Pipeline, error) {
	planes, err := Planes(o)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(planes))
	for i, p := range planes {
		names[i] = p.Plane()
	}
	store := incr.New()
	h := host.New(store, kubernetes.New(kubernetes.Options{TrustDomain: o.TrustDomain, Domain: o.Domain, Agents: o.Agents, Leases: o.Leases, Self: o.Self, Observe: o.Observe, Enforce: o.Enforce}), planes...)
	merge.Register(store, names)
	plan.Register(store, o.Node, names)
	return &Pipeline{store: store, planes: names, host: h, decoder: objects.NewDecoder(h.Registry())}, nil
}

// Registry knows the kinds that the pipeline reads.
func (p *Pipeline) Registry() *objects.Registry { return p.host.Registry() }

// Load makes the inputs the whole configuration and recomputes what that changes.
// Inputs that are as they were at the last Load are not decoded again. It returns
// the changed rows of every table.
func (p *Pipeline) Load(inputs ...objects.Input) []incr.Change {
	return p.Replace(p.decoder.Decode(inputs...))
}

// Replace is Load of a batch that was decoded already.
func (p *Pipeline) Replace(b *objects.Batch) []incr.Change {
	p.host.Replace(b)
	return p.store.Run()
}

// SetHostAddresses says which addresses the node has besides those that its object names,
// and returns what that changes.
func (p *Pipeline) SetHostAddresses(addrs []netip.Addr) []incr.Change {
	for _, r := range p.store.Rows(plan.HostAddresses) {
		if !slices.Contains(addrs, r.Value.(netip.Addr)) {
			p.store.Delete(plan.HostAddresses, r.Key)
		}
	}
	for _, a := range addrs {
		p.store.Set(plan.HostAddresses, a.String(), a)
	}
	return p.store.Run()
}

// Attachment is a pod's network as its node's container runtime made it.
type Attachment struct {
	Pod       string // ns/name
	UID       string // "" if the runtime does not say
	Addresses []netip.Addr
}

// SetAttachments says which attachments the node has, oldest first, and returns what that
// changes. A pod that is not known, or is another one of the name, has none. Call it again
// when objects have changed.
func (p *Pipeline) SetAttachments(all []Attachment) []incr.Change {
	want := map[string]Attachment{}
	has := map[netip.Addr]string{}
	for _, a := range all {
		o, _ := p.store.Get(translators.Objects(objects.PodKind), a.Pod).(*objects.Object)
		if o == nil || !kubernetes.Is(o, a.UID) {
			continue
		}
		want[a.Pod] = a
		for _, addr := range a.Addresses {
			has[addr] = a.Pod
		}
	}
	for pod, a := range want { // what the runtime did not tell of, and gave the address away
		if slices.ContainsFunc(a.Addresses, func(addr netip.Addr) bool { return has[addr] != pod }) {
			delete(want, pod)
		}
	}
	for _, r := range p.store.Rows(kubernetes.ToldAddresses) {
		if _, still := want[r.Key]; !still {
			p.store.Delete(kubernetes.ToldAddresses, r.Key)
		}
	}
	for pod, a := range want {
		old, _ := p.store.Get(kubernetes.ToldAddresses, pod).(*kubernetes.Told)
		if old != nil && old.UID == a.UID && slices.Equal(old.Addresses, a.Addresses) {
			continue // what its status said by then counts
		}
		said := kubernetes.AddressesOf(p.store.Get(translators.Objects(objects.PodKind), pod).(*objects.Object))
		p.store.Set(kubernetes.ToldAddresses, pod, &kubernetes.Told{UID: a.UID, Addresses: a.Addresses, Instead: said})
	}
	return p.store.Run()
}

// Attached reports whether the pod that an attachment is of is known with its addresses.
func (p *Pipeline) Attached(a Attachment) bool {
	told, _ := p.store.Get(kubernetes.ToldAddresses, a.Pod).(*kubernetes.Told)
	w, _ := p.store.Get(translators.Workloads, a.Pod).(*model.Workload)
	return told != nil && told.UID == a.UID && w != nil && slices.Equal(w.Addresses, a.Addresses)
}

// Rows returns a table in the order of its keys.
func (p *Pipeline) Rows(t incr.Table) []incr.Row { return p.store.Rows(t) }

// Get returns a row's value, nil if there is none.
func (p *Pipeline) Get(t incr.Table, key string) any { return p.store.Get(t, key) }

// WorkloadAt is the workload that has the address, nil if none is known.
func (p *Pipeline) WorkloadAt(a netip.Addr) *model.Workload {
	for _, r := range p.store.Select(translators.Workloads, "addr", a.String()) {
		return r.Value.(*model.Workload)
	}
	return nil
}

// Guards names the permissions that govern a workload (ns/name).
func (p *Pipeline) Guards(workload string) []string {
	g, _ := p.store.Get(plan.Governance, workload).(*plan.Governed)
	if g == nil {
		return nil
	}
	out := make([]string, len(g.Src))
	for i, s := range g.Src {
		out[i] = s.String()
	}
	return out
}

// Closed are the namespaces in which something governs pods, and those that are known to be
// open, each sorted; everywhere says that something governs those of all others.
func (p *Pipeline) Closed() (namespaces, open []string, everywhere bool) {
	return plan.Closed(p.store, p.planes)
}

// Objects counts the objects in use.
func (p *Pipeline) Objects() int {
	n := 0
	for _, k := range p.Registry().Kinds() {
		n += p.store.Len(translators.Objects(k))
	}
	return n
}

// Computed counts the keys that each stage has computed so far.
func (p *Pipeline) Computed() map[string]int { return p.store.Computed() }

// Diagnostics lists everything that was found, sorted.
func (p *Pipeline) Diagnostics() []model.Diagnostic {
	out := p.host.Diagnostics()
	for _, t := range []incr.Table{merge.Diagnostics, plan.Diagnostics} {
		for _, r := range p.store.Rows(t) {
			out = append(out, r.Value.([]model.Diagnostic)...)
		}
	}
	slices.SortStableFunc(out, model.CompareDiagnostics)
	return slices.Compact(out)
}

// InPart is the outcome of an object of which some fields were refused while the
// rest is in use. An object that is not used at all is model.Refused.
const InPart model.Outcome = "in part"

// Fate is what became of one object.
type Fate struct {
	Kind        string             `json:"kind"`
	Namespace   string             `json:"namespace,omitempty"`
	Name        string             `json:"name"`
	File        string             `json:"file,omitempty"`
	Line        int                `json:"line,omitempty"`
	Outcome     model.Outcome      `json:"outcome"` // the worst of its fields, or InPart
	Diagnostics []model.Diagnostic `json:"diagnostics,omitempty"`
}

// Fates tells of every object that is in use, in the order of the stream, and
// returns the diagnostics that belong to none of them.
func (p *Pipeline) Fates() (fates []Fate, rest []model.Diagnostic) {
	var all []*objects.Object
	for _, k := range p.Registry().Kinds() {
		for _, r := range p.store.Rows(translators.Objects(k)) {
			all = append(all, r.Value.(*objects.Object))
		}
	}
	return FatesOf(all, p.Diagnostics())
}

// FatesOf tells what diagnostics make of objects, which it sorts, and returns the
// diagnostics that belong to none of them.
func FatesOf(all []*objects.Object, diagnostics []model.Diagnostic) (fates []Fate, rest []model.Diagnostic) {
	at := map[objects.Ref]int{}
	slices.SortStableFunc(all, func(a, b *objects.Object) int {
		if c := strings.Compare(a.Place.File, b.Place.File); c != 0 {
			return c
		}
		return a.Place.First - b.Place.First
	})
	for _, o := range all {
		f := Fate{Kind: o.Kind.Kind, Namespace: o.Namespace, Name: o.Name, File: o.Place.File, Line: o.Place.First, Outcome: model.Translated}
		if o.Invalid {
			f.Outcome = model.Refused
		}
		at[o.Ref()] = len(fates)
		fates = append(fates, f)
	}
	for _, d := range diagnostics {
		i, ok := at[objects.RefOf(d.Source)]
		if !ok {
			rest = append(rest, d)
			continue
		}
		fates[i].Diagnostics = append(fates[i].Diagnostics, d)
		o := d.Outcome
		if o == model.Refused {
			o = InPart
		}
		fates[i].Outcome = worse(fates[i].Outcome, o)
	}
	return fates, rest
}

func worse(a, b model.Outcome) model.Outcome {
	rank := map[model.Outcome]int{model.Translated: 0, model.Approximated: 1, InPart: 2, model.Refused: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
