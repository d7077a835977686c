// SPDX-License-Identifier: Apache-2.0

package blame_test

import (
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
)

const mesh = `apiVersion: v1
kind: Node
metadata: {name: n1, annotations: {fairlead.io/agent: "true"}}
status: {addresses: [{type: InternalIP, address: 10.240.0.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}, {containerPort: 9000}]}]}
status: {podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec: {clusterIP: 10.96.0.2, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

const routes = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match:
    - uri: {regex: "/a(b+)"}
    - uri: {prefix: /get}
    headers: {request: {set: {x-bad-header: value}}}
    route: [{destination: {host: web, port: {number: 80}}}]
  - match:
    - uri: {regex: '/v\d+/(x|y)'}
      headers: {x-user: {exact: jason}}
    route: [{destination: {host: web, port: {number: 80}}}]
  - route: [{destination: {host: web, port: {number: 80}}}]
  tcp:
  - match: [{port: 9000, sourceLabels: {app: web}}]
    route: [{destination: {host: web, port: {number: 9000}}}]
`

const policies = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: paths, namespace: shop}
spec:
  rules:
  - to: [{operation: {paths: [/admin*]}}]
  - to: [{operation: {methods: [GET], hosts: [shop.example.com]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/forbidden]}}]
`

// elsewhere is a pod with a policy that has a rule of "deny", in a namespace that sorts
// before the others.
const elsewhere = `apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: a, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.244.1.3, podIPs: [{ip: 10.244.1.3}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: a}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/forbidden]}}]
`

func load(t *testing.T) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	p.Load(objects.Input{Name: "mesh.yaml", Data: []byte(mesh)}, objects.Input{Name: "routes.yaml", Data: []byte(routes)},
		objects.Input{Name: "policies.yaml", Data: []byte(policies)},
		objects.Input{Name: "elsewhere.yaml", Data: []byte(elsewhere)})
	for _, d := range p.Diagnostics() {
		if d.IsError() {
			t.Fatal(d)
		}
	}
	return p
}

func TestFind(t *testing.T) {
	p := load(t)
	table, _ := p.Get(plan.RouteTables, "shop/web:80").(*plan.RouteTable)
	if table == nil || len(table.Routes) != 4 {
		t.Fatalf("routes %+v", table)
	}
	var policyRule string
	cluster := p.Get(plan.Clusters, "shop/web:80").(*plan.Cluster)
	policyRule = plan.RuleName(cluster.Policy.Deny[0])
	// The table that the pod's port 8080 has on the way in.
	inbound := p.Get(plan.Scopes, "in|10.244.1.2:8080").(*plan.Scope).RouteTable
	listener := ""
	for _, r := range p.Rows(plan.Listeners) {
		if strings.HasPrefix(r.Key, "out/http/") {
			listener = r.Key
		}
	}
	connections := ""
	for _, r := range p.Rows(plan.Clusters) {
		if strings.HasPrefix(r.Key, "tcp|") {
			connections = r.Key
		}
	}

	const (
		match0 = "routes.yaml:8: VirtualService shop/web spec.http[0].match[0]"
		match1 = "routes.yaml:9: VirtualService shop/web spec.http[0].match[1]"
		match2 = "routes.yaml:13: VirtualService shop/web spec.http[1].match[0]"
		last   = "routes.yaml:16: VirtualService shop/web spec.http[2]"
		rule0  = "policies.yaml:6: AuthorizationPolicy shop/paths spec.rules[0]"
		rule1  = "policies.yaml:7: AuthorizationPolicy shop/paths spec.rules[1]"
		deny   = "policies.yaml:15: AuthorizationPolicy shop/deny spec.rules[0]"
	)
	for name, c := range map[string]struct {
		typ, resource, detail string
		want                  []string
		field                 string
	}{
		"the end of an expression, as RE2 says it": {
			xds.RouteType, "shop/web:80", `RouteConfiguration shop/web:80: missing ): (b+`,
			[]string{match0 + ".uri.regex"}, "spec.http[0].match[0].uri.regex"},
		"a whole expression in quotes": {
			xds.RouteType, "shop/web:80", `regex '/v\d+/(x|y)' RE2 program size of 1200 > max program size of 100 set for the error level threshold.`,
			[]string{match2 + ".uri.regex"}, "spec.http[1].match[0].uri.regex"},
		"an expression as Go quotes it": {
			xds.RouteType, "shop/web:80", `render route table shop/web:80: path: regular expression "/v\\d+/(x|y)": too long`,
			[]string{match2 + ".uri.regex"}, "spec.http[1].match[0].uri.regex"},
		"the place in protobuf's words": {
			xds.RouteType, "shop/web:80", `Proto constraint validation failed (RouteConfigurationValidationError.VirtualHosts[0]: embedded message failed validation | caused by VirtualHostValidationError.Routes[3]: embedded message failed validation)`,
			[]string{last}, ""},
		"a place that is not there": {
			xds.RouteType, "shop/web:80", `VirtualHostValidationError.Routes[99999999999999999999]: bad`,
			[]string{match0, match1, match2, last}, ""},
		"a route's id": {
			xds.RouteType, "shop/web:80", "render route table shop/web:80: route 2 (" + table.Routes[2].ID + "): no",
			[]string{match2}, ""},
		"a name that is a key of the object, and of two routes": {
			xds.RouteType, "shop/web:80", `invalid header name: x-bad-header`,
			[]string{`routes.yaml:10: VirtualService shop/web spec.http[0].headers.request.set.x-bad-header`}, "spec.http[0].headers.request.set.x-bad-header"},
		"a word in quotes": {
			xds.RouteType, "shop/web:80", `bad value 'jason'`,
			[]string{`routes.yaml:14: VirtualService shop/web spec.http[1].match[0].headers.x-user.exact`}, "spec.http[1].match[0].headers.x-user.exact"},
		"no hint: everything": {
			xds.RouteType, "shop/web:80", "something is wrong with RouteConfiguration shop/web:80",
			[]string{match0, match1, match2, last}, ""},
		"words that only look like values": {
			xds.RouteType, "shop/web:80", "the exact value of get is a jason",
			[]string{match0, match1, match2, last}, ""},
		"a table that nobody routes": {
			xds.RouteType, "shop/plain:80", "bad", []string{"mesh.yaml:24: Service shop/plain"}, ""},
		"a path of a policy in a cluster": {
			xds.ClusterType, "shop/web:80", "Error adding/updating cluster(s) shop/web:80: bad prefix '/admin'",
			[]string{"policies.yaml:6: AuthorizationPolicy shop/paths spec.rules[0].to[0].operation.paths[0]"}, "spec.rules[0].to[0].operation.paths[0]"},
		"the name of a rule": {
			xds.ClusterType, "shop/web:80", "RBAC policy " + policyRule + " is bad", []string{deny}, ""},
		"a cluster without a hint": {
			xds.ClusterType, "shop/web:80", "Error adding/updating cluster(s) shop/web:80: no",
			[]string{deny, rule0, rule1, "routes.yaml:5: VirtualService shop/web spec.hosts[0]"}, ""},
		"a policy on the way in": {
			xds.RouteType, inbound, "cannot take /forbidden here",
			[]string{"policies.yaml:15: AuthorizationPolicy shop/deny spec.rules[0].to[0].operation.paths[0]"}, "spec.rules[0].to[0].operation.paths[0]"},
		"endpoints": {
			xds.EndpointType, "shop/plain:80", "malformed IP address: x", []string{"mesh.yaml:24: Service shop/plain"}, ""},
		"a scope":               {xds.ScopeType, "10.96.0.2:80", "conflict", []string{"mesh.yaml:24: Service shop/plain"}, ""},
		"a listener":            {xds.ListenerType, listener, "cannot bind '127.0.0.1:15100'", []string{"mesh.yaml:10: Pod shop/web-0"}, ""},
		"the inbound listener":  {xds.ListenerType, "in/http", "cannot bind", nil, ""},
		"what is not there":     {xds.RouteType, "shop/none:80", "bad", nil, ""},
		"a type that is no row": {"type.googleapis.com/x.Y", "shop/web:80", "bad", nil, ""},
		"a cluster of connections": {
			xds.ClusterType, connections, "bad", []string{"routes.yaml:18: VirtualService shop/web spec.tcp[0].match[0]"}, ""},
	} {
		got := blame.Find(p, c.typ, c.resource, c.detail)
		var texts []string
		for _, s := range got.Sources {
			texts = append(texts, s.String())
		}
		want := slices.Clone(c.want)
		slices.Sort(texts)
		slices.Sort(want)
		if !slices.Equal(texts, want) || got.Field != c.field {
			t.Errorf("%s: field %q, value %q, sources\n\t%s\nwant field %q, sources\n\t%s", name, got.Field, got.Value,
				strings.Join(texts, "\n\t"), c.field, strings.Join(want, "\n\t"))
		}
	}
}

func TestFrontendKey(t *testing.T) {
	for name, want := range map[string]string{
		"shop/web:80":                       "shop/web:80",
		"shop/web:80@6":                     "shop/web:80",
		"missing/shop/web:80/0123456789abc": "shop/web:80",
		"mirror/shop/web:8080+grpc~ab@6":    "shop/web:8080",
		"shop/host/*.example.com:443":       "shop/host/*.example.com:443",
		"in|shop/web-1:8080":                "",
		"shop/web:":                         "",
		"shop/web:99999":                    "",
	} {
		if got := blame.FrontendKey(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
