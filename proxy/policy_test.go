// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/render"
)

func identity(id string) []model.Peer {
	return []model.Peer{{Identities: []model.StringMatch{exact(id)}}}
}

func paths(kind model.MatchKind, s ...string) []model.Operation {
	var o model.Operation
	for _, p := range s {
		o.Paths = append(o.Paths, model.StringMatch{Kind: kind, Value: p})
	}
	return []model.Operation{o}
}

func allow(rules ...model.AuthRule) *plan.Policy {
	return &plan.Policy{Allow: [][]model.AuthRule{rules}}
}

// record waits for the access log of a request with this path.
func (r *rig) record(path string) accesslog.Record {
	r.t.Helper()
	for end := time.After(10 * time.Second); ; {
		select {
		case rec := <-r.logs.Records():
			if rec.Path == path {
				return rec
			}
		case <-end:
			r.t.Fatalf("no access log of %s", path)
		}
	}
}

func TestFoldedPolicy(t *testing.T) {
	r := newRig(t)
	hits := make(chan *http.Request, 100)
	server(t, serverA, func(_ http.ResponseWriter, q *http.Request) bool { hits <- q; return false })
	server(t, serverB, nil)
	deny := model.AuthRule{To: paths(model.Exact, "/ok/secret")}
	guarded := allow(model.AuthRule{From: identity(alphaID), To: paths(model.Prefix, "/ok")})
	guarded.Deny = []model.AuthRule{deny}
	closed := &plan.Policy{Allow: [][]model.AuthRule{{{}}, {}}}

	rewritten, mirrored, retried := to("guarded"), to("open"), to("guarded")
	rewritten.Match = pathMatch(model.Prefix, "/x")
	rewritten.Rewrite = &model.Rewrite{Path: "/ok"}
	mirrored.Mirrors = []plan.Mirror{{Cluster: "mirror/guarded", PerMillion: 1_000_000}}
	retried.Retry = &model.Retry{Attempts: 2, On: []string{"5xx", "retriable-4xx"}, StatusCodes: []uint32{403}}
	r.push(rows(
		clusterOf(plan.Cluster{Name: "guarded", Policy: guarded, Checked: true}, serverA),
		clusterOf(plan.Cluster{Name: "mirror/guarded", Policy: guarded}, serverA),
		clusterOf(plan.Cluster{Name: "closed", Policy: closed, Checked: true}, serverA),
		clusterOf(plan.Cluster{Name: "open"}, serverB),
		service(1, rewritten, to("guarded")), service(2, to("closed")), service(3, mirrored), service(4, retried), listeners())...)

	for _, c := range []struct {
		from string
		n    int
		path string
		want int
	}{
		{alpha, 1, "/ok/1", 200},
		{alpha, 1, "/no", 403},
		{alpha, 1, "/no?/ok", 403},
		{alpha, 1, "/x/1", 200}, // as rewritten
		{alpha, 1, "/ok/../no", 403},
		{alpha, 1, "//ok//1", 200},
		{alpha, 1, "/ok/%2e%2e/no", 403},
		{alpha, 1, "/ok%2f1", 400}, // two meanings
		{alpha, 1, "/x/secret", 403},
		{beta, 1, "/ok/1", 403},
		{beta, 1, "/x/1", 403},
		{alpha, 2, "/", 403},
		{alpha, 4, "/ok/1", 200},
		{alpha, 4, "/no", 403},
	} {
		got := r.get(c.from, vip(c.n), c.path)
		if got.Status != c.want || c.want == 403 && got.Body != "RBAC: access denied" {
			t.Errorf("%s %d%s: %d %q, want %d", c.from, c.n, c.path, got.Status, got.Body, c.want)
		}
		if c.want != 200 {
			select {
			case q := <-hits:
				t.Errorf("%s %d%s: reached the server as %s", c.from, c.n, c.path, q.URL)
			default:
			}
			continue
		}
		<-hits
		if port := portOf(t, got.Peer); port < render.CheckedLow || port > render.CheckedHigh {
			t.Errorf("%s %d%s: from source port %d", c.from, c.n, c.path, port)
		}
	}
	if got := r.get(alpha, vip(3), "/"); got.Status != 200 || portOf(t, got.Peer) < render.UncheckedLow {
		t.Errorf("open: %+v", got)
	}
	if v6 := r.get(alpha6, vip6(1), "/ok/6"); v6.Status != 503 { // no v6 endpoint
		t.Errorf("v6: %+v", v6)
	}

	r.get(alpha, vip(1), "/x/secret?logged")
	if rec := r.record("/ok/secret?logged"); rec.Details != "rbac_access_denied_matched_policy["+render.RuleName(&deny)+"]" ||
		rec.Status != 403 || rec.Identity != alphaID || rec.Source.Addr().String() != alpha ||
		rec.Destination.String() != vip(1) || rec.Method != "GET" || rec.Route != "r" || rec.Cluster != "guarded" {
		t.Errorf("access log %+v", rec)
	}
	r.get(beta, vip(1), "/ok/logged")
	if rec := r.record("/ok/logged"); rec.Details != "rbac_access_denied_matched_policy[none]" || rec.Identity != betaID {
		t.Errorf("access log %+v", rec)
	}
	if got := r.do(beta, vip(1), "POST", "/ok/grpc", "content-type: application/grpc"); got.Status != 200 || got.Header.Get("grpc-status") != "7" {
		t.Errorf("gRPC denied with %d %v", got.Status, got.Header)
	}

	// Upstream filters do not stop a copy, so it must not look checked: the plan
	// mirrors through clusters of their own.
	for len(hits) > 0 {
		<-hits
	}
	r.get(alpha, vip(3), "/no/mirror")
	select {
	case q := <-hits:
		if portOf(t, q.RemoteAddr) < render.UncheckedLow {
			t.Errorf("a copy came from %s, where checked requests come from", q.RemoteAddr)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing was mirrored")
	}
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRuleParts tries every part of a rule on the real RBAC filter, both folded
// (by identity) and inbound (by address).
func TestRuleParts(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	server(t, podC, nil)
	header := func(m model.NamedMatch) model.AuthRule {
		return model.AuthRule{To: []model.Operation{{Headers: []model.NamedMatch{m}}}}
	}
	when := func(c model.Condition) model.AuthRule { return model.AuthRule{When: []model.Condition{c}} }
	match := func(kind model.MatchKind, v string) []model.StringMatch {
		return []model.StringMatch{{Kind: kind, Value: v}}
	}
	onlyAlpha := []netip.Prefix{netip.MustParsePrefix(alpha + "/32")}
	cases := []struct {
		name    string
		rule    model.AuthRule
		yes, no string // "FROM beta|" before "METHOD path|header|..."
	}{
		{"empty rule", model.AuthRule{}, "GET /", ""},
		{"identity", model.AuthRule{From: identity(alphaID)}, "GET /", "FROM beta|GET /"},
		{"identity prefix", model.AuthRule{From: []model.Peer{{Identities: match(model.Prefix, "spiffe://cluster.local/ns/shop/")}}}, "GET /", "FROM beta|GET /"},
		{"identity suffix", model.AuthRule{From: []model.Peer{{Identities: match(model.Suffix, "/sa/alpha")}}}, "GET /", "FROM beta|GET /"},
		{"identity regex", model.AuthRule{From: []model.Peer{{Identities: match(model.Regex, ".*/ns/shop/sa/.*")}}}, "GET /", "FROM beta|GET /"},
		{"any identity", model.AuthRule{From: []model.Peer{{Identities: match(model.Present, "")}}}, "GET /", ""},
		{"not identity", model.AuthRule{From: []model.Peer{{NotIdentities: match(model.Exact, betaID)}}}, "GET /", "FROM beta|GET /"},
		{"two peers", model.AuthRule{From: append(identity("x"), identity(alphaID)...)}, "GET /", "FROM beta|GET /"},
		{"ip", model.AuthRule{From: []model.Peer{{IPs: onlyAlpha}}}, "GET /", "FROM beta|GET /|x-forwarded-for: " + alpha},
		{"not ip", model.AuthRule{From: []model.Peer{{NotIPs: []netip.Prefix{netip.MustParsePrefix(beta + "/32")}}}}, "GET /", "FROM beta|GET /"},
		{"identity and ip", model.AuthRule{From: []model.Peer{{Identities: match(model.Exact, alphaID), IPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}}}, "", "GET /"},
		{"host", model.AuthRule{To: []model.Operation{{Hosts: match(model.Exact, "Web.Shop")}}}, "GET /|host: wEB.shop", "GET /|host: web.shop:80"},
		{"host suffix", model.AuthRule{To: []model.Operation{{Hosts: match(model.Suffix, ".SHOP")}}}, "GET /|host: web.shop", "GET /|host: shop"},
		{"not host", model.AuthRule{To: []model.Operation{{NotHosts: match(model.Exact, "bad")}}}, "GET /", "GET /|host: BAD"},
		{"methods", model.AuthRule{To: []model.Operation{{Methods: []model.StringMatch{exact("PUT"), exact("POST")}}}}, "POST /", "GET /"},
		{"not methods", model.AuthRule{To: []model.Operation{{NotMethods: []model.StringMatch{exact("PUT"), exact("POST")}}}}, "GET /", "POST /"},
		{"path", model.AuthRule{To: paths(model.Exact, "/a")}, "GET /a?b=c", "GET /a/b"},
		{"path prefix", model.AuthRule{To: paths(model.Prefix, "/a")}, "GET /ab", "GET /b?/a"},
		{"path suffix", model.AuthRule{To: paths(model.Suffix, "/z")}, "GET /a/z?q", "GET /a?x=/z"},
		{"path regex", model.AuthRule{To: paths(model.Regex, "/[0-9]+")}, "GET /12", "GET /12/a"},
		{"any path", model.AuthRule{To: paths(model.Present, "")}, "GET /12", ""},
		{"path template, one segment", model.AuthRule{To: paths(model.Template, "/v/{*}/x")}, "GET /v/1/x?q", "GET /v/1/2/x"},
		{"path template, many segments", model.AuthRule{To: paths(model.Template, "/v/{**}")}, "GET /v/1/2/x", "GET /w/1"},
		{"not paths", model.AuthRule{To: []model.Operation{{NotPaths: []model.StringMatch{exact("/a"), {Kind: model.Prefix, Value: "/b"}}}}}, "GET /c", "GET /b/c"},
		{"two operations", model.AuthRule{To: append(paths(model.Exact, "/a"), paths(model.Exact, "/b")...)}, "GET /b", "GET /c"},
		{"operation is a conjunction", model.AuthRule{To: []model.Operation{{Methods: match(model.Exact, "GET"), Paths: match(model.Exact, "/a")}}}, "GET /a", "POST /a"},
		{"header", header(model.NamedMatch{Name: "x-t", Match: exact("1")}), "GET /|X-T: 1", "GET /"},
		{"header absent", header(model.NamedMatch{Name: "x-t", Match: model.StringMatch{Kind: model.Present}, Not: true}), "GET /", "GET /|x-t: 1"},
		{"header not, missing", header(model.NamedMatch{Name: "x-t", Match: exact("1"), Not: true}), "GET /|x-t: 2", "GET /"},
		{"header not, missing is empty", header(model.NamedMatch{Name: "x-t", Match: exact("1"), Not: true, MissingEmpty: true}), "GET /", "GET /|x-t: 1"},
		{"when header", when(model.Condition{Kind: model.OnHeader, Name: "x-t", Values: []model.StringMatch{exact("1"), exact("2")}}), "GET /|x-t: 2", "GET /|x-t: 3"},
		{"when header not", when(model.Condition{Kind: model.OnHeader, Name: "x-t", NotValues: []model.StringMatch{exact("1")}}), "GET /", "GET /|x-t: 1"},
		{"when identity", when(model.Condition{Kind: model.OnIdentity, Values: match(model.Exact, alphaID)}), "GET /", "FROM beta|GET /"},
		{"when not identity", when(model.Condition{Kind: model.OnIdentity, NotValues: match(model.Exact, betaID)}), "GET /", "FROM beta|GET /"},
		{"when ip", when(model.Condition{Kind: model.OnSourceIP, Prefixes: onlyAlpha}), "GET /", "FROM beta|GET /"},
		{"when not ip", when(model.Condition{Kind: model.OnSourceIP, NotPrefixes: onlyAlpha}), "FROM beta|GET /", "GET /"},
		{"when sni", when(model.Condition{Kind: model.OnSNI, Values: match(model.Exact, "x")}), "", "GET /"},
		{"when not sni", when(model.Condition{Kind: model.OnSNI, NotValues: match(model.Exact, "x")}), "GET /", ""},
		{"all conditions", model.AuthRule{When: []model.Condition{
			{Kind: model.OnHeader, Name: "a", Values: match(model.Exact, "1")}, {Kind: model.OnHeader, Name: "b", Values: match(model.Present, "")}}},
			"GET /|a: 1|b: 2", "GET /|a: 1"},
		{"from, to and when", model.AuthRule{From: identity(alphaID), To: paths(model.Exact, "/a"), When: []model.Condition{{Kind: model.OnHeader, Name: "a", Values: match(model.Exact, "1")}}},
			"GET /a|a: 1", "GET /|a: 1"},
	}
	known := []plan.KnownIdentity{
		{Identity: alphaID, Addresses: []netip.Addr{netip.MustParseAddr(alpha), netip.MustParseAddr(alpha6)}},
		{Identity: betaID, Addresses: []netip.Addr{netip.MustParseAddr(beta)}},
	}
	members := []netip.Addr{netip.MustParseAddr(alpha), netip.MustParseAddr(beta)}
	all := rows(clusterOf(plan.Cluster{Name: "a"}, serverA), listeners())
	inbound := &plan.RouteTable{Name: "in"}
	for i, c := range cases {
		name := "rule-" + strconv.Itoa(i)
		all = append(all, clusterOf(plan.Cluster{Name: name, Policy: allow(c.rule), Checked: true}, serverA)...)
		all = append(all, service(i+1, to(name))...)
		policy := allow(c.rule)
		policy.Known, policy.Members = known, members
		inbound.Routes = append(inbound.Routes, plan.Route{
			ID: name, Original: true, App: model.AppHTTP, Checked: true, Policy: policy,
			Match: model.RouteMatch{Headers: []model.NamedMatch{{Name: "x-case", Match: exact(name)}}},
		})
	}
	all = append(all, inbound, &plan.Scope{Key: plan.InboundKey(netip.MustParseAddrPort(podC)), RouteTable: "in"})
	r.push(all...)

	for i, c := range cases {
		for want, line := range map[int]string{200: c.yes, 403: c.no} {
			if line == "" {
				continue
			}
			from := alpha
			if rest, ok := strings.CutPrefix(line, "FROM beta|"); ok {
				from, line = beta, rest
			}
			parts := strings.Split(line, "|")
			method, path, _ := strings.Cut(parts[0], " ")
			if got := r.do(from, vip(i+1), method, path, parts[1:]...); got.Status != want {
				t.Errorf("%s, folded: %q from %s: %d, want %d", c.name, line, from, got.Status, want)
			}
			headers := append([]string{"x-case: rule-" + strconv.Itoa(i)}, parts[1:]...)
			if got := r.do(from, podC, method, path, headers...); got.Status != want {
				t.Errorf("%s, inbound: %q from %s: %d, want %d", c.name, line, from, got.Status, want)
			}
		}
	}
}

func TestInbound(t *testing.T) {
	r := newRig(t)
	server(t, podC, nil)
	server(t, podC6, nil)
	deny := model.AuthRule{To: paths(model.Exact, "/secret")}
	strict := model.AuthRule{From: []model.Peer{{NotIdentities: []model.StringMatch{{Kind: model.Present}}}}, To: paths(model.Exact, "/b/members")}
	group := func(rules ...model.AuthRule) []model.AuthRule { return rules }
	policy := &plan.Policy{
		Deny: []model.AuthRule{deny, strict},
		Allow: [][]model.AuthRule{
			group(model.AuthRule{From: identity(alphaID)}, model.AuthRule{From: identity(betaID), To: paths(model.Prefix, "/b")}),
			group(model.AuthRule{To: []model.Operation{{Ports: []uint16{8080}, Methods: []model.StringMatch{exact("GET")}}}}),
			group(model.AuthRule{When: []model.Condition{{Kind: model.OnDestinationIP, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd44:3::/64")}}}}),
		},
		Known: []plan.KnownIdentity{
			{Identity: alphaID, Addresses: []netip.Addr{netip.MustParseAddr(alpha), netip.MustParseAddr(alpha6)}},
			{Identity: betaID, Addresses: []netip.Addr{netip.MustParseAddr(beta)}},
		},
		Members: []netip.Addr{netip.MustParseAddr(alpha), netip.MustParseAddr(alpha6)},
	}
	http2 := plan.Route{ID: "in2", Original: true, App: model.AppGRPC, Checked: true, Match: pathMatch(model.Exact, "/http2")}
	r.push(append(listeners(),
		&plan.RouteTable{Name: "in", Routes: []plan.Route{http2, {ID: "in", Original: true, App: model.AppHTTP, Checked: true, Policy: policy}}},
		&plan.Scope{Key: plan.InboundKey(netip.MustParseAddrPort(podC)), RouteTable: "in"},
		&plan.Scope{Key: plan.InboundKey(netip.MustParseAddrPort(podC6)), RouteTable: "in"})...)
	for _, c := range []struct {
		from, method, path string
		want               int
	}{
		{alpha6, "GET", "/", 200},
		{alpha6, "GET", "/secret", 403},
		{stranger6, "GET", "/", 403},
		{alpha, "GET", "/", 200},
		{alpha, "GET", "/secret", 403},
		{alpha, "POST", "/", 403},
		{beta, "GET", "/b", 200},
		{beta, "GET", "/", 403},
		{alpha, "GET", "/b/members", 200},
		{alpha6, "GET", "/b/members", 200},
		{beta, "GET", "/b/members", 403}, // known by the address alone
		{stranger, "GET", "/b", 403},
	} {
		dst := podC
		if strings.Contains(c.from, ":") {
			dst = podC6
		}
		got := r.do(c.from, dst, c.method, c.path, "x-forwarded-for: "+alpha)
		if got.Status != c.want {
			t.Errorf("%+v: %d", c, got.Status)
		}
		if c.want == 200 {
			if host, _, _ := net.SplitHostPort(got.Peer); host != c.from {
				t.Errorf("%+v: the server saw %s", c, got.Peer)
			}
			if port := portOf(t, got.Peer); port < render.CheckedLow || port > render.CheckedHigh {
				t.Errorf("%+v: from source port %d", c, port)
			}
		}
	}
	if got := r.get(stranger, podC, "/http2"); got.Proto != "HTTP/2.0" {
		t.Errorf("to an HTTP/2 port: %+v", got)
	}
	r.get(alpha, podC, "/secret?in")
	if rec := r.record("/secret?in"); !strings.Contains(rec.Details, render.RuleName(&deny)) || rec.Destination.String() != podC {
		t.Errorf("access log %+v", rec)
	}
}

func TestProtocols(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	server(t, serverA6, nil)
	r.push(rows(
		clusterOf(plan.Cluster{Name: "h1", App: model.AppHTTP}, serverA+" "+serverA6),
		clusterOf(plan.Cluster{Name: "h2", App: model.AppGRPC}, serverA+" "+serverA6),
		service(1, to("h1")), service(2, to("h2")), listeners())...)
	for _, c := range []struct{ from, dst, proto string }{
		{alpha, vip(1), "HTTP/1.1"}, {alpha, vip(2), "HTTP/2.0"}, {alpha6, vip6(1), "HTTP/1.1"}, {alpha6, vip6(2), "HTTP/2.0"},
	} {
		got := r.get(c.from, c.dst, "/")
		if host, _, _ := net.SplitHostPort(got.Peer); got.Proto != c.proto || host != c.from {
			t.Errorf("%+v: %s from %s (%d %s)", c, got.Proto, got.Peer, got.Status, got.Body)
		}
	}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p, DialContext: dialer(alpha).DialContext}
	defer tr.CloseIdleConnections()
	for _, dst := range []string{vip(1), vip(2)} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+dst+"/", bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		req.Header["X-Fl-Dst"] = []string{vip(9), vip(9)} // overwritten
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Errorf("h2c to %s: %s %s", dst, resp.Status, resp.Proto)
		}
	}
}
