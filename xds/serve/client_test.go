// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a delta ADS client that does what a test says.
type client struct {
	t      testing.TB
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    chan *discovery.DeltaDiscoveryResponse
	synced int
	close  func()
}

// start serves s in memory and returns what connects to it.
func start(t testing.TB, s *serve.Server) func() *client {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(serve.GRPCOptions()...)
	s.Register(g)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	t.Cleanup(func() { g.Stop(); done.Wait() })
	return func() *client {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:mem", append(serve.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, stream: stream, got: make(chan *discovery.DeltaDiscoveryResponse, 1000)}
		var reader sync.WaitGroup
		reader.Go(func() {
			for {
				m, err := stream.Recv()
				if err != nil {
					return
				}
				c.got <- m
			}
		})
		c.close = sync.OnceFunc(func() { cancel(); reader.Wait(); conn.Close() })
		t.Cleanup(c.close)
		return c
	}
}

func (c *client) send(r *discovery.DeltaDiscoveryRequest) {
	c.t.Helper()
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

// subscribe asks for names of a type, or for all.
func (c *client) subscribe(typ string, names ...string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "n1"}, TypeUrl: typ, ResourceNamesSubscribe: names})
}

func (c *client) ack(m *discovery.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce})
}

func (c *client) nack(m *discovery.DeltaDiscoveryResponse, detail string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: &status.Status{Message: detail}})
}

// next is the next response, in one line: "Cluster a@1 b@2 -c".
func (c *client) next() (*discovery.DeltaDiscoveryResponse, string) {
	c.t.Helper()
	select {
	case m := <-c.got:
		return m, line(m)
	case <-time.After(5 * time.Second):
		c.t.Fatal("no response")
		return nil, ""
	}
}

func line(m *discovery.DeltaDiscoveryResponse) string {
	words := []string{xds.Short(m.TypeUrl)}
	for _, r := range m.Resources {
		words = append(words, r.Name+"@"+r.Version)
	}
	for _, n := range m.RemovedResources {
		words = append(words, "-"+n)
	}
	return strings.Join(words, " ")
}

// want expects the next response to be this, and acknowledges it.
func (c *client) want(want string) {
	c.t.Helper()
	m, got := c.next()
	if got != want {
		c.t.Fatalf("got  %q\nwant %q", got, want)
	}
	c.ack(m)
}

// sync returns when the server has handled what was sent.
func (c *client) sync() {
	c.t.Helper()
	c.synced++
	typ := fmt.Sprintf("type.googleapis.com/none.Sync%d", c.synced)
	c.subscribe(typ, "x")
	c.want(fmt.Sprintf("Sync%d -x", c.synced))
}

func (c *client) quiet() {
	c.t.Helper()
	select {
	case m := <-c.got:
		c.t.Fatalf("unexpected response %q", line(m))
	case <-time.After(50 * time.Millisecond):
	}
}

// resource has a version that people can read.
func resource(typ, name string, version any) xds.Resource {
	return xds.Resource{Type: typ, Name: name, Version: fmt.Sprint(version), Body: []byte(fmt.Sprint(name, version))}
}

// scope is a real one: the server looks into it.
func scope(t testing.TB, name, routes string) xds.Resource {
	t.Helper()
	r, err := xds.New(&route.ScopedRouteConfiguration{Name: name, RouteConfigurationName: routes})
	if err != nil {
		t.Fatal(err)
	}
	r.Version = routes
	return r
}

func set(rs ...xds.Resource) []serve.Change {
	var out []serve.Change
	for _, r := range rs {
		out = append(out, serve.Set(r))
	}
	return out
}

// pushed is a Push under way.
type pushed struct {
	t    *testing.T
	done chan struct{}
	out  serve.Outcome
	err  error
}

func push(t *testing.T, s *serve.Server, changes ...serve.Change) *pushed {
	p := &pushed{t: t, done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	go func() {
		defer close(p.done)
		defer cancel()
		p.out, p.err = s.Push(ctx, changes)
	}()
	return p
}

func (p *pushed) waiting() {
	p.t.Helper()
	select {
	case <-p.done:
		p.t.Fatalf("push is over: %+v %v", p.out, p.err)
	case <-time.After(30 * time.Millisecond):
	}
}

func (p *pushed) rejected(names ...string) {
	p.t.Helper()
	<-p.done
	if p.err != nil {
		p.t.Fatal(p.err)
	}
	var got []string
	for _, r := range p.out.Rejected {
		got = append(got, r.Name)
	}
	if !slices.Equal(got, names) {
		p.t.Errorf("rejected %q, want %q", got, names)
	}
}
