// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

const theRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {regex: "/a(b+)c"}}]
    route: [{destination: {host: web, port: {number: 80}}}]
  - route: [{destination: {host: web, port: {number: 80}}}]
`

var webRoutes = resourceKey{xds.RouteType, "shop/web:80"}

// one is the only rejection.
func (r *rig) one() Rejected {
	r.t.Helper()
	all := r.rejected.list(nil)
	if len(all) != 1 {
		r.t.Fatalf("rejected %+v", all)
	}
	return all[0]
}

// badRegex rejects routes as Envoy does.
func badRegex(c serve.Change) string {
	if c.Type == xds.RouteType && strings.Contains(string(c.Resource.Body), "(b+)") {
		return "RouteConfiguration shop/web:80: missing ): (b+)c"
	}
	return ""
}

func TestARejectionNamesTheFieldUntilItIsMended(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	r.reject = badRegex
	began := time.Now()
	r.write("routes.yaml", theRoutes)
	r.reload(t.Context())
	got := r.one()
	if got.Type != "RouteConfiguration" || got.Name != "shop/web:80" || got.Version != r.res.want[webRoutes].Version ||
		got.Detail != "missing ): (b+)c" || got.Since.Before(began) || got.Serving != Answer500 {
		t.Errorf("rejected %+v", got)
	}
	if len(got.Sources) != 1 || !strings.HasSuffix(got.Sources[0].String(), "routes.yaml:8: VirtualService shop/web spec.http[0].match[0].uri.regex") ||
		got.Field != "spec.http[0].match[0].uri.regex" {
		t.Errorf("sources %v, field %q", got.Sources, got.Field)
	}
	if !r.isApplied() {
		t.Error("a rejection keeps all else from being applied")
	}
	// As long as nothing changes it stands, and is as old as it is.
	r.reload(t.Context())
	r.lookAfter(t.Context())
	if again := r.one(); !again.Since.Equal(got.Since) {
		t.Errorf("since %v, then %v", got.Since, again.Since)
	}
	r.stuck = context.DeadlineExceeded // nobody has judged the next one yet
	r.write("routes.yaml", strings.ReplaceAll(theRoutes, "(b+)", "b+"))
	r.reload(t.Context())
	r.one()
	r.stuck = nil
	r.lookAfter(t.Context())
	if all := r.rejected.list(nil); len(all) != 0 {
		t.Errorf("mended, and still rejected: %+v", all)
	}
	r.write("routes.yaml", theRoutes)
	r.reload(t.Context())
	r.one()
	r.write("app.yaml", strings.Split(theApp, "kind: Service")[0]+"kind: Ignored\nmetadata: {name: x}\n")
	r.remove("routes.yaml")
	r.reload(t.Context())
	if all := r.rejected.list(nil); len(all) != 0 {
		t.Errorf("gone, and still rejected: %+v", all)
	}
}

// A lazy Envoy finds out long after the push.
func TestRejectionsThatComeLate(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "routes.yaml": theRoutes})
	r.reload(t.Context())
	want := r.res.want[webRoutes]
	r.late.put(serve.Rejection{Type: xds.RouteType, Name: "shop/web:80", Version: "of before", Detail: "old"})
	if r.judgeLate(t.Context()); len(r.rejected) != 0 {
		t.Errorf("rejected %+v: not what is wanted", r.one())
	}
	r.late.put(serve.Rejection{Type: xds.RouteType, Name: "shop/web:80", Version: want.Version, Detail: "bad '/a(b+)c'", Kept: "v0"})
	select {
	case <-r.late.wake:
	default:
		t.Error("nobody is woken")
	}
	r.leads = "old" // what the one in charge has, and another rejects, is in use
	r.late.put(serve.Rejection{Type: xds.RouteType, Name: "shop/web:80", Version: want.Version, Detail: "bad", Clients: []string{"new"}, Accepted: []string{"old"}})
	if r.judgeLate(t.Context()); len(r.rejected) != 0 {
		t.Errorf("rejected %+v: it is in use", r.one())
	}
	r.late.put(serve.Rejection{Type: xds.RouteType, Name: "shop/web:80", Version: want.Version, Detail: "bad '/a(b+)c'", Clients: []string{"old"}, Accepted: []string{"new"}, Kept: "v0"})
	r.judgeLate(t.Context())
	if got := r.one(); got.Field != "spec.http[0].match[0].uri.regex" || got.Serving != LastGood {
		t.Errorf("rejected %+v", got)
	}
	// The proxy knows what Envoy has.
	p := &proxy.Status{Served: serve.Status{Rejected: []serve.Rejection{{Type: xds.RouteType, Name: "shop/web:80", Version: want.Version}}}}
	if got := r.rejected.list(p); got[0].Serving != Answer500 {
		t.Errorf("serving %s", got[0].Serving)
	}
}

// The kernel of the destination must not go on to believe that a policy was judged
// which Envoy turns out not to have.
func TestAPolicyThatIsRejectedLateIsNotClaimedToBeJudged(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "policy.yaml": thePolicy})
	r.reload(t.Context())
	k := resourceKey{xds.ClusterType, "shop/web:80"}
	guarded := r.res.want[k]
	r.late.put(serve.Rejection{Type: k.typ, Name: k.name, Version: guarded.Version, Detail: "no"})
	log := r.took(r.judgeLate)
	if got := r.one(); log != "set Cluster shop/web:80" || r.res.want[k].Version == guarded.Version || got.Serving != WithoutPolicy || got.Version != guarded.Version {
		t.Errorf("rejected %+v, did\n%s", got, log)
	}
	if got := r.one(); !slices.ContainsFunc(got.Sources, func(s model.Source) bool { return s.Object() == "AuthorizationPolicy shop/p" }) {
		t.Errorf("sources %v", got.Sources)
	}
}

func TestWhatCannotBeRenderedIsSaid(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	table := func(key, regex string) incr.Change {
		return incr.Change{Table: plan.RouteTables, Key: key, New: &plan.RouteTable{Name: key, Routes: []plan.Route{{ID: "r",
			Match: model.RouteMatch{Path: &model.StringMatch{Kind: model.Regex, Value: regex}}, Direct: &model.Direct{Status: 200}}}}}
	}
	take := func(c incr.Change) Serving {
		r.bring(t.Context(), r.res.take([]incr.Change{c}), func() error { return nil })
		for _, got := range r.rejected.list(nil) {
			if got.Name == c.Key && got.Version == "" && got.Detail != "" {
				return got.Serving
			}
		}
		return ""
	}
	for _, step := range []struct {
		table, regex string
		want         Serving
	}{
		{"new", "(", Answer500},
		{"new", "((", Answer500}, // what answers 500 is no last good
		{"new", "a", ""},
		{"new", "(", LastGood},
		{"shop/web:80", "[", LastGood},
	} {
		if got := take(table(step.table, step.regex)); got != step.want {
			t.Errorf("%s %s: serving %q, want %q", step.table, step.regex, got, step.want)
		}
	}
	take(incr.Change{Table: plan.RouteTables, Key: "new"})
	if got := r.one(); got.Name != "shop/web:80" || len(got.Sources) == 0 || got.Sources[0].Object() != "Service shop/web" {
		t.Errorf("left: %+v", got)
	}
}

// envoy is a client of the agent's feed that acknowledges everything and can change
// its mind.
type envoy struct {
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	bad    string // is in the body of what it rejects

	mu     sync.Mutex
	nonces map[string]string // of the response with most resources, by type
	most   map[string]int
}

func connectEnvoy(t *testing.T, s *serve.Server) *envoy {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(serve.GRPCOptions()...)
	s.Register(g)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:mem", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &envoy{stream: stream, nonces: map[string]string{}, most: map[string]int{}}
	for _, typ := range xds.Types() {
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n1"}, TypeUrl: typ, ResourceNamesSubscribe: []string{"*"}}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			answer := &discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
			e.mu.Lock()
			if len(m.Resources) > e.most[m.TypeUrl] {
				e.most[m.TypeUrl], e.nonces[m.TypeUrl] = len(m.Resources), m.Nonce
			}
			for _, r := range m.Resources {
				if e.bad != "" && strings.Contains(string(r.Resource.Value), e.bad) {
					answer.ErrorDetail = &status.Status{Message: "bad " + e.bad}
				}
			}
			e.mu.Unlock()
			if stream.Send(answer) != nil {
				return
			}
		}
	})
	t.Cleanup(func() { conn.Close(); g.Stop(); wg.Wait() })
	return e
}

// refuse rejects what it acknowledged in bulk: all that has this in it.
func (e *envoy) refuse(t *testing.T, typ, bad string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bad = bad
	if err := e.stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typ, ResponseNonce: e.nonces[typ],
		ErrorDetail: &status.Status{Message: "bad " + bad}}); err != nil {
		t.Fatal(err)
	}
}

// From the stream to the status: one of many that came at once is found, long after.
func TestALateRejectionArrives(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "routes.yaml": theRoutes,
		"other.yaml": strings.NewReplacer("name: web, namespace: shop}\nspec: {clusterIP: 10.96.0.1", "name: other, namespace: shop}\nspec: {clusterIP: 10.96.0.9").
			Replace("---" + strings.Split(theApp, "---")[2])})
	server := serve.New(serve.Options{StandIn: proxy.StandIn, OnReject: r.late.put}, nil)
	r.feed = server
	r.there = false
	r.reload(t.Context())
	e := connectEnvoy(t, server)
	r.there = true
	for end := time.Now().Add(5 * time.Second); !r.isApplied(); time.Sleep(10 * time.Millisecond) {
		if r.lookAfter(t.Context()); time.Now().After(end) {
			t.Fatalf("problems %v", r.problems)
		}
	}
	if e.most[xds.RouteType] < 2 {
		t.Fatalf("%d route tables came at once", e.most[xds.RouteType])
	}
	e.refuse(t, xds.RouteType, "/a(b+)c")
	for end := time.Now().Add(5 * time.Second); len(r.rejected) == 0; {
		select {
		case <-r.late.wake:
			r.judgeLate(t.Context())
		case <-time.After(time.Until(end)):
			t.Fatal("it does not arrive")
		}
	}
	if got := r.one(); got.Name != "shop/web:80" || got.Field != "spec.http[0].match[0].uri.regex" {
		t.Errorf("rejected %+v", got)
	}
}
