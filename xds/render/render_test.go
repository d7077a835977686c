// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

func ptr[T any](v T) *T { return &v }

func match(kind model.MatchKind, v string) model.StringMatch {
	return model.StringMatch{Kind: kind, Value: v}
}

func table(change func(*plan.Route)) *plan.RouteTable {
	r := plan.Route{ID: "r1", Clusters: []plan.WeightedCluster{{Name: "c", Weight: 1}}}
	change(&r)
	return &plan.RouteTable{Name: "shop/web:80", Routes: []plan.Route{r}}
}

// TestBadRows: what Envoy would reject, or take for something else, is an error
// that names the row.
func TestBadRows(t *testing.T) {
	edit := func(e model.HeaderEdit) func(*plan.Route) { return func(r *plan.Route) { r.RequestHeaders = e } }
	set := func(name, value string) func(*plan.Route) {
		return edit(model.HeaderEdit{Set: []model.Header{{Name: name, Value: value}}})
	}
	routes := map[string]func(*plan.Route){
		"regular expression":    func(r *plan.Route) { r.Match.Path = ptr(match(model.Regex, "(")) },
		"empty regular":         func(r *plan.Route) { r.Match.Path = ptr(match(model.Regex, "")) },
		"cannot be used here":   func(r *plan.Route) { r.Match.Path = ptr(match(model.Suffix, "x")) },
		"header name":           set("x y", ""),
		`header name "X-Upper"`: set("X-Upper", ""),
		"empty header name":     set("", ""),
		"control character":     set("x", "a\r\nb: c"),
		"proxy's own":           set(render.DestinationHeader, "10.96.0.1:80"),
		"cannot be edited":      set("host", "x"),
		`":path" cannot be`:     set(":path", "/x"),
		`":authority" cannot`:   edit(model.HeaderEdit{Add: []model.Header{{Name: ":authority", Value: "x"}}}),
		`":method" cannot`:      edit(model.HeaderEdit{Remove: []string{":method"}}),
		"UTF-8":                 set("x", "\xff"),
		"weight 0": func(r *plan.Route) {
			r.Clusters = []plan.WeightedCluster{{Name: "a", Weight: 1}, {Name: "b"}}
		},
		"in all": func(r *plan.Route) {
			r.Clusters = []plan.WeightedCluster{{Name: "a", Weight: 1 << 31}, {Name: "b", Weight: 1 << 31}}
		},
		"Status":   func(r *plan.Route) { r.Direct = &model.Direct{Status: 99} },
		"timeout":  func(r *plan.Route) { r.Timeout = -time.Second },
		"no such":  func(r *plan.Route) { r.Retry = &model.Retry{Attempts: 1, On: []string{"5xy"}} },
		"negative": func(r *plan.Route) { r.Retry = &model.Retry{Attempts: 1, Backoff: -1} },
		"rewrite": func(r *plan.Route) {
			r.Rewrite = &model.Rewrite{PathRegex: &model.RegexEdit{Match: "["}}
		},
		"only a positive": func(r *plan.Route) {
			r.Match.Query = []model.NamedMatch{{Name: "q", Match: match(model.Exact, "1"), Not: true}}
		},
		`cluster "a", status 500`: func(r *plan.Route) { r.Clusters = []plan.WeightedCluster{{Name: "a", Status: 500, Weight: 1}} },
		`cluster "", status 0`:    func(r *plan.Route) { r.Clusters = []plan.WeightedCluster{{Weight: 1}} },
		"DirectResponse":          func(r *plan.Route) { r.Clusters = []plan.WeightedCluster{{Status: 99, Weight: 1}} },
		"an answer and a redir":   func(r *plan.Route) { r.Direct, r.Redirect = &model.Direct{Status: 200}, &model.Redirect{Status: 301} },
		"redirect with status":    func(r *plan.Route) { r.Redirect = &model.Redirect{Status: 304} },
		`redirect to scheme`:      func(r *plan.Route) { r.Redirect = &model.Redirect{Status: 301, Scheme: "a b"} },
		`to host "a/b" and`:       func(r *plan.Route) { r.Redirect = &model.Redirect{Status: 301, Host: "a/b"} },
		`to host "a:1" and`:       func(r *plan.Route) { r.Redirect = &model.Redirect{Status: 301, Host: "a:1", Port: 2} },
		"a path and a prefix":     func(r *plan.Route) { r.Redirect = &model.Redirect{Status: 301, Path: "/a", Prefix: ptr("/b")} },
		`header "location"`:       func(r *plan.Route) { r.Redirect = &model.Redirect{Status: 301, Path: "/a\n"} },
		`segments "/a/" of`:       func(r *plan.Route) { r.Match.Path = ptr(match(model.Segments, "/a/")) },
		`segments "" of a`:        func(r *plan.Route) { r.Match.Path = ptr(match(model.Segments, "")) },
		`segments "/a?b" of`:      func(r *plan.Route) { r.Match.Path = ptr(match(model.Segments, "/a?b")) },
		"delay of 0s":             func(r *plan.Route) { r.Fault = &model.Fault{DelayPerMillion: 1} },
		"fault for 1000001":       func(r *plan.Route) { r.Fault = &model.Fault{Delay: 1, DelayPerMillion: 1_000_001} },
		"one of gRPC":             func(r *plan.Route) { r.Fault = &model.Fault{AbortPerMillion: 1, AbortStatus: 500, AbortGRPC: 1} },
		"gRPC status 17":          func(r *plan.Route) { r.Fault = &model.Fault{AbortPerMillion: 1, AbortGRPC: 17} },
		"HttpStatus":              func(r *plan.Route) { r.Fault = &model.Fault{AbortPerMillion: 1, AbortStatus: 199} },
		"cors: origin":            func(r *plan.Route) { r.CORS = &model.CORS{Origins: []model.StringMatch{match(model.Regex, "(")}} },
		"cors: header":            func(r *plan.Route) { r.CORS = &model.CORS{Expose: []string{"a\n"}} },
		"timeouts 0s and -1s":     func(r *plan.Route) { r.IdleTimeout = -time.Second },
		"backoff from 2s to 1s": func(r *plan.Route) {
			r.Retry = &model.Retry{Attempts: 1, Backoff: 2 * time.Second, BackoffMax: time.Second}
		},
		"several bytes": func(r *plan.Route) {
			r.Match.Path = &model.StringMatch{Kind: model.Segments, Value: "/ä", IgnoreCase: true}
			r.Rewrite = &model.Rewrite{Path: "/"}
		},
		"without the predicate": func(r *plan.Route) { r.Match.SourceLabels = map[string]string{"a": "b"} },
		"listeners have 5 slots": func(r *plan.Route) {
			r.Original, r.App, r.Policy = true, model.AppHTTP, &plan.Policy{Allow: make([][]model.AuthRule, 6)}
		},
	}
	for want, change := range routes {
		_, err := render.RouteTable(table(change))
		check(t, err, "shop/web:80", want)
	}
	rules := map[string]model.AuthRule{
		"judged at the source":           {To: []model.Operation{{Ports: []uint16{80}}}},
		"destination's address":          {When: []model.Condition{{Kind: model.OnDestinationIP}}},
		"unknown kind":                   {When: []model.Condition{{Kind: "moon"}}},
		"no address range":               {From: []model.Peer{{IPs: []netip.Prefix{{}}}}},
		`segments "/a/" of`:              {To: []model.Operation{{NotPaths: []model.StringMatch{match(model.Segments, "/a/")}}}},
		"path template":                  {To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Template, Value: "/{*}", IgnoreCase: true}}}}},
		`kind "template" cannot be used`: {From: []model.Peer{{Identities: []model.StringMatch{match(model.Template, "/x")}}}},
		"header x: regular expression":   {When: []model.Condition{{Kind: model.OnHeader, Name: "x", Values: []model.StringMatch{match(model.Regex, "(")}}}},
		"invalid UTF-8":                  {To: []model.Operation{{Hosts: []model.StringMatch{match(model.Exact, "\xff")}}}},
	}
	for want, rule := range rules {
		_, err := render.Cluster(&plan.Cluster{Name: "c1", Policy: &plan.Policy{Deny: []model.AuthRule{rule}}})
		check(t, err, "c1", want)
	}
	_, err := render.Cluster(&plan.Cluster{})
	check(t, err, "cluster", "Name")
	_, err = render.Cluster(&plan.Cluster{Name: "c1", App: model.AppTCP, Policy: &plan.Policy{Deny: []model.AuthRule{{}}}})
	check(t, err, "c1", "no requests")
	for _, name := range render.StaticClusters() {
		_, err = render.Cluster(&plan.Cluster{Name: name, App: model.AppHTTP})
		check(t, err, name, "proxy's own")
	}
	backends := []plan.Backend{{Addrs: []netip.AddrPort{netip.MustParseAddrPort("10.244.1.1:80")}}}
	for want, e := range map[string]plan.ClusterEndpoints{
		"backends beside": {Backends: backends, Shares: []plan.EndpointShare{{Weight: 1, Backends: backends}}},
		"weight 0":        {Shares: []plan.EndpointShare{{Weight: 1, Backends: backends}, {Backends: backends}}},
		"in all":          {Shares: []plan.EndpointShare{{Weight: 1 << 31, Backends: backends}, {Weight: 1 << 31, Backends: backends}}},
		"no address":      {Shares: []plan.EndpointShare{{Weight: 1, Backends: []plan.Backend{{Addrs: []netip.AddrPort{{}}}}}}},
	} {
		e.Cluster = "c1"
		_, err = render.Endpoints(&e)
		check(t, err, "c1", want)
	}
	elsewhere := &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}
	for want, r := range map[string]plan.RouteTable{
		"nothing said of others":           {Hosts: []string{"a"}},
		"routes without hosts":             {Elsewhere: elsewhere, Routes: table(func(*plan.Route) {}).Routes},
		`"" is no host`:                    {Elsewhere: elsewhere, Hosts: []string{""}},
		`"*" is no host`:                   {Elsewhere: elsewhere, Hosts: []string{"*"}},
		`"*..a" is no host`:                {Elsewhere: elsewhere, Hosts: []string{"*..a"}},
		`"a.*.b" is no host`:               {Elsewhere: elsewhere, Hosts: []string{"a", "a.*.b"}},
		`"a:80" is no host`:                {Elsewhere: elsewhere, Hosts: []string{"a:80"}},
		`"fd96::1" is no host`:             {Elsewhere: elsewhere, Hosts: []string{"fd96::1"}},
		`"[10.96.0.1]" is no host`:         {Elsewhere: elsewhere, Hosts: []string{"[10.96.0.1]"}},
		`"a b" is no host`:                 {Elsewhere: elsewhere, Hosts: []string{"a b"}},
		"a body of 1048577 bytes":          *table(func(r *plan.Route) { r.Direct = &model.Direct{Status: 200, Body: strings.Repeat("x", 1<<20+1)} }),
		`original destination, which`:      *table(func(r *plan.Route) { r.Original, r.App = true, model.AppTCP }),
		`original destination, which spea`: *table(func(r *plan.Route) { r.Original = true }),
	} {
		r.Name = "r1"
		_, err = render.RouteTable(&r)
		check(t, err, "r1", want)
	}
	for want, l := range map[string]plan.Listener{
		`mode ""`:                   {},
		`mode "kernel"`:             {Mode: plan.Kernel},
		`mode "tls"`:                {Mode: plan.TLS, Inbound: true},
		`server names, and`:         {Mode: plan.HTTP, ServerNames: []string{"a"}},
		`a timeout of 1s`:           {Mode: plan.HTTP, DetectTimeout: time.Second},
		`a timeout of -1s`:          {Mode: plan.Detect, DetectTimeout: -time.Second},
		`server name: "*" is`:       {Mode: plan.TLS, ServerNames: []string{"*"}},
		`"10.0.0.1|x" is no host`:   {Mode: plan.TLS, ServerNames: []string{"10.0.0.1|x"}},
		`"c|1" cannot be filter`:    {Mode: plan.TLS, Class: "c|1"},
		`"a\nb" cannot be filter s`: {Mode: plan.TLS, Identity: "a\nb"},
	} {
		l.Name = "l1"
		_, err = render.Listener(&l, 1)
		check(t, err, "l1", want)
	}
	_, err = render.Endpoints(&plan.ClusterEndpoints{Cluster: "c1", Backends: []plan.Backend{{}}})
	check(t, err, "c1", "without address")
	_, err = render.Endpoints(&plan.ClusterEndpoints{Cluster: "c1", Backends: []plan.Backend{{Addrs: []netip.AddrPort{{}}}}})
	check(t, err, "c1", "no address")
	_, err = render.Scope(&plan.Scope{RouteTable: "r"})
	check(t, err, "scope of r", "no key")
	_, err = render.Listener(&plan.Listener{Name: "l1"}, 0)
	check(t, err, "l1", "no port")
	_, err = render.Listener(&plan.Listener{Name: "l1", Identity: "a", Selects: []string{"x|y"}}, 1)
	check(t, err, "l1", "filter state")
	_, err = render.Listener(&plan.Listener{Name: "\xff"}, 1)
	check(t, err, "listener", "filter state")
}

func check(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q has no %q", err, w)
		}
	}
}

// TestShortTimes: less than a millisecond would be for ever.
func TestShortTimes(t *testing.T) {
	with := func(d time.Duration) string {
		r, err := render.RouteTable(table(func(r *plan.Route) {
			r.Timeout, r.Retry = d, &model.Retry{Attempts: 1, On: []string{"5xx"}, PerTryTimeout: d, Backoff: d}
		}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Version
	}
	if with(time.Microsecond) != with(time.Millisecond) || with(time.Millisecond) == with(2*time.Millisecond) {
		t.Error("a microsecond is no millisecond")
	}
}

func TestStandIns(t *testing.T) {
	for _, f := range []func(string) (xds.Resource, error){render.RouteTable500, render.NoEndpoints, render.NoCluster} {
		r, err := f("shop/web:80")
		if err != nil || r.Name != "shop/web:80" {
			t.Errorf("%+v %v", r, err)
		}
	}
}

// TestCandidates: the plan has less to tell apart than Envoy asks for.
func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		typ, name string
		want      []string
	}{
		{xds.ClusterType, "shop/web:80", nil},
		{xds.EndpointType, "tcp|c|10.96.0.1:80", nil},
		{xds.ClusterType, "tcp|c|10.96.0.1:80", []string{"tcp||10.96.0.1:80"}},
		{xds.ClusterType, "tcp|c|[fd96::1]:80", []string{"tcp||[fd96::1]:80"}},
		{xds.ClusterType, "tcp||10.96.0.1:80", nil},
		{xds.ClusterType, "tcp|a|b|c", nil},
		{xds.ClusterType, "tls|*.a.com|c|d", []string{"tls|*.a.com||d", "tls|*.com|c|d", "tls|*.com||d", "tls||c|d", "tls|||d"}},
		{xds.ClusterType, "tls|a.com|c|d", []string{"tls|a.com||d", "tls|*.com|c|d", "tls|*.com||d", "tls||c|d", "tls|||d"}},
		{xds.ClusterType, "tls||c|d", []string{"tls|||d"}},
		{xds.ClusterType, "tcp|c|10.0.0.0/2:80", []string{"tcp||10.0.0.0/2:80", "tcp|c|0.0.0.0/1:80", "tcp||0.0.0.0/1:80", "tcp|c|0.0.0.0/0:80", "tcp||0.0.0.0/0:80"}},
		{xds.ClusterType, "tls|a|c|::/1:443", []string{"tls|a||::/1:443", "tls||c|::/1:443", "tls|||::/1:443",
			"tls|a|c|::/0:443", "tls|a||::/0:443", "tls||c|::/0:443", "tls|||::/0:443"}},
		{xds.ClusterType, "tls|com|c|d", []string{"tls|com||d", "tls||c|d", "tls|||d"}},
	} {
		if got := render.Candidates(c.typ, c.name); !slices.Equal(got, append([]string{c.name}, c.want...)) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	dst := netip.MustParseAddrPort("[fd96::1]:443")
	for asked, planned := range map[string]string{
		plan.ConnectionCluster("c", dst):             plan.ConnectionCluster("", dst),
		plan.ServerNameCluster("a.b.com", "c", dst):  plan.ServerNameCluster("*.com", "", dst),
		plan.ServerNameCluster("*.b.com", "c", dst):  plan.ServerNameCluster("", "", dst),
		plan.ServerNameCluster("a.b.com", "c2", dst): plan.ServerNameCluster("*.b.com", "c2", dst),
	} {
		if !slices.Contains(render.Candidates(xds.ClusterType, asked), planned) {
			t.Errorf("%s is no candidate for %s", planned, asked)
		}
	}
}

func TestPassResources(t *testing.T) {
	rs, err := render.PassResources()
	if err != nil {
		t.Fatal(err)
	}
	byType := map[string]string{}
	for _, r := range rs {
		valid(t, r)
		byType[r.Type] = r.Name
	}
	if len(rs) != 2 || byType[xds.RouteType] != plan.PassKey || byType[xds.ScopeType] != plan.PassKey {
		t.Errorf("%v", byType)
	}
}

func TestSameContentSameVersion(t *testing.T) {
	a, err := render.RouteTable(table(func(r *plan.Route) { r.Timeout = time.Second }))
	if err != nil {
		t.Fatal(err)
	}
	b, err := render.RouteTable(table(func(r *plan.Route) { r.Timeout = time.Second }))
	if err != nil || a.Version != b.Version || len(a.Version) != 32 {
		t.Errorf("%s and %s: %v", a.Version, b.Version, err)
	}
	c, err := render.RouteTable(table(func(r *plan.Route) { r.Timeout = 2 * time.Second }))
	if err != nil || a.Version == c.Version {
		t.Errorf("%s for different content: %v", c.Version, err)
	}
}

// valid checks that a resource is what it says and passes Envoy's own rules.
func valid(t *testing.T, r xds.Resource) {
	t.Helper()
	m, err := (&anypb.Any{TypeUrl: r.Type, Value: r.Body}).UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.(interface{ ValidateAll() error }).ValidateAll(); err != nil {
		t.Error(err)
	}
}

func FuzzRouteTable(f *testing.F) {
	for _, seed := range []*plan.RouteTable{
		table(func(*plan.Route) {}),
		table(func(r *plan.Route) {
			r.Match.Path, r.Rewrite = ptr(match(model.Regex, "/a+")), &model.Rewrite{Path: "/b", PathRegex: &model.RegexEdit{Match: "a", Replacement: `\1`}}
			r.Retry, r.Mirrors = &model.Retry{Attempts: 1, On: []string{"5xx"}}, []plan.Mirror{{Cluster: "m", PerMillion: 1}}
			r.RequestHeaders = model.HeaderEdit{Set: []model.Header{{Name: "x", Value: "%"}}, Remove: []string{"y"}}
		}),
		table(func(r *plan.Route) {
			r.Original = true
			r.Policy = &plan.Policy{Allow: [][]model.AuthRule{{{From: []model.Peer{{Identities: []model.StringMatch{match(model.Regex, ".*")}}}}}},
				Known: []plan.KnownIdentity{{Identity: "i", Addresses: []netip.Addr{netip.MustParseAddr("::1")}}}}
		}),
	} {
		f.Add(model.Bytes(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var row plan.RouteTable
		if json.Unmarshal(b, &row) != nil {
			t.Skip()
		}
		r, err := render.RouteTable(&row)
		if err != nil {
			return
		}
		valid(t, r)
		if again, err := render.RouteTable(&row); err != nil || again.Version != r.Version {
			t.Errorf("rendered twice: %s, %s, %v", r.Version, again.Version, err)
		}
	})
}

func FuzzCluster(f *testing.F) {
	f.Add(model.Bytes(&plan.Cluster{Name: "c", App: model.AppGRPC, Policy: &plan.Policy{
		Deny: []model.AuthRule{{
			From: []model.Peer{{NotIdentities: []model.StringMatch{match(model.Prefix, "spiffe://")}, IPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
			To:   []model.Operation{{Paths: []model.StringMatch{match(model.Template, "/{*}/x")}, Hosts: []model.StringMatch{match(model.Suffix, "x")}}},
			When: []model.Condition{{Kind: model.OnHeader, Name: "h", Values: []model.StringMatch{match(model.Present, "")}}},
		}},
		Allow: [][]model.AuthRule{{}, {{}}},
	}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var row plan.Cluster
		if json.Unmarshal(b, &row) != nil {
			t.Skip()
		}
		if r, err := render.Cluster(&row); err == nil {
			valid(t, r)
		}
	})
}

func BenchmarkRender5000Services(b *testing.B) {
	var rows []func() (xds.Resource, error)
	for i := range 5000 {
		name := fmt.Sprintf("shop/svc-%d:80", i)
		addr := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		c := &plan.Cluster{Name: name, App: model.AppHTTP, Checked: true}
		e := &plan.ClusterEndpoints{Cluster: name}
		for j := range 3 {
			e.Backends = append(e.Backends, plan.Backend{Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(244 + j), byte(i >> 8), byte(i)}), 8080)}})
		}
		r := &plan.RouteTable{Name: name}
		for j := range 3 {
			r.Routes = append(r.Routes, plan.Route{ID: fmt.Sprint(j), Match: model.RouteMatch{Path: ptr(match(model.Prefix, fmt.Sprint("/", j)))},
				Clusters: []plan.WeightedCluster{{Name: name, Weight: 1}}})
		}
		s := &plan.Scope{Key: plan.DestinationKey(netip.AddrPortFrom(addr, 80)), RouteTable: name}
		rows = append(rows,
			func() (xds.Resource, error) { return render.Cluster(c) }, func() (xds.Resource, error) { return render.Endpoints(e) },
			func() (xds.Resource, error) { return render.RouteTable(r) }, func() (xds.Resource, error) { return render.Scope(s) })
	}
	b.ReportAllocs()
	for b.Loop() {
		size := 0
		for _, row := range rows {
			r, err := row()
			if err != nil {
				b.Fatal(err)
			}
			size += len(r.Body)
		}
		b.ReportMetric(float64(size)/5000, "bytes/service")
	}
}
