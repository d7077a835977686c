// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"fairlead.io/fairlead/xds"
)

// Options of a server. The zero value is usable.
type Options struct {
	Log *slog.Logger // nil: silent
	// StandIn gives what is served under a name that a client asked for and
	// nobody set, or whose first version the client rejected. nil, or false: the
	// client is told that there is none.
	StandIn func(typeURL, name string) (xds.Resource, bool)
	// OnReject is told of every rejected resource, at the moment when the culprit
	// is known. It runs under the server's lock: it must not block nor call back.
	OnReject func(Rejection)
	// Adapt gives what rewrites resources for a client before they are sent; nil: as
	// they are. A resource whose content it changes must get another version, the
	// same each time. What it fails for counts as rejected by the client.
	Adapt func(*core.Node) func(xds.Resource) (xds.Resource, error)
	// Static lists clusters that are never sent: clients have them from the start.
	Static []string

	// Lazy clients are sent the clusters of route tables that they ask for, and no
	// others. Scopes tell them to ask when the first request comes: the server sets
	// on_demand, whatever it was given. Listeners may use route tables without
	// scopes, but not those whose name ends in "~" and a number.
	Lazy bool
	// InUse lists route tables that a lazy client asks for at once, as those of a
	// client before it. They are forgotten when a client had the time to do so.
	InUse []string
	// OnUse is told when Server.InUse may have changed; as OnReject.
	OnUse func()
	// Candidates lists the names under which there may be what a lazy client asks for
	// as a cluster by name, the best first: the client gets the first that there is,
	// under the name that it asked for, and another when that changes. It gets StandIn's
	// for the name when there is none, and nothing if too many names stand for nothing.
	// nil: there is the name itself.
	Candidates func(typeURL, name string) []string
	// ClusterLinger is how long a lazy client keeps clusters that none of its route
	// tables needs any more, for requests that are under way.
	ClusterLinger time.Duration
	// ClusterWait is how long a route table waits for the client's answer to its
	// clusters; 0 = 5 s. Then it is sent without, and has 503s until they come.
	ClusterWait time.Duration
}

// Change sets a resource, or deletes it if Resource is nil.
type Change struct {
	Type, Name string
	Resource   *xds.Resource
}

// Set makes the change that sets r.
func Set(r xds.Resource) Change { return Change{Type: r.Type, Name: r.Name, Resource: &r} }

// Rejection is a resource that a client did not accept.
type Rejection struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Detail  string `json:"detail"` // the client's words
	// Kept is the version that clients have in its place, the last that was
	// accepted; "": there is none.
	Kept string `json:"kept,omitempty"`
}

// Outcome is what became of changes.
type Outcome struct {
	// Rejected lists those changes that some client rejected; sorted.
	Rejected []Rejection
	// Clients is how many clients were connected at the end. With none, the
	// changes are stored and nobody has judged them.
	Clients int
}

// Counters only grow. Resources and Bytes are what went to clients; Bytes counts
// the bodies.
type Counters struct {
	Resources uint64 `json:"resources"`
	Removed   uint64 `json:"removed"`
	Responses uint64 `json:"responses"`
	Bytes     uint64 `json:"bytes"`
	Acks      uint64 `json:"acks"`
	Nacks     uint64 `json:"nacks"`
}

// Server holds resources and serves them. It is safe for concurrent use.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	opts Options
	log  *slog.Logger
	push chan struct{} // held by the Push or Sync under way

	mu       sync.Mutex
	store    map[string]map[string]*entry
	streams  map[*stream]struct{}
	waiting  map[key][]*item
	counters Counters
	expect   *time.Timer // runs while a client is expected
	expected bool

	static map[string]bool
	// Of a lazy server:
	leads    map[string]map[string]bool // scopes by the table that they lead to
	restored map[string]bool            // tables in use of which no client has told yet
	warmFor  time.Duration
	standIns int // a client's at most
}

type key struct{ typ, name string }

// entry is a resource's history as far as it matters.
type entry struct {
	want     *xds.Resource // as set
	rejected string        // why a client did not accept want; "" if none did so
	good     *xds.Resource // last that a client accepted, maybe want; or was wanted and not rejected
	before   *xds.Resource // good before that
	standIn  *xds.Resource // served while want is rejected and nothing was accepted
	route    string        // of a scope: the routes that want leads to; see routeOf
}

// effective is what a client is to have; nil if nothing can be given.
func (e *entry) effective() *xds.Resource {
	switch {
	case e == nil:
		return nil
	case e.rejected == "":
		return e.want
	case e.good != nil:
		return e.good
	}
	return e.standIn
}

// New makes a server that holds initial. A client that connects is told what is
// gone, too: so connect clients only when initial is the whole configuration.
func New(opts Options, initial []xds.Resource) *Server {
	s := &Server{
		opts:    opts,
		log:     opts.Log,
		push:    make(chan struct{}, 1),
		store:   map[string]map[string]*entry{},
		streams: map[*stream]struct{}{},
		waiting: map[key][]*item{},

		static:   map[string]bool{},
		leads:    map[string]map[string]bool{},
		restored: map[string]bool{},
		warmFor:  warmFor,
		standIns: maxStandIns,
	}
	if s.opts.ClusterWait == 0 {
		s.opts.ClusterWait = clusterWait
	}
	for _, n := range opts.Static {
		s.static[n] = true
	}
	if opts.Lazy {
		for _, n := range opts.InUse {
			s.restored[n] = true
		}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, r := range initial {
		s.set(r.Type, r.Name, &r)
	}
	return s
}

// maxMessage is the largest message: a client that comes back lists all it has, and
// a first answer has everything of a type.
const maxMessage = 1 << 30

// GRPCOptions are what a gRPC server must have that a Server is registered with:
// by default it would refuse clients that come back to thousands of services.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(maxMessage)}
}

// DialOptions are what a client must have.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))}
}

// Register adds the service to a gRPC server that has GRPCOptions.
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// Apply stores changes and sends them at once, those of an earlier type first.
// done is called once, when every connected client has answered, under the
// server's lock: it must not block nor call back. It may be nil. Changes that
// change nothing are sent to nobody.
func (s *Server) Apply(changes []Change, done func(Outcome)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(changes, done)
}

// apply is Apply under the lock; the returned function forgets done.
func (s *Server) apply(changes []Change, done func(Outcome)) (cancel func()) {
	changed := map[string][]string{}
	for _, c := range changes {
		if s.set(c.Type, c.Name, c.Resource) {
			changed[c.Type] = append(changed[c.Type], c.Name)
			s.settle(key{c.Type, c.Name}) // earlier changes of it are superseded
		}
	}
	for st := range s.streams {
		var types []string
		for t := range changed {
			types = append(types, t)
		}
		slices.SortFunc(types, compareTypes)
		for _, t := range types {
			slices.Sort(changed[t])
			st.changed(t, changed[t])
		}
		st.resendEndpoints()
		st.tidy()
	}
	return s.await(changes, done)
}

// set stores one change and reports whether it is one.
func (s *Server) set(typ, name string, r *xds.Resource) bool {
	byName := s.store[typ]
	e := byName[name]
	if r == nil {
		delete(byName, name)
		if e != nil {
			s.lead(name, e.route, "")
		}
		if typ == xds.RouteType {
			delete(s.restored, name)
		}
		return e != nil
	}
	if byName == nil {
		byName = map[string]*entry{}
		s.store[typ] = byName
	}
	if e == nil {
		e = &entry{}
		byName[name] = e
	} else if e.want.Version == r.Version {
		return false
	}
	if e.want != nil && e.rejected == "" && e.good != e.want {
		// Nobody used it, so nobody has judged it. It comes before what was accepted
		// earlier: that may be of a time with other policies.
		e.before, e.good = e.good, e.want
	}
	route := s.routeOf(r)
	s.lead(name, e.route, route)
	e.want, e.rejected, e.standIn, e.route = r, "", nil, route
	return true
}

// entry is what there is under a key; nil if nobody set it.
func (s *Server) entry(k key) *entry { return s.store[k.typ][k.name] }

func compareTypes(a, b string) int {
	rank := func(t string) int {
		if i := slices.Index(xds.Types(), t); i >= 0 {
			return i
		}
		return len(xds.Types())
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

func (s *Server) outcome(changes []Change) Outcome {
	o := Outcome{Clients: len(s.streams)}
	for _, c := range changes {
		e := s.store[c.Type][c.Name]
		if c.Resource != nil && e != nil && e.rejected != "" && e.want.Version == c.Resource.Version {
			o.Rejected = append(o.Rejected, rejection(e))
		}
	}
	slices.SortFunc(o.Rejected, compareRejections)
	return o
}

func rejection(e *entry) Rejection {
	r := Rejection{Type: e.want.Type, Name: e.want.Name, Version: e.want.Version, Detail: e.rejected}
	if e.good != nil {
		r.Kept = e.good.Version
	}
	return r
}

func compareRejections(a, b Rejection) int {
	return cmp.Or(compareTypes(a.Type, b.Type), strings.Compare(a.Name, b.Name))
}

// accepted notes that a client has r, which need not be wanted any more.
func (s *Server) accepted(k key, r *xds.Resource) {
	e := s.store[k.typ][k.name]
	if e == nil || e.good == r || r == e.standIn || e.rejected != "" && r == e.want {
		return
	}
	e.before, e.good = e.good, r
}

// reject notes that a client did not accept the version, and reports whether it is to
// have another one now.
func (s *Server) reject(k key, version, detail string) bool {
	e := s.store[k.typ][k.name]
	switch {
	case e == nil:
		return false
	case e.want.Version == version:
	case e.rejected != "" && e.good != nil && e.good.Version == version: // given in its place, and no better
		if e.good, e.before = e.before, nil; e.good == nil {
			e.standIn = s.standIn(k)
		}
		return true
	default:
		return false
	}
	if e.rejected == "" {
		e.rejected = detail
		if detail == "" {
			e.rejected = "rejected without a reason"
		}
		if e.good == e.want { // it was accepted first
			e.good, e.before = e.before, nil
		}
		if e.good == nil {
			e.standIn = s.standIn(k)
		}
		s.log.Warn("resource rejected", "type", xds.Short(k.typ), "name", k.name, "detail", detail)
		if s.opts.OnReject != nil {
			s.opts.OnReject(rejection(e))
		}
	}
	return true
}

func (s *Server) standIn(k key) *xds.Resource {
	if s.opts.StandIn == nil {
		return nil
	}
	r, ok := s.opts.StandIn(k.typ, k.name)
	if !ok {
		return nil
	}
	return &r
}
