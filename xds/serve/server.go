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
	// OnReject is told of every resource that some client rejected and no client that
	// is connected accepts, once this is known. It runs under the server's lock: it must
	// not block nor call back.
	OnReject func(Rejection)
	// OnContest is told, maybe again and again, of every resource that some client
	// rejected and another has accepted. It runs like OnReject.
	OnContest func(Rejection)
	// Client gives the name by which rejections tell clients apart; nil: the node's id.
	Client func(*core.Node) string
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
	// Kept is the version that clients have in its place, the last that was not
	// rejected; "": there is none.
	Kept string `json:"kept,omitempty"`
	// Clients are those that rejected it, maybe gone, and Accepted those that have
	// it all the same. Both are sorted.
	Clients  []string `json:"clients,omitempty"`
	Accepted []string `json:"accepted,omitempty"`
}

// Outcome is what became of changes.
type Outcome struct {
	// Rejected lists those changes that some client rejected, though others may have
	// accepted them; sorted.
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

	judged map[key]*entry // those with verdicts
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
	previous *xds.Resource // wanted after good and before want; nobody has judged it
	good     *xds.Resource // last that a client accepted, maybe want
	before   *xds.Resource // accepted before good
	standIn  *xds.Resource // served to who rejects all of them; nil if not made yet
	verdicts []verdict     // rejections of these versions
	told     bool          // OnReject was, of want
	route    string        // of a scope: the routes that want leads to; see routeOf
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

		judged:   map[key]*entry{},
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
		delete(s.judged, key{typ, name})
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
	if e.want != nil && !e.isRejected() && (e.good == nil || e.good.Version != e.want.Version) {
		// Nobody used it, so nobody has judged it. It comes before what was accepted
		// earlier: that may be of a time with other policies.
		e.previous = e.want
	}
	route := s.routeOf(r)
	s.lead(name, e.route, route)
	e.want, e.told, e.standIn, e.route = r, false, nil, route
	// What was rejected once may be good now: that may depend on other resources.
	e.verdicts = slices.DeleteFunc(e.verdicts, func(v verdict) bool { return v.version == r.Version })
	s.prune(e)
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
		if c.Resource != nil && e != nil && e.isRejected() && e.want.Version == c.Resource.Version {
			o.Rejected = append(o.Rejected, s.rejection(e))
		}
	}
	slices.SortFunc(o.Rejected, compareRejections)
	return o
}

func compareRejections(a, b Rejection) int {
	return cmp.Or(compareTypes(a.Type, b.Type), strings.Compare(a.Name, b.Name))
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
