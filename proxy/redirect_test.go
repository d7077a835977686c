// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// location is where a request is redirected to, as model.Redirect documents it.
func location(r *model.Redirect, match *model.StringMatch, authority, path, query string) string {
	scheme := cmp.Or(r.Scheme, "http")
	own := map[string]string{"http": "80", "https": "443"}[scheme]
	host, port, named := authority, "", false
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port, named = authority[:i], authority[i+1:], true
	}
	switch {
	case r.Host != "":
		host, port = r.Host, fmt.Sprint(r.Port)
		if r.Port == 0 || port == own {
			port = ""
		}
	case r.Port != 0:
		port = fmt.Sprint(r.Port)
		if port == own && !named {
			port = ""
		}
	case scheme != "http" && port == "80":
		port = ""
	}
	if port != "" {
		host += ":" + port
	}
	switch {
	case r.Path != "":
		path = r.Path
		if strings.Contains(path, "?") {
			query = ""
		}
	case r.Prefix != nil:
		path = cmp.Or(replaced(match, *r.Prefix, path), "/")
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return scheme + "://" + host + path + query
}

// replaced is a path with another prefix, as model.Rewrite documents it.
func replaced(match *model.StringMatch, by, path string) string {
	switch {
	case match == nil || match.Kind == model.Exact:
		return by
	case match.Kind == model.Prefix:
		return by + path[len(match.Value):]
	}
	return cmp.Or(strings.TrimRight(by, "/")+path[len(strings.TrimSuffix(match.Value, "/")):], "/")
}

// matched are matches and paths that they take.
var matched = []struct {
	match *model.StringMatch
	path  string
}{
	{nil, "/"}, {nil, "/a/b"},
	{&model.StringMatch{Kind: model.Exact, Value: "/a"}, "/a"},
	{&model.StringMatch{Kind: model.Prefix, Value: "/a"}, "/a"},
	{&model.StringMatch{Kind: model.Prefix, Value: "/a"}, "/abc/d"},
	{&model.StringMatch{Kind: model.Prefix, Value: "/a/"}, "/a/b"},
	{&model.StringMatch{Kind: model.Prefix, Value: "/A.", IgnoreCase: true}, "/a.b"},
	{&model.StringMatch{Kind: model.Segments, Value: "/"}, "/"},
	{&model.StringMatch{Kind: model.Segments, Value: "/"}, "/a/b"},
	{&model.StringMatch{Kind: model.Segments, Value: "/a"}, "/a"},
	{&model.StringMatch{Kind: model.Segments, Value: "/a"}, "/a/"},
	{&model.StringMatch{Kind: model.Segments, Value: "/a+b"}, "/a+b/c"},
	{&model.StringMatch{Kind: model.Segments, Value: "/a/b", IgnoreCase: true}, "/A/B/c/d"},
}

func once(t *testing.T, dst, authority, path string) *http.Response {
	t.Helper()
	q, err := http.NewRequest("GET", "http://h"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = authority
	tr := &http.Transport{DialContext: dialer(alpha).DialContext, DisableKeepAlives: true}
	q.URL.Host = dst
	resp, err := tr.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestRedirectsAsDocumented draws redirects and requests by chance.
func TestRedirectsAsDocumented(t *testing.T) {
	r := newRig(t)
	g := generator{rand.New(rand.NewPCG(3, 4))}
	const n = 200
	var all []any
	redirects, matches := make([]model.Redirect, n), make([]int, n)
	for i := range n {
		d := model.Redirect{Status: draw[uint32](g, 301, 302, 303, 307, 308), Scheme: draw(g, "", "", "http", "https"),
			Host: draw(g, "", "", "www.example.com", "[fd00::2]"), Port: draw[uint16](g, 0, 0, 80, 443, 8443), Path: draw(g, "", "", "", "/new", "/new?a=b")}
		if d.Path == "" && g.IntN(2) == 0 {
			p := draw(g, "", "/", "/new", "/new/")
			d.Prefix = &p
		}
		redirects[i], matches[i] = d, g.IntN(len(matched))
		all = append(all, service(i+1, plan.Route{ID: fmt.Sprint("r", i), Match: model.RouteMatch{Path: matched[matches[i]].match}, Redirect: &d})...)
	}
	r.push(rows(all, listeners())...)
	for i := range n {
		p := matched[matches[i]]
		authority, query := draw(g, "web", "web:80", "web:8080", "web:443", "[fd00::1]", "[fd00::1]:8080"), draw(g, "", "?q=1")
		resp := once(t, vip(i+1), authority, p.path+query)
		want := location(&redirects[i], p.match, authority, p.path, query)
		if got := resp.Header.Get("Location"); got != want || resp.StatusCode != int(redirects[i].Status) {
			t.Errorf("%s%s%s by %s, %s:\n%d %s\nwant %s", authority, p.path, query, model.Bytes(p.match), model.Bytes(redirects[i]), resp.StatusCode, got, want)
		}
	}
}

func TestRewritesAsDocumented(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	all := [][]any{clusterOf(plan.Cluster{Name: "a", App: model.AppHTTP}, serverA), listeners()}
	type asked struct {
		by   string
		full bool
		path int
	}
	var each []asked
	for i := range matched {
		for _, by := range []string{"/", "/new", "/new/", "/n\\1"} {
			for _, full := range []bool{false, true} {
				w := &model.Rewrite{Path: by}
				if full {
					w = &model.Rewrite{FullPath: by, Path: "/other"}
				}
				each = append(each, asked{by, full, i})
				route := to("a")
				route.Match.Path, route.Rewrite = matched[i].match, w
				all = append(all, service(len(each), route))
			}
		}
	}
	r.push(rows(all...)...)
	for i, c := range each {
		p := matched[c.path]
		want := replaced(p.match, c.by, p.path)
		if c.full {
			want = c.by
		}
		want = strings.ReplaceAll(want, `\`, "%5C") // as the server writes it
		resp := once(t, vip(i+1), "web", p.path+"?q=1")
		var e echo
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Path != want+"?q=1" {
			t.Errorf("%s by %s, %+v: %q, want %q (%v)", p.path, model.Bytes(p.match), c, e.Path, want, err)
		}
	}
}
