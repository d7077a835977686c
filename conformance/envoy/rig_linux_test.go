// SPDX-License-Identifier: Apache-2.0

// Package envoy holds what Fairlead relies on in a stock Envoy, one test for each
// fact, so that a version that behaves otherwise is found before it is shipped.
// The tests know nothing of what Fairlead renders: configuration is written as
// Envoy's documentation writes it.
package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoregistry"
	"sigs.k8s.io/yaml"

	// What resources contain as google.protobuf.Any.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

const inNetns = "FAIRLEAD_TEST_NETNS"

// TestMain runs everything again in network and process namespaces of its own,
// where tests may redirect what they like. All of it, Envoys too, is gone with the
// first process.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(inNetns) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNetns+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL,
		}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// The tests' network, all on loopback.
//
// Clients are at alpha, beta and gamma, servers at the server addresses. What goes
// to 10.96.n.0/24 or fd96:n::/32 (n from 0 to 9) is redirected to port 15100+n of
// the loopback addresses; from beta, to port 15110+n. What goes to pod is redirected
// to inboundPort, but for what Envoy sends itself, from source ports above 61000.
const (
	alpha, beta, gamma    = "10.244.1.11", "10.244.1.12", "10.244.1.13"
	alpha6, beta6, gamma6 = "fd44:1::11", "fd44:1::12", "fd44:1::13"

	serverA, serverB, serverC = "10.244.2.11", "10.244.2.12", "10.244.2.13"
	serverA6, serverB6        = "fd44:2::11", "fd44:2::12"

	pod, pod6   = "10.244.3.11", "fd44:3::11"
	inboundPort = 15120
)

func network() string {
	var b strings.Builder
	b.WriteString(`
set -e
ip link set lo up
for a in 10.244.1.11 10.244.1.12 10.244.1.13 10.244.2.11 10.244.2.12 10.244.2.13 10.244.3.11; do ip addr add $a/32 dev lo; done
for a in fd44:1::11 fd44:1::12 fd44:1::13 fd44:2::11 fd44:2::12 fd44:3::11; do ip addr add $a/128 dev lo nodad; done
echo "32768 65535" > /proc/sys/net/ipv4/ip_local_port_range
ip route add 10.96.0.0/16 dev lo
for n in 0 1 2 3 4 5 6 7 8 9; do ip -6 route add fd96:$n::/32 dev lo; done
for f in -4 -6; do ip $f rule add fwmark 0x200/0xf00 lookup 100; ip $f route add local default dev lo table 100; done
nft -f - <<'END'
table inet t {
	chain out {
		type route hook output priority mangle
		ip daddr 10.96.0.0/16 meta mark set 0x200
		ip6 daddr fd96::/16 meta mark set 0x200
	}
	chain flip { # for tests to redirect otherwise
	}
	chain in {
		type filter hook prerouting priority mangle
		jump flip
`)
	for n := range 10 {
		fmt.Fprintf(&b, "meta l4proto tcp ip saddr %s ip daddr 10.96.%d.0/24 tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept\n", beta, n, 15110+n)
		fmt.Fprintf(&b, "meta l4proto tcp ip6 saddr %s ip6 daddr fd96:%d::/32 tproxy ip6 to [::1]:%d meta mark set 0x200 accept\n", beta6, n, 15110+n)
		fmt.Fprintf(&b, "meta l4proto tcp ip daddr 10.96.%d.0/24 tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept\n", n, 15100+n)
		fmt.Fprintf(&b, "meta l4proto tcp ip6 daddr fd96:%d::/32 tproxy ip6 to [::1]:%d meta mark set 0x200 accept\n", n, 15100+n)
	}
	fmt.Fprintf(&b, "tcp sport < 61000 ip daddr %s tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept\n", pod, inboundPort)
	fmt.Fprintf(&b, "tcp sport < 61000 ip6 daddr %s tproxy ip6 to [::1]:%d meta mark set 0x200 accept\n", pod6, inboundPort)
	b.WriteString("}\n}\nEND\n")
	return b.String()
}

// vip is the address of the i-th service whose connections go to port 15100+n.
func vip(n, i, port int) string { return fmt.Sprintf("10.96.%d.%d:%d", n, i, port) }
func vip6(n, i, port int) string {
	a := netip.MustParseAddr(fmt.Sprintf("fd96:%d::%x", n, i))
	return netip.AddrPortFrom(a, uint16(port)).String() // as Envoy writes it
}

var setUp = sync.OnceValue(func() error {
	cmd := exec.Command("sh")
	cmd.Stdin = strings.NewReader(network())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("set up network: %w: %s", err, out)
	}
	return nil
})

// needNetwork needs the tests' network.
func needNetwork(t testing.TB) {
	t.Helper()
	need.Root(t)
	need.Command(t, "ip")
	need.Command(t, "nft")
	if err := setUp(); err != nil {
		t.Fatal(err)
	}
}

// unprivileged is the user that Envoy runs as; it owns nothing but its folder.
const unprivileged = 15099

// proxy is a running Envoy and the server that feeds it.
type proxy struct {
	t     testing.TB
	dir   string
	feed  *serve.Server // nil if the test has a server of its own
	admin *http.Client
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	names map[string][]string // by type: what Envoy subscribed to
}

// start runs an Envoy, as an unprivileged user with the one capability that
// transparent sockets need, until the test ends, and returns when it is live.
//
// bootstrap is YAML of envoy.config.bootstrap.v3.Bootstrap; %d in it stands for the
// folder that Envoy may write to, and "E/" for the types of extensions. Node, admin, and the cluster "xds", a delta ADS
// stream that is fed by serve with what is in initial, are added. Listeners and
// clusters come from there, too.
func start(t testing.TB, bootstrap string, initial ...xds.Resource) *proxy {
	t.Helper()
	return startWith(t, bootstrap, serve.New(serve.Options{}, initial), "--concurrency", "2")
}

// startWith is start with a server and flags of the test's own.
func startWith(t testing.TB, bootstrap string, feed *serve.Server, flags ...string) *proxy {
	t.Helper()
	p := launch(t, setup{bootstrap: bootstrap, register: feed.Register, flags: flags})
	p.feed = feed
	p.waitLive()
	return p
}

// setup is how an Envoy is run.
type setup struct {
	bootstrap string             // as start has it
	register  func(*grpc.Server) // what feeds it
	flags     []string
	// powerless: without the capability that transparent sockets need.
	powerless bool
	files     int // how many it may open; 0: as this process
}

// launch is start without its end: Envoy need not be live, or alive, yet.
func launch(t testing.TB, how setup) *proxy {
	t.Helper()
	needNetwork(t)
	binary := need.Envoy(t)
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, unprivileged, unprivileged)); err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, dir: dir, ended: make(chan struct{}), names: map[string][]string{}}
	p.serveFeed(how.register)
	config := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(config, p.bootstrap(how.bootstrap), 0o644); err != nil {
		t.Fatal(err)
	}
	p.run(binary, how, append([]string{"--config-path", config, "--disable-hot-restart", "--log-level", "warning",
		"--file-flush-interval-msec", "20"}, how.flags...))
	sock := filepath.Join(dir, "admin.sock")
	p.admin = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", sock)
		},
	}}
	return p
}

func (p *proxy) waitLive() {
	p.t.Helper()
	p.waitFor("envoy is live", func() bool {
		if p.hasEnded() {
			p.t.Fatalf("envoy ended: %v", p.cmd.ProcessState)
		}
		return p.live()
	})
}

func (p *proxy) live() bool {
	resp, err := p.admin.Get("http://admin/ready")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *proxy) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *proxy) serveFeed(register func(*grpc.Server)) {
	p.t.Helper()
	sock := filepath.Join(p.dir, "xds.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(sock, 0o666); err != nil {
		p.t.Fatal(err)
	}
	g := grpc.NewServer(append(serve.GRPCOptions(), grpc.StreamInterceptor(p.note))...)
	register(g)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	p.t.Cleanup(func() { g.Stop(); done.Wait() })
}

// note writes down what Envoy subscribes to.
func (p *proxy) note(srv any, st grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(srv, notedStream{st, p})
}

type notedStream struct {
	grpc.ServerStream
	p *proxy
}

func (s notedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if q, ok := m.(*discovery.DeltaDiscoveryRequest); ok && err == nil {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		s.p.names[q.GetTypeUrl()] = append(s.p.names[q.GetTypeUrl()], q.GetResourceNamesSubscribe()...)
	}
	return err
}

// asked returns the names of a type that Envoy subscribed to since the last call,
// in its order.
func (p *proxy) asked(typeURL string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := p.names[typeURL]
	delete(p.names, typeURL)
	return names
}

// common is merged into every bootstrap. What makes Envoy small at thousands of
// services is in it, so that all else is tested with it.
const common = `
node: {id: n1, cluster: conformance, metadata: {bank: 1}}
stats_config: {stats_matcher: {exclusion_list: {patterns: [{prefix: "cluster."}, {contains: ".rds."}, {contains: ".scoped_rds."}, {prefix: "vhost."}]}}}
deferred_stat_options: {enable_deferred_creation_stats: true}
cluster_manager: {enable_deferred_cluster_creation: true}
admin: {address: {pipe: {path: "%d/admin.sock"}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: xds, retry_policy: {retry_back_off: {base_interval: 0.05s, max_interval: 1s}}}}]
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment:
      cluster_name: xds
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "%d/xds.sock"}}}}]}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": E/upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`

func (p *proxy) bootstrap(own string) []byte {
	p.t.Helper()
	merged := map[string]any{}
	for _, text := range []string{common, own} {
		var m map[string]any
		if err := yaml.Unmarshal([]byte(spellOut(strings.ReplaceAll(text, "%d", p.dir))), &m); err != nil {
			p.t.Fatalf("%v in bootstrap:\n%s", err, text)
		}
		merge(merged, m)
	}
	b, err := yaml.Marshal(merged)
	if err != nil {
		p.t.Fatal(err)
	}
	if b, err = yaml.YAMLToJSON(b); err != nil {
		p.t.Fatal(err)
	}
	return b
}

func spellOut(text string) string {
	return strings.ReplaceAll(text, `"@type": E/`, `"@type": type.googleapis.com/envoy.extensions.`)
}

// merge adds src to dst as protobuf merges messages: lists are joined.
func merge(dst, src map[string]any) {
	for k, v := range src {
		switch v := v.(type) {
		case map[string]any:
			if d, ok := dst[k].(map[string]any); ok {
				merge(d, v)
				continue
			}
		case []any:
			if d, ok := dst[k].([]any); ok {
				dst[k] = append(d, v...)
				continue
			}
		}
		dst[k] = v
	}
}

func (p *proxy) run(binary string, how setup, args []string) {
	p.t.Helper()
	log, err := os.Create(filepath.Join(p.dir, "envoy.log"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	// The binary may lie where the user may not go, such as root's cache.
	f, err := os.Open(binary)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.Command("/proc/self/fd/3", args...)
	if how.files > 0 { // it lifts its own limit as far as it may
		p.cmd = exec.Command("/bin/sh", append([]string{"-c", fmt.Sprintf("ulimit -n %d; exec /proc/self/fd/3 \"$@\"", how.files), "envoy"}, args...)...)
	}
	p.cmd.ExtraFiles = []*os.File{f}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: unprivileged, Gid: unprivileged},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN},
	}
	if how.powerless {
		p.cmd.SysProcAttr.AmbientCaps = nil
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait() // its state is looked at where it matters
	}()
	p.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if p.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			p.t.Logf("envoy.log:\n%s", b)
		}
	})
}

func (p *proxy) waitFor(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	p.t.Fatalf("waited in vain: %s", what)
}

// get is the answer of Envoy's admin interface.
func (p *proxy) get(path string) string {
	p.t.Helper()
	resp, err := p.admin.Get("http://admin" + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("admin %s: %v, %s: %s", path, err, resp.Status, b)
	}
	return string(b)
}

// logged is the first line of an access log in Envoy's folder, once it is written.
func (p *proxy) logged(file string) string {
	p.t.Helper()
	var line string
	p.waitFor("access log "+file, func() bool {
		b, err := os.ReadFile(filepath.Join(p.dir, file))
		var whole bool
		line, _, whole = strings.Cut(string(b), "\n")
		return err == nil && whole
	})
	return line
}

// push sets resources and waits until Envoy has accepted all of them.
func (p *proxy) push(rs ...xds.Resource) {
	p.t.Helper()
	if o := p.pushOutcome(rs...); len(o.Rejected) > 0 {
		p.t.Fatalf("rejected: %+v", o.Rejected)
	}
}

func (p *proxy) pushOutcome(rs ...xds.Resource) serve.Outcome {
	p.t.Helper()
	var changes []serve.Change
	for _, r := range rs {
		changes = append(changes, serve.Set(r))
	}
	return p.change(changes...)
}

// listener sets a listener and waits until Envoy has accepted it. (The server's own
// wait is for listeners with scopes.)
func (p *proxy) listener(r xds.Resource) {
	p.t.Helper()
	const accepted = "/stats?filter=^listener_manager.lds.update_success$"
	before := p.get(accepted)
	p.feed.Apply([]serve.Change{serve.Set(r)}, nil)
	p.waitFor("listener "+r.Name, func() bool { return p.get(accepted) != before })
}

// remove deletes resources.
func (p *proxy) remove(rs ...xds.Resource) {
	p.t.Helper()
	var changes []serve.Change
	for _, r := range rs {
		changes = append(changes, serve.Change{Type: r.Type, Name: r.Name})
	}
	p.change(changes...)
}

func (p *proxy) change(changes ...serve.Change) serve.Outcome {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	o, err := p.feed.Push(ctx, changes)
	if err != nil {
		p.t.Fatal(err)
	}
	return o
}

// resource is the resource of a type (a constant of xds) that YAML describes.
// Messages in it must be of packages that the tests import.
func resource(t testing.TB, typeURL, text string) xds.Resource {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	if err != nil {
		t.Fatal(err)
	}
	b, err := yaml.YAMLToJSON([]byte(spellOut(text)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	m := mt.New().Interface()
	if err := protojson.Unmarshal(b, m); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	r, err := xds.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// edsCluster is a cluster and its endpoints; more is YAML of further fields of the
// cluster, one line each. Endpoints are "IP:port", with their weight after a blank
// if it is not 1. Envoy's own source ports are pinned above the pods'.
func edsCluster(t testing.TB, name, more string, endpoints ...string) []xds.Resource {
	t.Helper()
	c := fmt.Sprintf(`
name: %q
type: EDS
connect_timeout: 1s
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 4294962760, state: STATE_PREBIND}]}
%s`, name, more)
	e := fmt.Sprintf("cluster_name: %q\nendpoints:\n- locality: {}\n  lb_endpoints:\n", name)
	for _, s := range endpoints {
		addr, weight, ok := strings.Cut(s, " ")
		if !ok {
			weight = "1"
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		e += fmt.Sprintf("  - {load_balancing_weight: %s, endpoint: {address: {socket_address: {address: %q, port_value: %s}}}}\n", weight, host, port)
	}
	return []xds.Resource{resource(t, xds.ClusterType, c), resource(t, xds.EndpointType, e)}
}

// loopback is the address of a listener that nobody but the kernel's redirect
// reaches, and the filter that restores the address that the client had dialled.
// What follows is in listener_filters.
func loopback(port int) string {
	return fmt.Sprintf(`
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    additional_addresses: [{address: {socket_address: {address: "::1", port_value: %d}}}]
    transparent: true
    listener_filters:
    - {name: envoy.filters.listener.original_dst, typed_config: {"@type": E/filters.listener.original_dst.v3.OriginalDst}}`, port, port)
}

// keepSource makes upstream connections come from the client's address.
const keepSource = `
    - {name: envoy.filters.listener.original_src, typed_config: {"@type": E/filters.listener.original_src.v3.OriginalSrc}}`

// dial connects from an address, with source ports that pods may use, and closes
// the connection when the test ends.
func dial(t testing.TB, from, to string) *net.TCPConn {
	t.Helper()
	c, err := dialErr(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func dialErr(ctx context.Context, from, to string) (*net.TCPConn, error) {
	d := net.Dialer{
		Timeout:   5 * time.Second,
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, 60999<<16|32768)
			})
			return err
		},
	}
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// listen runs handle for each connection until the test ends, and then waits for
// those that run. Connections are closed when handle returns.
func listen(t testing.TB, addr string, handle func(c *net.TCPConn)) {
	t.Helper()
	needNetwork(t)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[net.Conn]struct{}{}
	stopped := false
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = struct{}{}
			if stopped {
				c.Close()
			}
			mu.Unlock()
			all.Go(func() {
				handle(c.(*net.TCPConn))
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		stopped = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
}

// greet is a server that speaks first: it says who it is and who the client is, one
// line, and then echoes.
func greet(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if _, err := fmt.Fprintf(c, "%s %s\n", name, host); err != nil {
			return
		}
		io.Copy(c, c)
		c.CloseWrite()
	}
}

// httpEcho is a server that answers with who it is, who the client is and the request
// as it came.
func httpEcho(t testing.TB, name, addr string) {
	t.Helper()
	httpServer(t, addr, func(w http.ResponseWriter, q *http.Request) {
		host, _, _ := net.SplitHostPort(q.RemoteAddr)
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s %s\n%s %s %s\nhost: %s\n", name, host, q.Method, q.URL.RequestURI(), q.Proto, q.Host)
		q.Header.Write(&b)
		w.Write(b.Bytes())
	})
}

// httpServer is an HTTP/1.1 and h2c server until the test ends.
func httpServer(t testing.TB, addr string, handle http.HandlerFunc) {
	t.Helper()
	needNetwork(t)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var ps http.Protocols
	ps.SetHTTP1(true)
	ps.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Protocols: &ps,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler:   handle,
	}
	var done sync.WaitGroup
	done.Go(func() { srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); done.Wait() })
}

// receive is what comes next.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// equal compares.
func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: -want +got:\n%s", what, d)
	}
}

func removal(r xds.Resource) serve.Change { return serve.Change{Type: r.Type, Name: r.Name} }
