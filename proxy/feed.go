// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"fairlead.io/fairlead/proxy/authority"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

const (
	feedPause    = 50 * time.Millisecond
	feedMaxPause = time.Second
)

// feed keeps a stream to the agent and puts what comes into the server. What it
// answers the agent is what Envoy answered; of several, the one that serves.
type feed struct {
	node, socket string
	name         string // of this proxy; see InCharge
	server       *serve.Server
	names        *authority.Index // of what the server holds
	log          *slog.Logger
	connected    func() // to an agent
	changed      func() // something came, or was judged
	synced       func() // the agent has sent everything that there was
	// inUse reports whether the Envoy that serves has what another one rejects. It must
	// not block.
	inUse func(serve.Rejection) bool

	mu      sync.Mutex
	session *session // nil: not connected
	err     error    // why not
	wasSync bool     // in this process's life
	isSync  bool     // in this session
}

// current reports whether the agent has sent everything in this session, and whether
// there is one.
func (f *feed) current() (current, connected bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isSync, f.session != nil
}

// run connects again and again until ctx ends.
func (f *feed) run(ctx context.Context) {
	pause := feedPause
	for {
		began := time.Now()
		err := f.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		if f.session != nil {
			f.log.Warn("feed lost", "error", err)
		}
		f.session, f.isSync, f.err = nil, false, err
		f.mu.Unlock()
		if time.Since(began) > feedMaxPause {
			pause = feedPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, feedMaxPause)
	}
}

// rejected is the server's OnReject: what was acknowledged to the agent before may
// turn out bad when Envoy first uses it, or when another Envoy took over.
func (f *feed) rejected(r serve.Rejection) {
	f.mu.Lock()
	s := f.session
	f.mu.Unlock()
	if s != nil {
		s.post(event{reject: &r})
	}
}

// connect runs one session; it returns when that ends.
func (f *feed) connect(ctx context.Context) error {
	conn, err := grpc.NewClient("unix:"+f.socket,
		append(serve.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return fmt.Errorf("connect to the agent: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		cancel()
		return fmt.Errorf("connect to the agent: %w", err)
	}
	s := &session{stream: stream, wake: make(chan struct{}, 1), last: map[resource]origin{}, open: map[string]bool{}}
	var sender sync.WaitGroup
	sender.Go(func() { s.send(ctx) })
	defer sender.Wait()
	defer cancel()

	has := map[string]map[string]string{}
	for _, r := range f.server.Resources() {
		if has[r.Type] == nil {
			has[r.Type] = map[string]string{}
		}
		has[r.Type][r.Name] = r.Version
	}
	for i, t := range xds.Types() {
		req := &discovery.DeltaDiscoveryRequest{
			TypeUrl: t, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: has[t],
		}
		if i == 0 {
			req.Node = &core.Node{Id: f.node, Cluster: "fairlead", UserAgentName: f.name}
		}
		s.post(event{request: req})
	}
	first := map[string]bool{}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("read from the agent: %w", err)
		}
		f.mu.Lock()
		fresh := f.session == nil
		f.session, f.err = s, nil
		f.mu.Unlock()
		if fresh {
			f.log.Info("feed connected")
			f.connected()
		}
		f.take(s, resp)
		if first[resp.GetTypeUrl()] = true; len(first) == len(xds.Types()) {
			f.mu.Lock()
			again := f.wasSync
			f.wasSync, f.isSync = true, true
			f.mu.Unlock()
			if !again {
				f.synced()
			}
		}
	}
}

// take puts one response into the server.
func (f *feed) take(s *session, resp *discovery.DeltaDiscoveryResponse) {
	changes, err := changesOf(resp)
	if err != nil {
		s.post(event{answer: &answer{resp.GetTypeUrl(), resp.GetNonce()}, detail: err.Error()})
		return
	}
	a := &answer{resp.GetTypeUrl(), resp.GetNonce()}
	s.begin(a, changes)
	named, err := f.names.Take(changes)
	if err != nil {
		f.log.Warn("names not read", "error", err)
	}
	f.server.Apply(changes, func(o serve.Outcome) {
		// What the Envoy that serves takes, the agent may count on: one that does not would
		// replace it. If none is left that takes it, rejected is told.
		o.Rejected = slices.DeleteFunc(o.Rejected, f.inUse)
		named(o)
		var bad []string
		for _, r := range o.Rejected {
			bad = append(bad, xds.Short(r.Type)+" "+r.Name+": "+r.Detail)
		}
		s.post(event{answer: a, detail: strings.Join(bad, "; ")})
		f.changed()
	})
	f.changed()
}

func changesOf(resp *discovery.DeltaDiscoveryResponse) ([]serve.Change, error) {
	t := resp.GetTypeUrl()
	if xds.Phase(t) < 0 {
		return nil, fmt.Errorf("resources of type %s are not served", t)
	}
	var changes []serve.Change
	for _, r := range resp.GetResources() {
		if got := r.GetResource().GetTypeUrl(); got != t {
			return nil, fmt.Errorf("resource %q is a %s in a response of %s", r.GetName(), got, t)
		}
		changes = append(changes, serve.Set(xds.Resource{
			Type: t, Name: r.GetName(), Version: r.GetVersion(), Body: r.GetResource().GetValue(),
		}))
	}
	for _, n := range resp.GetRemovedResources() {
		changes = append(changes, serve.Change{Type: t, Name: n})
	}
	return changes, nil
}

// session is one stream to the agent. Events are sent in the order in which they
// happened.
type session struct {
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	wake   chan struct{}

	mu    sync.Mutex
	queue []event
	last  map[resource]origin // response that brought a resource
	open  map[string]bool     // nonces not answered yet
}

type resource struct{ typ, name string }

type origin struct{ nonce, version string }

type answer struct{ typ, nonce string }

// event is one of: a request, an answer to a response (a rejection if detail is
// not empty), a rejection that Envoy made.
type event struct {
	request *discovery.DeltaDiscoveryRequest
	answer  *answer
	detail  string
	reject  *serve.Rejection
}

func (s *session) begin(a *answer, changes []serve.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[a.nonce] = true
	for _, c := range changes {
		k := resource{c.Type, c.Name}
		if c.Resource == nil {
			delete(s.last, k)
		} else {
			s.last[k] = origin{a.nonce, c.Resource.Version}
		}
	}
}

func (s *session) post(e event) {
	s.mu.Lock()
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, e := range queue {
			if req := s.message(e); req != nil {
				if err := s.stream.Send(req); err != nil {
					return // Recv says why
				}
			}
		}
	}
}

func (s *session) message(e event) *discovery.DeltaDiscoveryRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	nack := func(typ, nonce, detail string) *discovery.DeltaDiscoveryRequest {
		return &discovery.DeltaDiscoveryRequest{
			TypeUrl: typ, ResponseNonce: nonce,
			ErrorDetail: &status.Status{Code: int32(codes.InvalidArgument), Message: detail},
		}
	}
	switch {
	case e.request != nil:
		return e.request
	case e.answer != nil:
		delete(s.open, e.answer.nonce)
		if e.detail != "" {
			return nack(e.answer.typ, e.answer.nonce, e.detail)
		}
		return &discovery.DeltaDiscoveryRequest{TypeUrl: e.answer.typ, ResponseNonce: e.answer.nonce}
	}
	o, ok := s.last[resource{e.reject.Type, e.reject.Name}]
	switch {
	case !ok:
		// It came in an earlier session, so there is nothing to answer. Asked for by
		// name it comes again, and its answer says it.
		return &discovery.DeltaDiscoveryRequest{TypeUrl: e.reject.Type, ResourceNamesSubscribe: []string{e.reject.Name}}
	case o.version != e.reject.Version || s.open[o.nonce]:
		return nil // another came since, or its answer will say it
	}
	return nack(e.reject.Type, o.nonce, xds.Short(e.reject.Type)+" "+e.reject.Name+": "+e.reject.Detail)
}
