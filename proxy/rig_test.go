// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/render"
	"fairlead.io/fairlead/xds/serve"
)

const inNetns = "FAIRLEAD_TEST_NETNS"

// TestMain runs everything again in a network namespace of its own, where tests
// may redirect what they like. It is gone with the process.
func TestMain(m *testing.M) {
	if os.Getenv(helperProxy) != "" {
		if err := runHelper(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() == 0 && os.Getenv(inNetns) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNetns+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// The tests' network, all on loopback: clients, services that are redirected to
// the client's outbound listener, servers, and pods whose requests are redirected
// to the inbound listener unless they were checked.
const (
	alpha, beta, stranger = "10.244.1.11", "10.244.1.12", "10.244.1.13"
	alpha6, stranger6     = "fd44:1::11", "fd44:1::13"
	serverA, serverB      = "10.244.2.11:8080", "10.244.2.12:8080"
	serverA6              = "[fd44:2::11]:8080"
	podC, podC6           = "10.244.3.11:8080", "[fd44:3::11]:8080"

	alphaPort, betaPort, inboundPort = 15101, 15102, 15106
	alphaID                          = "spiffe://cluster.local/ns/shop/sa/alpha"
	betaID                           = "spiffe://cluster.local/ns/bank/sa/beta"
)

const network = `
set -e
ip link set lo up
for a in 10.244.1.11 10.244.1.12 10.244.1.13 10.244.2.11 10.244.2.12 10.244.3.11 10.97.4.7; do ip addr add $a/32 dev lo; done
for a in fd44:1::11 fd44:1::13 fd44:2::11 fd44:3::11; do ip addr add $a/128 dev lo nodad; done
echo "32768 65535" > /proc/sys/net/ipv4/ip_local_port_range
ip route add 10.96.0.0/16 dev lo
ip route add 10.97.0.0/16 dev lo
ip -6 route add fd96::/16 dev lo
ip -6 route add fd97::/16 dev lo
for f in -4 -6; do ip $f rule add fwmark 0x200/0xf00 lookup 100; ip $f route add local default dev lo table 100; done
nft -f - <<'EOF'
table inet t {
	chain out {
		type route hook output priority mangle
		ip daddr { 10.96.0.0/16, 10.97.0.0/16 } meta mark set 0x200
		ip6 daddr { fd96::/16, fd97::/16 } meta mark set 0x200
	}
	chain in {
		type filter hook prerouting priority mangle
		meta l4proto tcp ip saddr 10.244.1.12 ip daddr 10.96.0.0/16 tproxy ip to 127.0.0.1:15102 meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.96.0.0/16 tproxy ip to 127.0.0.1:15101 meta mark set 0x200 accept
		meta l4proto tcp ip6 daddr fd96::/16 tproxy ip6 to [::1]:15101 meta mark set 0x200 accept
		meta l4proto tcp ip saddr 10.244.1.12 ip daddr 10.97.3.0/24 tproxy ip to 127.0.0.1:15123 meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.97.2.0/24 tproxy ip to 127.0.0.1:15112 meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.97.3.0/24 tproxy ip to 127.0.0.1:15113 meta mark set 0x200 accept
		tcp sport < 61000 ip daddr 10.97.4.0/24 tproxy ip to 127.0.0.1:15114 meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.97.5.0/24 tproxy ip to 127.0.0.1:15115 meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.97.6.0/24 tproxy ip to 127.0.0.1:15116 meta mark set 0x200 accept
		meta l4proto tcp ip6 daddr fd97:2::/32 tproxy ip6 to [::1]:15112 meta mark set 0x200 accept
		meta l4proto tcp ip6 daddr fd97:3::/32 tproxy ip6 to [::1]:15113 meta mark set 0x200 accept
		meta l4proto tcp ip6 daddr fd97:4::/32 tproxy ip6 to [::1]:15114 meta mark set 0x200 accept
		meta l4proto tcp ip6 daddr fd97:5::/32 tproxy ip6 to [::1]:15115 meta mark set 0x200 accept
		tcp sport < 61000 ip daddr 10.244.3.0/24 tproxy ip to 127.0.0.1:15106 meta mark set 0x200 accept
		tcp sport < 61000 ip6 daddr fd44:3::/32 tproxy ip6 to [::1]:15106 meta mark set 0x200 accept
	}
}
EOF
`

var setUp = sync.OnceValue(func() error {
	out, err := exec.Command("sh", "-c", network).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// rig is an agent's side of a proxy that runs a real Envoy.
type rig struct {
	t     testing.TB
	dir   string
	agent *serve.Server
	feed  *grpc.Server
	logs  *accesslog.Server
	opts  Options // of proxies to come, beside the rig's own
	stop  func()  // the proxy
}

func newRig(t testing.TB, initial ...xds.Resource) *rig {
	t.Helper()
	return newRigWith(t, Options{}, initial...)
}

func newRigWith(t testing.TB, opts Options, initial ...xds.Resource) *rig {
	t.Helper()
	r := newAgent(t, opts, initial...)
	r.startProxy(need.Envoy(t))
	return r
}

// newAgent is a rig whose proxies are started by the test.
func newAgent(t testing.TB, opts Options, initial ...xds.Resource) *rig {
	t.Helper()
	need.Root(t)
	need.Envoy(t)
	need.Command(t, "nft")
	need.Command(t, "ip")
	if err := setUp(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	return newAgentIn(t, opts, dir, initial...)
}

// newAgentIn is newAgent in a folder, which is removed with the test.
func newAgentIn(t testing.TB, opts Options, dir string, initial ...xds.Resource) *rig {
	t.Helper()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, opts: opts}
	t.Cleanup(func() {
		if t.Failed() {
			for bank, log := range PathsIn(dir).Log {
				b, _ := os.ReadFile(log)
				t.Logf("log of bank %d:\n%s", bank, b)
			}
		}
		os.RemoveAll(dir)
	})
	r.startAgent(initial...)
	r.logs = accesslog.New(1000)
	als := grpc.NewServer()
	r.logs.Register(als)
	l, err := Listen(PathsIn(dir).AccessLog, DefaultUID)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { als.Serve(l) })
	t.Cleanup(func() { als.Stop(); done.Wait() })
	return r
}

func (r *rig) startAgent(initial ...xds.Resource) {
	r.t.Helper()
	r.agent = serve.New(serve.Options{StandIn: StandIn, Client: FeedName}, initial)
	g := grpc.NewServer(serve.GRPCOptions()...)
	r.agent.Register(g)
	l, err := Listen(PathsIn(r.dir).Feed, -1)
	if err != nil {
		r.t.Fatal(err)
	}
	r.feed = g
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	r.t.Cleanup(func() { g.Stop(); done.Wait() })
}

func (r *rig) startProxy(envoy string) {
	r.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{r.t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() {
		opts := r.opts
		opts.Node, opts.RunDir, opts.Concurrency, opts.Log = "n1", r.dir, 2, cmp.Or(opts.Log, log)
		opts.EnvoyPath, opts.DrainTime = cmp.Or(opts.EnvoyPath, envoy), cmp.Or(opts.DrainTime, time.Second)
		ended <- Run(ctx, opts)
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("proxy: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
	r.waitFor("envoy connected", func() bool {
		s, err := ReadStatus(r.t.Context(), r.dir)
		return err == nil && s.Envoy.Connected && s.Envoy.State == "LIVE"
	})
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (r *rig) waitFor(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("waited in vain: %s", what)
}

func (r *rig) status() Status {
	r.t.Helper()
	s, err := ReadStatus(r.t.Context(), r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// resources renders rows.
func resources(t testing.TB, rows ...any) []xds.Resource {
	t.Helper()
	var out []xds.Resource
	for _, row := range rows {
		var r xds.Resource
		var err error
		switch row := row.(type) {
		case *plan.Cluster:
			r, err = render.Cluster(row)
		case *plan.ClusterEndpoints:
			r, err = render.Endpoints(row)
		case *plan.RouteTable:
			r, err = render.RouteTable(row)
		case *plan.Scope:
			r, err = render.Scope(row)
		case *plan.Listener:
			r, err = render.Listener(row, listenerPorts[row.Name])
		case xds.Resource:
			r = row
		default:
			t.Fatalf("row %T", row)
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// listenerPorts has also those of the renderer's test data.
var listenerPorts = map[string]uint16{
	"out/http/alpha": alphaPort, "out/http/beta": betaPort, "in/http": inboundPort,
	"out/any-detect/0a1b": 15137, "out/any-opaque/0a1b": 15138,
	"out/tls/alpha": 15112, "out/opaque/alpha": 15113, "out/any/alpha": 15114, "out/detect/alpha": 15115, "out/detect2/alpha": 15116,
	"out/opaque/beta": 15123,
	"out/http/0a1b":   15131, "out/tls/0a1b": 15132, "out/opaque/0a1b": 15133, "out/any/0a1b": 15134, "out/detect/0a1b": 15135, "out/detect2/0a1b": 15136,
}

// push sets rows and expects all to be accepted.
func (r *rig) push(rows ...any) {
	r.t.Helper()
	if o := r.pushOutcome(rows...); len(o.Rejected) > 0 {
		r.t.Fatalf("rejected: %+v", o.Rejected)
	}
}

func (r *rig) pushOutcome(rows ...any) serve.Outcome {
	r.t.Helper()
	var changes []serve.Change
	for _, res := range resources(r.t, rows...) {
		changes = append(changes, serve.Set(res))
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	o, err := r.agent.Push(ctx, changes)
	if err != nil {
		r.t.Fatal(err)
	}
	return o
}

func listeners() []any {
	return []any{
		&plan.Listener{Name: "out/http/alpha", Mode: plan.HTTP, Identity: alphaID, Selects: []string{"p1", "p2"}},
		&plan.Listener{Name: "out/http/beta", Mode: plan.HTTP, Identity: betaID},
		&plan.Listener{Name: "in/http", Mode: plan.HTTP, Inbound: true},
	}
}

// service is a frontend at 10.96.0.n:80 and fd96::n:80 with these routes.
func service(n int, routes ...plan.Route) []any {
	name := fmt.Sprintf("svc-%d", n)
	return []any{
		&plan.RouteTable{Name: name, Routes: routes},
		&plan.Scope{Key: plan.DestinationKey(netip.MustParseAddrPort(vip(n))), RouteTable: name},
		&plan.Scope{Key: plan.DestinationKey(netip.MustParseAddrPort(vip6(n))), RouteTable: name},
	}
}

func vip(n int) string  { return fmt.Sprintf("10.96.0.%d:80", n) }
func vip6(n int) string { return fmt.Sprintf("[fd96::%x]:80", n) }

// clusterOf is a cluster whose backends each have the given addresses.
func clusterOf(c plan.Cluster, backends ...string) []any {
	e := &plan.ClusterEndpoints{Cluster: c.Name}
	for _, b := range backends {
		var addrs []netip.AddrPort
		for a := range strings.FieldsSeq(b) {
			addrs = append(addrs, netip.MustParseAddrPort(a))
		}
		e.Backends = append(e.Backends, plan.Backend{Addrs: addrs})
	}
	return []any{&c, e}
}

func to(clusters ...string) plan.Route {
	r := plan.Route{ID: "r"}
	for _, c := range clusters {
		r.Clusters = append(r.Clusters, plan.WeightedCluster{Name: c, Weight: 1})
	}
	return r
}

// echo is what a server saw.
type echo struct {
	Server  string
	Peer    string
	Method  string
	Path    string
	Host    string
	Proto   string
	Headers http.Header
}

// server runs an echo server for HTTP/1.1 and h2c. handle may be nil.
func server(t *testing.T, addr string, handle func(http.ResponseWriter, *http.Request) bool) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: &p, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if handle != nil && handle(w, q) {
			return
		}
		w.Header().Set("content-type", "application/json")
		json.NewEncoder(w).Encode(echo{addr, q.RemoteAddr, q.Method, q.URL.RequestURI(), q.Host, q.Proto, q.Header})
	})}
	var done sync.WaitGroup
	done.Go(func() { srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); done.Wait() })
}

// answer is a response, and what the server saw if it was an echo.
type reply struct {
	echo
	Status int
	Header http.Header
	Body   string
}

// get sends a request from an address and returns the answer. Lines of extra are
// "name: value" headers, or "METHOD path" as the first.
func (r *rig) get(from, dst, path string, headers ...string) reply {
	r.t.Helper()
	return r.do(from, dst, "GET", path, headers...)
}

func (r *rig) do(from, dst, method, path string, headers ...string) reply {
	r.t.Helper()
	raw := fmt.Sprintf("%s %s HTTP/1.1\r\n", method, path)
	host := false
	for _, h := range headers {
		raw += h + "\r\n"
		host = host || strings.HasPrefix(strings.ToLower(h), "host:")
	}
	if !host {
		raw += "host: web\r\n"
	}
	raw += "connection: close\r\ncontent-length: 0\r\n\r\n"
	out, err := rawRequest(r.t.Context(), from, dst, raw)
	if err != nil {
		r.t.Fatalf("%s %s%s from %s: %v", method, dst, path, from, err)
	}
	return out
}

// dialer connects from an address, with source ports that pods may use.
func dialer(from string) *net.Dialer {
	return &net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, 51, (render.CheckedLow-1)<<16|32768)
			})
			return err
		},
	}
}

// rawRequest sends bytes as they are: Go's client would not send the malformed
// ones that the tests are about.
func rawRequest(ctx context.Context, from, dst, raw string) (reply, error) {
	var out reply
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	d := dialer(from)
	c, err := d.DialContext(ctx, "tcp", dst)
	if err != nil {
		return out, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if _, err := io.WriteString(c, raw); err != nil {
		return out, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return out, err
	}
	out.Status, out.Header, out.Body = resp.StatusCode, resp.Header, string(b)
	json.Unmarshal(b, &out.echo) // of an answer that is no echo: empty
	return out, nil
}

func exact(s string) model.StringMatch { return model.StringMatch{Kind: model.Exact, Value: s} }

func pathMatch(kind model.MatchKind, s string) model.RouteMatch {
	return model.RouteMatch{Path: &model.StringMatch{Kind: kind, Value: s}}
}

func rows(parts ...[]any) []any {
	var all []any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// ask sends a request with Go's client, over HTTP/1.1 or HTTP/2 with prior knowledge,
// to dst whatever the host.
func (r *rig) ask(from, dst, host string, h2 bool) reply {
	r.t.Helper()
	tr := transport(from, dst, h2)
	defer tr.CloseIdleConnections()
	q, err := http.NewRequestWithContext(r.t.Context(), "GET", "http://"+host+"/", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := tr.RoundTrip(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	out := reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
	json.Unmarshal(b, &out.echo) // of an answer that is no echo: empty
	return out
}

// transport connects from an address to another, whatever the URL.
func transport(from, dst string, h2 bool) *http.Transport {
	var p http.Protocols
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer(from).DialContext(ctx, "tcp", dst)
	}}
}
