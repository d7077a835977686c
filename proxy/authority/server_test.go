// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/xds/render"
)

func request(host, dst string, port uint32, said map[string]string) *auth.CheckRequest {
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Destination: &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
			Address: dst, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}}}},
		Request:           &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Host: host}},
		ContextExtensions: said,
	}}
}

func said(u model.Unknown) map[string]string {
	return map[string]string{render.PortExtension: "80", render.UnknownExtension: string(u)}
}

// client is one of a server over gRPC.
func client(t testing.TB, s *Server) auth.AuthorizationClient {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	s.Register(g)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:authority", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); g.Stop(); done.Wait() })
	return auth.NewAuthorizationClient(conn)
}

func TestCheck(t *testing.T) {
	var ready atomic.Bool
	s := NewServer(indexOf(t, rendered(t, world()...)...), ready.Load)
	c := client(t, s)
	ctx := metadata.AppendToOutgoingContext(t.Context(), render.ClientMetadata, "spiffe://cluster.local/ns/bank/sa/b")
	if _, err := c.Check(ctx, request("web.shop", "10.96.0.2", 80, said("pass"))); status.Code(err) != codes.Unavailable {
		t.Errorf("before it is ready: %v", err)
	}
	if got, err := c.Check(ctx, request("web.shop", "10.96.0.1", 80, nil)); err != nil || got.GetStatus().GetCode() != 0 || len(got.GetOkResponse().GetHeaders()) > 0 {
		t.Errorf("from a table that asks nothing: %v, %v", got, err)
	}
	ready.Store(true)
	for _, c := range []struct {
		what string
		q    *auth.CheckRequest
		want codes.Code
	}{
		{"no port", request("web.shop", "10.96.0.2", 80, map[string]string{"unknown": "pass"}), codes.InvalidArgument},
		{"port 0", request("web.shop", "10.96.0.2", 80, map[string]string{"port": "0"}), codes.InvalidArgument},
		{"a port that is no number", request("web.shop", "10.96.0.2", 80, map[string]string{"port": "http"}), codes.InvalidArgument},
		{"a destination that is no address", request("web.shop", "web", 80, said("pass")), codes.InvalidArgument},
	} {
		if _, err := s.Check(t.Context(), c.q); status.Code(err) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if got := s.Counters(); got != (Counters{}) {
		t.Errorf("nothing was answered: %+v", got)
	}
	for _, q := range []struct {
		host    string
		unknown model.Unknown
		key     string // "": refused
	}{
		{"web.shop", model.UnknownPass, "10.96.0.1:80"},
		{"web.shop", model.UnknownRefuse, "10.96.0.1:80"},
		{"single", model.UnknownRefuse, "host|single:80"},
		{"web", model.UnknownPass, "10.96.0.2:80"}, // the bank's, which the client is of
		{"nowhere.test", model.UnknownPass, "pass"},
		{"nowhere.test", model.UnknownRefuse, ""},
		{"v6.bank", model.UnknownPass, ""},
	} {
		got, err := c.Check(ctx, request(q.host, "192.0.2.1", 80, said(q.unknown)))
		if err != nil {
			t.Errorf("%s: %v", q.host, err)
			continue
		}
		if q.key == "" {
			d := got.GetDeniedResponse()
			if got.GetStatus().GetCode() == 0 || d.GetStatus().GetCode() != 502 || d.GetBody() == "" || len(d.GetBody()) > 80 {
				t.Errorf("%s: %v", q.host, got)
			}
			continue
		}
		hs := got.GetOkResponse().GetHeaders()
		if got.GetStatus().GetCode() != 0 || len(hs) != 1 || hs[0].GetHeader().GetKey() != render.DestinationHeader || hs[0].GetHeader().GetValue() != q.key ||
			hs[0].GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s: %v, want %s", q.host, got, q.key)
		}
	}
	if got, want := s.Counters(), (Counters{Checks: 7, Resolved: 4, Passed: 1, Refused: 2}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

// Answers are given while the index changes.
func TestCheckWhileTheIndexChanges(t *testing.T) {
	rs := many(t, 50)
	x := indexOf(t, rs...)
	s := NewServer(x, func() bool { return true })
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		defer close(stop)
		for i := range 5000 {
			r := rs[4+i%(len(rs)-4)]
			x.Delete(r.Type, r.Name)
			if err := x.Set(r); err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := s.Check(t.Context(), request("service-0.team-0", "192.0.2.1", 80, said("refuse")))
				if err != nil || got.GetOkResponse() == nil {
					t.Errorf("%v, %v", got, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// The cost of an answer among 10,000 services: the decision alone, as a call, and as a
// call over gRPC.
func BenchmarkCheck(b *testing.B) {
	x := indexOf(b, many(b, 10_000)...)
	s := NewServer(x, func() bool { return true })
	ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs(render.ClientMetadata, "spiffe://cluster.local/ns/team-7/sa/a"))
	for _, c := range []struct{ what, host string }{
		{"exact", "service-5000.team-0.svc.cluster.local:80"},
		{"bare", "service-7"},
		{"unknown", "a.b.c.d.example.com"},
		{"worst", func() string {
			s := ""
			for len(s) < 250 {
				s += "a."
			}
			return s + "A"
		}()},
	} {
		r := request(c.host, "10.96.0.1", 80, said("pass"))
		b.Run("resolve/"+c.what, func(b *testing.B) {
			b.ReportAllocs()
			q, err := query(r.GetAttributes())
			if err != nil {
				b.Fatal(err)
			}
			q.Client = "spiffe://cluster.local/ns/team-7/sa/a"
			for b.Loop() {
				x.Resolve(q)
			}
		})
		b.Run("check/"+c.what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Check(ctx, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("grpc/exact", func(b *testing.B) {
		b.ReportAllocs()
		c := client(b, s)
		r := request("service-5000.team-0.svc.cluster.local:80", "10.96.0.1", 80, said("pass"))
		for b.Loop() {
			if _, err := c.Check(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
