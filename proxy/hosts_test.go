// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

// keyServer is an authority server that knows the keys of some hosts, in place of the
// proxy's own: what is tested is what listeners and route tables make of its answers.
type keyServer struct {
	auth.UnimplementedAuthorizationServer
	keys map[string]string

	mu    sync.Mutex
	asked []string // "client host context"
}

func (s *keyServer) Check(ctx context.Context, q *auth.CheckRequest) (*auth.CheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	host := q.GetAttributes().GetRequest().GetHttp().GetHost()
	said := q.GetAttributes().GetContextExtensions()
	if len(said) == 0 { // the first request of a table, for a host of its own
		return &auth.CheckResponse{Status: &status.Status{}, HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}}}, nil
	}
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s %s %s %s", strings.Join(md.Get(render.ClientMetadata), ","), host,
		said[render.PortExtension], said[render.UnknownExtension]))
	s.mu.Unlock()
	key, ok := s.keys[host]
	if !ok {
		return &auth.CheckResponse{
			Status: &status.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_BadGateway},
			}},
		}, nil
	}
	answer := &auth.OkHttpResponse{}
	if key != "" {
		answer.Headers = []*core.HeaderValueOption{{
			Header:       &core.HeaderValue{Key: render.DestinationHeader, Value: key},
			AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}}
	}
	return &auth.CheckResponse{Status: &status.Status{}, HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: answer}}, nil
}

// were returns what was asked since the last call.
func (s *keyServer) were() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func startKeys(r *rig, keys map[string]string) *keyServer {
	r.t.Helper()
	s := &keyServer{keys: keys}
	l, err := Listen(PathsIn(r.dir).Authority[0], DefaultUID)
	if err != nil {
		r.t.Fatal(err)
	}
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, s)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	r.t.Cleanup(func() { g.Stop(); done.Wait() })
	return s
}

// byAuthority is a frontend at 10.96.0.n:80 and fd96::n:80 by names.
func byAuthority(n int, hosts []string, routes ...plan.Route) []any {
	all := service(n, routes...)
	t := all[0].(*plan.RouteTable)
	t.Hosts, t.Elsewhere = hosts, &plan.Elsewhere{Port: 80, Unknown: model.UnknownRefuse}
	return all
}

func named(id, cluster string) plan.Route {
	r := to(cluster)
	r.ID = id
	r.ResponseHeaders.Set = []model.Header{{Name: "x-route", Value: id}}
	return r
}

// Own names are the frontend's in any case, with any port or none, with a dot at the
// end; other names have the routes of the frontend whose key is found, and its policy.
// Requests without a host are for the address.
func TestHosts(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	server(t, serverB, nil)
	server(t, serverA6, nil)
	keys := startKeys(r, map[string]string{
		"bank": vip(2), "guarded": vip(3), "wrong": vip(2), "gone": vip(99), "same": "", "pod": plan.PassKey, "six": vip6(2), "none.invalid": plan.PassKey,
	})
	denied := plan.Cluster{Name: "c", Policy: &plan.Policy{Deny: []model.AuthRule{{From: identity(alphaID)}}}}
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "b"}, serverB), clusterOf(denied, serverB),
		clusterOf(plan.Cluster{Name: "a6"}, serverA6),
		byAuthority(1, []string{"web", "web.shop", "*.web.shop", "10.96.0.1", "[fd96::1]"}, named("web", "a")),
		byAuthority(2, []string{"bank", "*.bank", "six"}, named("bank", "b")),
		byAuthority(3, []string{"guarded"}, named("guarded", "c")),
		[]any{
			&plan.RouteTable{Name: "any:80", Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}},
			&plan.Scope{Key: plan.AnyKey(80), RouteTable: "any:80"},
			&plan.RouteTable{Name: "headless", Routes: []plan.Route{{ID: "headless", Original: true, App: model.AppDetect}}},
		},
		pass(t), modeListeners())...)

	const own = "200 web"
	for _, c := range []struct{ from, to, request, want, asked string }{
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: web\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: WEB.Shop\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: web:80\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: Web.:8080\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: web.shop.\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: a.b.web.shop\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: 10.96.0.1\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: 10.96.0.1:80\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: [fd96::1]:80\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: [FD96::1]\r\n", own, ""},
		{alpha, vip(1), "GET http://web/ HTTP/1.1\r\nhost: bank\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.0\r\nhost: web\r\n", own, ""},
		{alpha, vip(1), "GET / HTTP/1.0\r\n", own, ""},
		{alpha, vip(1), "OPTIONS * HTTP/1.1\r\nhost: web\r\n", "404 ", ""}, // Envoy's own saying
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: bank\r\n", "200 bank", alphaID + " bank 80 refuse"},
		{alpha, vip(1), "GET http://bank/ HTTP/1.1\r\nhost: web\r\n", "200 bank", alphaID + " bank 80 refuse"},
		{beta, vip(1), "GET / HTTP/1.1\r\nhost: guarded\r\n", "200 guarded", betaID + " guarded 80 refuse"},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: guarded\r\n", "403 guarded", alphaID + " guarded 80 refuse"},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: webX\r\n", "502 ", alphaID + " webX 80 refuse"},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: wrong\r\n", "421 ", alphaID + " wrong 80 refuse"},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: same\r\n", "421 ", alphaID + " same 80 refuse"},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: gone\r\n", "404 ", alphaID + " gone 80 refuse"},
		{alpha, vip(1), "GET / HTTP/1.1\r\nhost: bank\r\nx-fl-dst: " + vip(3) + "\r\n", "200 bank", alphaID + " bank 80 refuse"},
		{alpha, anyVIP(7, 80), "GET / HTTP/1.1\r\nhost: bank\r\n", "200 bank", alphaID + " bank 80 pass"},
		{alpha6, "[fd97:4::7]:80", "GET / HTTP/1.1\r\nhost: bank\r\n", "503 bank", "<alpha6> bank 80 pass"}, // no endpoint of the family
		{alpha, anyVIP(7, 80), "GET / HTTP/1.1\r\nhost: nobody\r\n", "502 ", alphaID + " nobody 80 pass"},
		{alpha, anyVIP(7, 81), "GET / HTTP/1.1\r\nhost: bank\r\n", "404 ", ""},
	} {
		got, err := rawRequest(t.Context(), c.from, c.to, c.request+"connection: close\r\n\r\n")
		if err != nil {
			t.Errorf("%q: %v", c.request, err)
			continue
		}
		if s := fmt.Sprintf("%d %s", got.Status, got.Header.Get("x-route")); s != c.want {
			t.Errorf("%q: %s, want %s", c.request, s, c.want)
		}
		want := strings.Replace(c.asked, "<alpha6>", alphaID, 1)
		if asked := strings.Join(keys.were(), "; "); asked != want {
			t.Errorf("%q: asked %q, want %q", c.request, asked, want)
		}
	}
}

func pass(t *testing.T) []any {
	t.Helper()
	rs, err := render.PassResources()
	if err != nil {
		t.Fatal(err)
	}
	var out []any
	for _, r := range rs {
		out = append(out, r)
	}
	return out
}

// What passes goes where it was sent, as the client speaks, from ports that do not say
// that anything was judged.
func TestPass(t *testing.T) {
	r := newRig(t)
	server(t, anyVIP(7, 80), nil)
	startKeys(r, map[string]string{"pod": plan.PassKey})
	r.push(rows([]any{
		&plan.RouteTable{Name: "any:80", Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}},
		&plan.Scope{Key: plan.AnyKey(80), RouteTable: "any:80"},
	}, pass(t), modeListeners())...)
	for _, h2 := range []bool{false, true} {
		got := r.ask(alpha, anyVIP(7, 80), "pod", h2)
		want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		if got.Proto != want || got.Host != "pod" || portOf(t, got.Peer) < render.UncheckedLow || !strings.HasPrefix(got.Peer, alpha+":") {
			t.Errorf("HTTP/2 %v: %+v", h2, got)
		}
	}
}
