// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	accesslog "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// logs takes access logs.
type logs struct {
	accesslog.UnimplementedAccessLogServiceServer
	http chan *data.HTTPAccessLogEntry
	tcp  chan *data.TCPAccessLogEntry
}

func (l *logs) StreamAccessLogs(s accesslog.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			l.http <- e
		}
		for _, e := range m.GetTcpLogs().GetLogEntry() {
			l.tcp <- e
		}
	}
}

// serveLogs takes the logs of an Envoy.
func serveLogs(p *proxy) *logs {
	p.t.Helper()
	sock := filepath.Join(p.dir, "als.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(sock, 0o666); err != nil {
		p.t.Fatal(err)
	}
	out := &logs{http: make(chan *data.HTTPAccessLogEntry, 1000), tcp: make(chan *data.TCPAccessLogEntry, 1000)}
	g := grpc.NewServer()
	accesslog.RegisterAccessLogServiceServer(g, out)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	p.t.Cleanup(func() { g.Stop(); done.Wait() })
	return out
}

// accessLog is a field of a connection manager or of a TCP proxy.
func accessLog(message string) string {
	return `
          access_log:
          - name: grpc
            typed_config:
              "@type": E/access_loggers.grpc.v3.` + message + `
              common_config:
                log_name: fl
                transport_api_version: V3
                grpc_service: {envoy_grpc: {cluster_name: als}}
                buffer_flush_interval: 0.2s
                filter_state_objects_to_log: [fl.identity]
                custom_tags: [{tag: fl.route, metadata: {kind: {cluster: {}}, metadata_key: {key: fl, path: [{key: route}]}}}]`
}

const logCluster = `
  clusters:
  - name: als
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: als
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "%d/als.sock"}}}}]}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": E/upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`

func logFront() string {
	return listeners + requests(15100, "spiffe://alpha", accessLog("HttpGrpcAccessLogConfig")) + logCluster
}

// address is one as Go writes it.
func address(a *core.Address) string {
	s := a.GetSocketAddress()
	return net.JoinHostPort(s.GetAddress(), fmt.Sprint(s.GetPortValue()))
}

// The log of requests says who asked whom for what, by the address that was dialled
// and the identity that the listener knows, which route, cluster and endpoint it was,
// and who made the answer and why.
func TestRequestLog(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, logFront())
	l := serveLogs(p)
	p.push(edsCluster(t, "a", folded("fold.allow", ", "+allow(isAlpha, "{url_path: {path: {prefix: /new}}}")), serverA+":8080")...)
	p.push(edsCluster(t, "dead", "", serverC+":8080")...)
	p.push(routesOf(t, "r", `
  - {name: rewritten, match: {path: /old}, route: {cluster: a, prefix_rewrite: /new}}
  - {name: folded, match: {prefix: /folded}, route: {cluster: a}}
  - {name: dead, match: {prefix: /dead}, route: {cluster: dead}}
  - name: guarded
    match: {prefix: /guarded}
    direct_response: {status: 200}
    typed_per_filter_config: `+perRoute("policy", "rules: {action: DENY, policies: {rule7: {permissions: [{any: true}], principals: [{any: true}]}}}")),
		scopeTo(t, vip(0, 1, 80), "r", false))
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	for _, w := range []struct {
		path    string
		status  uint32
		cluster string
		up      string
		logged  string // path
		route   string
		details string // its beginning
		flag    func(*data.ResponseFlags) bool
	}{
		{"/old?q=1", 200, "a", serverA + ":8080", "/new?q=1", "rewritten", "via_upstream", nil},
		{"/folded", 403, "a", serverA + ":8080", "/folded", "folded", "rbac_access_denied_matched_policy[none]", nil},
		{"/guarded", 403, "", ":0", "/guarded", "guarded", "rbac_access_denied_matched_policy[rule7]", nil},
		{"/dead", 503, "dead", serverC + ":8080", "/dead", "dead", "upstream_reset_before_response_started{remote_connection_failure", (*data.ResponseFlags).GetUpstreamConnectionFailure},
		{"/nowhere", 404, "", ":0", "/nowhere", "", "route_not_found", (*data.ResponseFlags).GetNoRouteFound},
	} {
		a, err := fetch(c, w.path, "x-forwarded-for: 10.9.9.9")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, w.path, a.Status, int(w.status))
		e := receive(t, "log of "+w.path, l.http)
		common, req := e.GetCommonProperties(), e.GetRequest()
		equal(t, w.path+": addresses", []string{
			strings.Split(address(common.GetDownstreamDirectRemoteAddress()), ":")[0], address(common.GetDownstreamLocalAddress()), address(common.GetUpstreamRemoteAddress()),
		}, []string{alpha, vip(0, 1, 80), w.up})
		equal(t, w.path+": request", []string{req.GetRequestMethod().String(), req.GetAuthority(), req.GetPath(), e.GetProtocolVersion().String()},
			[]string{"GET", "h", w.logged, "HTTP11"})
		equal(t, w.path+": status", e.GetResponse().GetResponseCode().GetValue(), w.status)
		equal(t, w.path+": route and cluster", []string{common.GetRouteName(), common.GetUpstreamCluster()}, []string{w.route, w.cluster})
		if d := e.GetResponse().GetResponseCodeDetails(); !strings.HasPrefix(d, w.details) {
			t.Errorf("%s: details %q, want %q", w.path, d, w.details)
		}
		if w.flag != nil && !w.flag(common.GetResponseFlags()) {
			t.Errorf("%s: flags %v", w.path, common.GetResponseFlags())
		}
		var id wrapperspb.StringValue
		if err := common.GetFilterStateObjects()["fl.identity"].UnmarshalTo(&id); err != nil {
			t.Errorf("%s: identity: %v", w.path, err)
		}
		equal(t, w.path+": identity", id.GetValue(), "spiffe://alpha")
		if common.GetStartTime() == nil || common.GetDuration() == nil && common.GetTimeToLastDownstreamTxByte() == nil {
			t.Errorf("%s: no times", w.path)
		}
		if w.status == 200 && (common.GetUpstreamRequestAttemptCount() != 1 || e.GetResponse().GetResponseBodyBytes() == 0) {
			t.Errorf("%s: attempts %d, %d bytes", w.path, common.GetUpstreamRequestAttemptCount(), e.GetResponse().GetResponseBodyBytes())
		}
	}
}

// The log of connections has, by a custom tag, what the metadata of the cluster says:
// the name that it is asked for is made of more than what decided.
func TestConnectionLog(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	text, _, _ := strings.Cut(opaque(15100, "a"), "\n          access_log:")
	p := start(t, listeners+text+accessLog("TcpGrpcAccessLogConfig")+logCluster)
	l := serveLogs(p)
	name := "tcp|a|" + vip(0, 1, 80)
	p.push(edsCluster(t, name, "metadata: {filter_metadata: {fl: {route: r7}}}", serverA+":9000")...)
	c := dial(t, alpha, vip(0, 1, 80))
	io.WriteString(c, "hello")
	c.CloseWrite()
	io.ReadAll(c)
	e := receive(t, "log", l.tcp)
	common := e.GetCommonProperties()
	equal(t, "addresses", []string{strings.Split(address(common.GetDownstreamDirectRemoteAddress()), ":")[0], address(common.GetDownstreamLocalAddress()), address(common.GetUpstreamRemoteAddress())},
		[]string{alpha, vip(0, 1, 80), serverA + ":9000"})
	equal(t, "cluster", common.GetUpstreamCluster(), name)
	equal(t, "tags", common.GetCustomTags(), map[string]string{"fl.route": "r7"})
	equal(t, "bytes", []uint64{e.GetConnectionProperties().GetReceivedBytes(), e.GetConnectionProperties().GetSentBytes()}, []uint64{5, uint64(len("a " + alpha + "\nhello"))})
}

// Nobody waits for a log server that is not there, and what is logged when it is back
// comes.
func TestLogServerAway(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p := start(t, logFront())
	p.push(edsCluster(t, "a", "", serverA+":8080")...)
	p.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	for range 200 {
		if got := statusOf(t, vip(0, 1, 80)); got != 200 {
			t.Fatalf("status %d", got)
		}
	}
	l := serveLogs(p)
	p.waitFor("a log entry", func() bool {
		equal(t, "status", statusOf(t, vip(0, 1, 80)), 200)
		return len(l.http) > 0
	})
}
