// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// The answers in this file are those of Istio's own code with a stock Envoy 1.40
// (istio.io/istio v0.0.0-20260827124520-eed52ebb66ad). The model is interpreted here,
// so the tests show what the translation means, not what a proxy makes of it.

// request is what a client in namespace default sends to reviews.
type request struct {
	path    string
	header  string // "name:value"
	want    string // "subset", "service", "404", "503" or a status of its own
	method  string
	as, src string // identity "ns/sa" and address, for permissions
	host    string
}

const observedWorld = `
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: default}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: default}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: other}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: httpbin, namespace: default}
spec: {ports: [{name: http, port: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]
`

const steer = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews, namespace: default}\nspec:\n  hosts: [reviews]\n  http:\n"

func TestObservedRoutes(t *testing.T) {
	for name, c := range map[string]struct {
		routes   string
		requests []request
	}{
		"paths": {`
  - match: [{uri: {exact: /exact}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {prefix: /pre}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {regex: "/rx/[0-9]+"}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - match: [{uri: {prefix: /Case}, ignoreUriCase: true}]
    route: [{destination: {host: ratings}}]`, []request{
			{path: "/exact", want: "v1"}, {path: "/exact/", want: "404"}, {path: "/exact?a=1", want: "v1"}, {path: "/prefixed", want: "v2"},
			{path: "/rx/12", want: "v3"}, {path: "/rx/12x", want: "404"}, {path: "/rx/12?y=1", want: "v3"}, {path: "/cASE/x", want: "ratings"},
			{path: "/EXACT", want: "404"}, {path: "/nomatch", want: "404"}}},
		"headers": {`
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{headers: {x-any: {}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{headers: {x-rx: {regex: "a.c"}}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - route: [{destination: {host: ratings}}]`, []request{
			{path: "/", header: "end-user:jason", want: "v1"}, {path: "/", header: "end-user:Jason", want: "ratings"},
			{path: "/", header: "x-any:", want: "v2"}, {path: "/", header: "x-any:z", want: "v2"},
			{path: "/", header: "x-rx:abc", want: "v3"}, {path: "/", header: "x-rx:xabc", want: "ratings"}, {path: "/", want: "ratings"}}},
		"withoutHeaders": {`
  - match: [{withoutHeaders: {x-no: {exact: "1"}}, uri: {prefix: /a}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{withoutHeaders: {x-no: {}}, uri: {prefix: /b}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{withoutHeaders: {x-no: {regex: ".*"}}, uri: {prefix: /c}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - route: [{destination: {host: ratings}}]`, []request{
			{path: "/a", want: "v1"}, {path: "/a", header: "x-no:1", want: "ratings"}, {path: "/a", header: "x-no:2", want: "v1"},
			{path: "/b", want: "v2"}, {path: "/b", header: "x-no:2", want: "ratings"}, {path: "/c", want: "ratings"}, {path: "/c", header: "x-no:2", want: "ratings"}}},
		"query": {`
  - match: [{queryParams: {a: {exact: "1"}}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{queryParams: {a: {regex: "[0-9]+"}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{queryParams: {b: {exact: ""}}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - match: [{queryParams: {c: {prefix: "p"}}}]
    route: [{destination: {host: old}}]
  - route: [{destination: {host: ratings}}]`, []request{
			{path: "/?a=1", want: "v1"}, {path: "/?a=12", want: "v2"}, {path: "/?a=1&a=2", want: "v1"}, {path: "/?a=2&a=1", want: "v2"},
			{path: "/?a=x", want: "ratings"}, {path: "/?b", want: "v3"}, {path: "/?b=5", want: "ratings"}, {path: "/?c=pq", want: "old"}, {path: "/?A=1", want: "ratings"}}},
		"destinations": {`
  - match: [{uri: {prefix: /v3}}]
    route: [{destination: {host: reviews, subset: v3}}]
  - match: [{uri: {prefix: /nosub}}]
    route: [{destination: {host: reviews, subset: nope}}]
  - match: [{uri: {prefix: /nohost}}]
    route: [{destination: {host: ghost}}]
  - match: [{uri: {prefix: /port}}]
    route: [{destination: {host: httpbin}}]
  - match: [{uri: {prefix: /xns}}]
    route: [{destination: {host: api.other.svc.cluster.local}}]
  - match: [{uri: {prefix: /dot}}]
    route: [{destination: {host: api.other}}]`, []request{
			{path: "/v3", want: "v3"}, {path: "/nosub", want: "503"}, {path: "/nohost", want: "503"}, {path: "/port", want: "503"},
			{path: "/xns", want: "api"}, {path: "/dot", want: "503"}}},
		"sources": {`
  - match: [{sourceLabels: {app: nobody}}]
    directResponse: {status: 201}
  - match: [{sourceNamespace: other}]
    directResponse: {status: 202}
  - match: [{sourceLabels: {app: client}, uri: {prefix: /c}}]
    directResponse: {status: 203}
  - match: [{port: 8000}]
    directResponse: {status: 204}
  - directResponse: {status: 205}`, []request{{path: "/c", want: "203"}, {path: "/d", want: "205"}}},
	} {
		t.Run(name, func(t *testing.T) {
			out := translatortest.Translate(newTranslator, objects.Input{Name: "in.yaml", Data: []byte(observedWorld + steer + c.routes)})
			f, ok := out.Store.Get(translators.Routes(Plane), "default/reviews:80").(*model.Frontend)
			if !ok {
				t.Fatalf("no frontend: %s", out.DiagnosticLines())
			}
			for _, r := range c.requests {
				if got := answer(f, r); got != r.want {
					t.Errorf("%s %s: %s, want %s", r.path, r.header, got, r.want)
				}
			}
		})
	}
}

// answer is what the first route that matches does.
func answer(f *model.Frontend, r request) string {
	for _, route := range f.Routes {
		if !routeMatches(route.Match, r) {
			continue
		}
		switch {
		case route.Direct != nil:
			return strconv.Itoa(int(route.Direct.Status))
		case route.Backends[0].Missing:
			return "503"
		case route.Backends[0].Labels != nil:
			return route.Backends[0].Labels["version"]
		}
		return route.Backends[0].Service
	}
	return "404"
}

func routeMatches(m model.RouteMatch, r request) bool {
	path, query, _ := strings.Cut(r.path, "?")
	if m.SourceNamespace != "" && m.SourceNamespace != "default" || len(m.SourceLabels) > 0 && m.SourceLabels["app"] != "client" {
		return false
	}
	if m.Path != nil && !plan.Matches(*m.Path, path) {
		return false
	}
	values, _ := url.ParseQuery(query)
	for _, q := range m.Query {
		if v, ok := values[q.Name]; !ok || !plan.Matches(q.Match, v[0]) {
			return false
		}
	}
	return !slices.ContainsFunc(m.Headers, func(h model.NamedMatch) bool { return !headerMatches(h, r) })
}

func headerMatches(m model.NamedMatch, r request) bool {
	name, value, given := strings.Cut(r.header, ":")
	has := given && name == m.Name
	if !has {
		value = ""
	}
	if !has && !m.MissingEmpty {
		return m.Not && m.Match.Kind == model.Present
	}
	return plan.Matches(m.Match, value) != m.Not
}

const guard = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: default}\nspec:\n"

func TestObservedPermissions(t *testing.T) {
	for name, c := range map[string]struct {
		policy   string
		requests []request
	}{
		"nothing": {"  {}", []request{{path: "/", want: "403"}, {path: "/", as: "default/client", want: "403"}}},
		"paths and methods": {`
  rules:
  - to: [{operation: {methods: [GET], paths: ["/ok", "/pre*", "*/suf", "/t/{*}/x", "/d/{**}"]}}]
  - to: [{operation: {notMethods: [GET, POST], notPaths: ["/secret*"]}}]`, []request{
			{path: "/ok", want: "200"}, {path: "/ok/", want: "403"}, {path: "/ok?x=1", want: "200"}, {path: "/OK", want: "403"}, {path: "/prefix/1", want: "200"},
			{path: "/a/suf", want: "200"}, {path: "/t/1/x", want: "200"}, {path: "/t/1/2/x", want: "403"}, {path: "/d/1/2", want: "200"}, {path: "/d/", want: "200"},
			{path: "/ok", method: "POST", want: "403"}, {path: "/any", method: "PUT", want: "200"}, {path: "/secret1", method: "PUT", want: "403"}}},
		"identities": {`
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/client"]}}]
    to: [{operation: {paths: ["/p"]}}]
  - from: [{source: {namespaces: ["other"]}}]
    to: [{operation: {paths: ["/n"]}}]
  - from: [{source: {serviceAccounts: ["client", "other/x"]}}]
    to: [{operation: {paths: ["/s"]}}]
  - from: [{source: {notNamespaces: ["other"]}}]
    to: [{operation: {paths: ["/nn"]}}]`, []request{
			{path: "/p", as: "default/client", want: "200"}, {path: "/p", as: "default/evil", want: "403"}, {path: "/p", want: "403"},
			{path: "/n", as: "other/x", want: "200"}, {path: "/n", as: "default/client", want: "403"}, {path: "/s", as: "default/client", want: "200"},
			{path: "/s", as: "other/client", want: "403"}, {path: "/s", as: "other/x", want: "200"}, {path: "/nn", as: "default/client", want: "200"},
			{path: "/nn", as: "other/x", want: "403"}, {path: "/nn", want: "200"}}},
		"denials": {`
  action: DENY
  rules:
  - from: [{source: {ipBlocks: ["10.9.0.0/16"]}}]
  - from: [{source: {remoteIpBlocks: ["203.0.113.0/24"]}}]
    to: [{operation: {paths: ["/r*"]}}]
  - to: [{operation: {ports: ["8080"], paths: ["/port"]}}]
  - to: [{operation: {hosts: ["bad.example", "*.evil"]}}]
  - when: [{key: "request.headers[x-bad]", values: ["1", "y*"]}]`, []request{
			{path: "/", src: "10.9.1.1", want: "403"}, {path: "/", src: "10.8.1.1", want: "200"}, {path: "/r", src: "203.0.113.7", want: "403"},
			{path: "/r", src: "10.8.1.1", header: "x-forwarded-for:203.0.113.7", want: "403"}, {path: "/port", want: "403"},
			{path: "/", host: "BAD.example", want: "403"}, {path: "/", host: "bad.example:8080", want: "200"}, {path: "/", host: "x.evil", want: "403"},
			{path: "/", header: "x-bad:1", want: "403"}, {path: "/", header: "x-bad:yes", want: "403"}, {path: "/", header: "x-bad:no", want: "200"}}},
	} {
		t.Run(name, func(t *testing.T) {
			out := translatortest.Translate(newTranslator, objects.Input{Name: "in.yaml", Data: []byte(guard + c.policy)})
			a, ok := out.Store.Get(translators.Authz(Plane), "AuthorizationPolicy/default/a").(*model.Authorization)
			if !ok {
				t.Fatalf("no authorization: %s", out.DiagnosticLines())
			}
			for _, r := range c.requests {
				got := "403"
				if slices.ContainsFunc(a.Rules, func(rule model.AuthRule) bool { return ruleMatches(rule, r) }) != a.Deny {
					got = "200"
				}
				if got != r.want {
					t.Errorf("%+v: %s", r, got)
				}
			}
		})
	}
}

// anyOf reports whether one of in matches (if there are any) and none of out.
func anyOf[T any](in, out []T, matches func(T) bool) bool {
	return (len(in) == 0 || slices.ContainsFunc(in, matches)) && !slices.ContainsFunc(out, matches)
}

func ruleMatches(rule model.AuthRule, r request) bool {
	return anyOf(rule.From, nil, func(p model.Peer) bool { return peerMatches(p, r) }) &&
		anyOf(rule.To, nil, func(o model.Operation) bool { return operationMatches(o, r) }) &&
		!slices.ContainsFunc(rule.When, func(c model.Condition) bool {
			return !anyOf(c.Values, c.NotValues, func(m model.StringMatch) bool { return headerMatches(model.NamedMatch{Name: c.Name, Match: m}, r) })
		})
}

func peerMatches(p model.Peer, r request) bool {
	identity := ""
	if ns, sa, ok := strings.Cut(r.as, "/"); ok {
		identity = model.SPIFFE("cluster.local", ns, sa)
	}
	addr, _ := netip.ParseAddr(r.src)
	return anyOf(p.Identities, p.NotIdentities, func(m model.StringMatch) bool { return identity != "" && plan.Matches(m, identity) }) &&
		anyOf(p.IPs, p.NotIPs, func(n netip.Prefix) bool { return n.Contains(addr) })
}

func operationMatches(o model.Operation, r request) bool {
	path, _, _ := strings.Cut(r.path, "?")
	method := r.method
	if method == "" {
		method = "GET"
	}
	on := func(s string) func(model.StringMatch) bool {
		return func(m model.StringMatch) bool { return plan.Matches(m, s) }
	}
	return anyOf(o.Hosts, o.NotHosts, on(strings.ToLower(r.host))) && anyOf(o.Methods, o.NotMethods, on(method)) &&
		anyOf(o.Paths, o.NotPaths, func(m model.StringMatch) bool {
			if m.Kind == model.Template {
				expr := strings.NewReplacer(`\{\*\*\}`, ".*", `\{\*\}`, "[^/]+").Replace(regexp.QuoteMeta(m.Value))
				return regexp.MustCompile("^" + expr + "$").MatchString(path)
			}
			return plan.Matches(m, path)
		}) &&
		anyOf(o.Ports, o.NotPorts, func(p uint16) bool { return p == 8080 })
}
