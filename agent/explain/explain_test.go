// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
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
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-2, port: 443, targetPort: 8080}, {name: udp, port: 53, protocol: UDP}]
`

func load(t *testing.T, more string) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	p.Load(objects.Input{Name: "mesh.yaml", Data: []byte(mesh)}, objects.Input{Name: "more.yaml", Data: []byte(more)})
	return p
}

func TestTargets(t *testing.T) {
	for in, want := range map[string]explain.Target{
		"shop/web":               {Namespace: "shop", Name: "web"},
		"shop/web:80":            {Namespace: "shop", Name: "web", Port: 80},
		"shop/api.example.com:1": {Namespace: "shop", Name: "api.example.com", Port: 1},
		"":                       {}, "shop": {}, "/web": {}, "shop/": {}, "a/b/c": {}, "a/b:": {}, "a/b:x": {}, "a/b:0": {}, "a/b:65536": {},
	} {
		got, err := explain.ParseTarget(in)
		if got != want || (err == nil) != (want.Name != "") {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
		if err == nil && got.String() != in {
			t.Errorf("%q reads back as %q", in, got)
		}
	}
}

// A service and a pod may share their name; a port asks for the service's alone.
func TestWhatATargetNames(t *testing.T) {
	p := load(t, "")
	for in, want := range map[string]string{
		"shop/web":     "[shop/web:53 shop/web:80 shop/web:443] true",
		"shop/web:443": "[shop/web:443] false",
		"shop/web:81":  "there is no service or host shop/web:81; there are shop/web:443, shop/web:53, shop/web:80",
		"shop/other":   "there is no service, host or pod shop/other; there are shop/web",
	} {
		target, err := explain.ParseTarget(in)
		if err != nil {
			t.Fatal(err)
		}
		a, err := explain.Explain(p, target)
		got := ""
		if err != nil {
			var none *explain.NotFoundError
			if got = err.Error(); !errors.As(err, &none) || none.Target != target {
				t.Errorf("%s: error %#v", in, err)
			}
		} else {
			var keys []string
			for _, f := range a.Frontends {
				keys = append(keys, f.Key)
			}
			got = fmt.Sprint(keys, a.Pod != nil)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Every resource that the plan has for the service and its pod is known to be theirs.
func TestResourcesOfAnAnswer(t *testing.T) {
	p := load(t, `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {rules: [{to: [{operation: {paths: [/ok]}}]}]}
`)
	a, err := explain.Explain(p, explain.Target{Namespace: "shop", Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	got := a.Resources()
	short := map[string]string{string(plan.Clusters): "Cluster", string(plan.Endpoints): "ClusterLoadAssignment",
		string(plan.RouteTables): "RouteConfiguration", string(plan.Scopes): "ScopedRouteConfiguration", string(plan.Listeners): "Listener"}
	n := 0
	for _, table := range plan.EnvoyTables() {
		for _, row := range p.Rows(table) {
			if slices.Contains([]string{"in/http", "in|10.244.1.2:8080"}, row.Key) {
				continue // of every pod of the node, and only a way to the table that is named
			}
			if n++; !got[short[string(table)]+" "+row.Key] {
				t.Errorf("%s %s is missing in %v", table, row.Key, got)
			}
		}
	}
	if n < 8 || len(got) != n {
		t.Errorf("%d resources, want %d: %v", len(got), n, got)
	}
	c := a.Frontends[1].Clusters
	if len(c) != 1 || c[0].Policy == nil || c[0].Policy.Allow[0][0].Sources[0].Object() != "AuthorizationPolicy shop/p" || c[0].Endpoints[0].Pod != "shop/web" {
		t.Errorf("clusters %+v", c)
	}
	if r := a.Frontends[1].Routing; r == nil || r.Basis != model.ByAuthority || r.Unknown != model.UnknownPass {
		t.Errorf("routing %+v", r)
	}
}

// TestInboundOfAPod: what decides where requests come in is told with its sources, and
// clusters say that nothing is judged on the way.
func TestInboundOfAPod(t *testing.T) {
	p := load(t, `apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, port: 8080, proxyProtocol: HTTP/1}
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: open, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules: [{matches: [{path: {value: /open}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: open}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: client}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: web, namespace: shop}
spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: web}, total: {requestsPerSecond: 7}}
`)
	a, err := explain.Explain(p, explain.Target{Namespace: "shop", Name: "web"})
	if err != nil || a.Pod == nil {
		t.Fatalf("%+v, %v", a, err)
	}
	i := slices.IndexFunc(a.Pod.Ports, func(p explain.PodPort) bool { return p.Port == 8080 })
	if i < 0 || a.Pod.Ports[i].Inbound == nil || a.Pod.Ports[i].Judged != "inbound" {
		t.Fatalf("ports %+v", a.Pod.Ports)
	}
	in := a.Pod.Ports[i].Inbound
	if len(in.Routes) == 0 || in.RateLimit.Total != 7 || !slices.ContainsFunc(in.Sources, func(s model.Source) bool { return s.Kind == "HTTPLocalRateLimitPolicy" }) {
		t.Errorf("inbound %+v", in)
	}
	for _, r := range in.Routes {
		if len(r.Sources) != 1 || r.Sources[0].Object() != "HTTPRoute shop/open" || len(r.Allow) == 0 || len(r.Allow[0].Sources) == 0 {
			t.Errorf("route %+v", r)
		}
	}
	for _, c := range a.Frontends[1].Clusters {
		if !c.Inbound || c.Checked || c.Policy != nil {
			t.Errorf("cluster %+v", c)
		}
	}
}

// TestEqualRulesOfTwoNamespaces: one rule is written for the service's pods and, in a
// namespace that sorts before, for others. Only the former decides here.
func TestEqualRulesOfTwoNamespaces(t *testing.T) {
	const policy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-%[1]s, namespace: %[1]s}
spec: {rules: [{to: [{operation: {paths: [/ok]}}]}]}
---
`
	p := load(t, `apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.244.1.3, podIPs: [{ip: 10.244.1.3}]}
---
`+fmt.Sprintf(policy, "a")+fmt.Sprintf(policy, "shop"))
	a, err := explain.Explain(p, explain.Target{Namespace: "shop", Name: "web"})
	if err != nil || a.Pod.Policy == nil || len(a.Frontends) != 3 || len(a.Frontends[1].Clusters) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	for of, policy := range map[string]*explain.Policy{"pod": a.Pod.Policy, "cluster": a.Frontends[1].Clusters[0].Policy} {
		if got := policy.Allow[0][0].Sources; len(got) != 1 || got[0].Object() != "AuthorizationPolicy shop/of-shop" {
			t.Errorf("the %s's rule is of %v", of, got)
		}
	}
}

// TestHostSpeaksAsTheClient: where nobody says what a host speaks, the plan has the
// client's own protocol spoken, and so it is told.
func TestHostSpeaksAsTheClient(t *testing.T) {
	p := load(t, `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: example, namespace: shop}
spec:
  hosts: [www.example.com]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
`)
	a, err := explain.Explain(p, explain.Target{Namespace: "shop", Name: "www.example.com", Port: 80})
	if err != nil || len(a.Frontends) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if got := a.Frontends[0].App; got != model.AppDetect {
		t.Errorf("speaks %q", got)
	}
}
