// SPDX-License-Identifier: Apache-2.0

package pipeline_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators/objects"
)

const node = "node-1"

// more is what the demo has no use for: faults of users, and planes that disagree.
const more = `
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {istio-injection: enabled}, annotations: {fairlead.io/default-deny: smi}}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop, labels: {app: reviews, version: v1}}
spec: {nodeName: node-1, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 9000}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: other, labels: {app: db}}
spec: {nodeName: node-1, containers: [{name: c, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: other}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}, {name: http-admin, port: 80, targetPort: 8081}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ranges, namespace: other}
spec:
  action: DENY
  rules: [{from: [{source: {notIpBlocks: [10.244.1.0/24, "fd44::/16"]}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost, namespace: other}
spec: {hosts: [db], http: [{match: [{sourceLabels: {app: frontend}}], route: [{destination: {host: nobody}}]}, {route: [{destination: {host: db}}], mirror: {host: reviews.shop.svc.cluster.local}}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: other}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers-too, namespace: other}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: any, namespace: other}
spec: {selector: {app: db}, ports: [{port: 9000}, {name: tls, port: 443}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: any, namespace: other}
spec:
  hosts: [any.other.svc.cluster.local, www.example.com]
  http: [{route: [{destination: {host: any}}]}]
  tcp: [{match: [{sourceLabels: {app: frontend}}], route: [{destination: {host: db}}]}]
  tls: [{match: [{sniHosts: [www.example.com]}], route: [{destination: {host: any}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: other}
spec: {hosts: ["*.example.com"], http: [{route: [{destination: {host: db}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: admin, namespace: other}
spec:
  parentRefs: [{group: "", kind: Service, name: db}]
  rules:
  - matches: [{path: {value: /api/}, method: GET}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 9000}}]
  - backendRefs: [{name: db, port: 80, weight: 75}, {name: nobody, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: other}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, namespace: shop}]
  rules: [{backendRefs: [{name: reviews, namespace: shop, port: 80}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: other}
spec: {hosts: [api.example.org], addresses: [192.0.2.0/24], resolution: STATIC, endpoints: [{address: 10.8.0.1, labels: {version: v1}}], ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: other}
spec: {host: db, trafficPolicy: {connectionPool: {tcp: {maxConnections: 75}}, loadBalancer: {consistentHash: {httpHeaderName: x-user}}}, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: other}
spec: {egress: [{hosts: ["./*", "shop/*"]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: other}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Namespace
metadata: {name: linked, annotations: {linkerd.io/inject: enabled, config.linkerd.io/default-inbound-policy: all-unauthenticated}}
---
apiVersion: v1
kind: Pod
metadata: {name: pay, namespace: linked, labels: {app: pay}}
spec: {nodeName: node-1, serviceAccountName: pay, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: linked, annotations: {retry.linkerd.io/http: 5xx}}
spec: {selector: {app: pay}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: pay, namespace: linked}
spec: {podSelector: {matchLabels: {app: pay}}, port: http, proxyProtocol: HTTP/1}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: pay, namespace: linked}
spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: pay}, requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: NetworkAuthentication, name: near}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: near, namespace: linked}
spec: {networks: [{cidr: 10.244.1.0/24}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: pay, namespace: linked}
spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: pay}, total: {requestsPerSecond: 75}}
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: pay, namespace: linked}
spec:
  parentRefs: [{group: core, kind: Service, name: pay, port: 80}]
  rules: [{matches: [{path: {value: /api/}, method: GET}], backendRefs: [{name: pay, port: 80}]}]
---
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: pay.linked.svc.cluster.local, namespace: other}
spec: {routes: [{name: api, condition: {method: GET, pathRegex: /api/.*}, isRetryable: true}]}
---
apiVersion: example.com/v1
kind: Unheard
metadata: {name: of, namespace: other}
`

// world is every object as a file of its own, its pods placed on two nodes.
func world(t *testing.T) []objects.Input {
	t.Helper()
	in := objects.Files([]string{"../../conformance/demo"}, nil)
	in = append(in, objects.Input{Name: "more.yaml", Data: []byte(more)})
	files := cluster.Offline(in, []string{node, "node-2"})
	if len(files) < 30 {
		t.Fatalf("just %d files", len(files))
	}
	return files
}

func start(t *testing.T) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dump prints the plan, what it becomes for Envoy, and what is said about it.
func dump(t *testing.T, p *pipeline.Pipeline) []string {
	t.Helper()
	var out []string
	for _, table := range append(plan.Tables(), plan.Origins, plan.Governance) {
		for _, r := range p.Rows(table) {
			out = append(out, fmt.Sprintf("%s %s %s", table, r.Key, model.Bytes(r.Value)))
		}
	}
	resources, _, err := agent.Render(p)
	if err != nil {
		t.Error(err)
	}
	for _, r := range resources {
		out = append(out, fmt.Sprintf("%s %s %s %x", r.Type, r.Name, r.Version, r.Body))
	}
	for _, d := range p.Diagnostics() {
		out = append(out, fmt.Sprintf("%+v", d))
	}
	return out
}

// edits change a text into another that is as valid.
var edits = [][2]string{
	{"weight: 75", "weight: 60"}, {"version: v1", "version: v2"}, {"version: v2", "version: v1"}, {"/api/", "/other/"}, {"GET", "POST"},
	{"10.244.1.0/24", "10.244.2.0/24"}, {"sa/frontend", "sa/batch"}, {`status: "True"`, `status: "False"`}, {"name: http", "name: tcp"},
	{"fairlead.io/default-deny: smi", "fairlead.io/control-plane: smi"}, {"istio-injection: enabled", "istio-injection: disabled"},
	{"fairlead.io/route-by: destination", "fairlead.io/route-by: authority"}, {"fairlead.io/route-by: authority", "fairlead.io/unknown-hosts: refuse"},
	{"linkerd.io/inject: enabled", "linkerd.io/inject: disabled"}, {"default-inbound-policy: all-unauthenticated", "default-inbound-policy: deny"},
	{"retry.linkerd.io/http: 5xx", "retry.linkerd.io/limit: \"3\""}, {"mode: STRICT", "mode: PERMISSIVE"}, {`"shop/*"`, `"~/*"`}, {"75", "7"},
	{"app: pay", "app: db"}, {"resolution: STATIC", "resolution: DNS"},
	{"clusterIP: None, ", ""}, {"port: 9000", "port: 3306"},
	{"10.244.1.11\n", "10.244.1.99\n"}, {"app: frontend", "app: batch"}, {"port: 80\n", "port: 81\n"},
}

// Whatever is done to the files, one after the other, the plan is the one that these
// files give to a pipeline that knew none of the others.
func TestEditsEqualScratch(t *testing.T) {
	all := world(t)
	rng := rand.New(rand.NewPCG(3, 4))
	now := map[string]objects.Input{}
	p := start(t)
	load := func(p *pipeline.Pipeline) {
		// In the order of names, as a folder is read: it says which object is older.
		names := slices.Sorted(maps.Keys(now))
		in := make([]objects.Input, len(names))
		for i, n := range names {
			in[i] = now[n]
		}
		p.Load(in...)
	}
	seen := map[plan.Mode]bool{}
	for step := range 120 {
		for range 1 + rng.IntN(4) {
			f := all[rng.IntN(len(all))]
			switch had, ok := now[f.Name]; {
			case !ok || rng.IntN(4) == 0:
				now[f.Name] = f
			case rng.IntN(3) == 0:
				delete(now, f.Name)
			default:
				for _, e := range edits {
					if rng.IntN(3) == 0 {
						had.Data = bytes.ReplaceAll(had.Data, []byte(e[0]), []byte(e[1]))
					}
				}
				now[f.Name] = had
			}
		}
		if step == 60 { // everything at once
			for _, f := range all {
				now[f.Name] = f
			}
		}
		load(p)
		scratch := start(t)
		load(scratch)
		if d := cmp.Diff(dump(t, scratch), dump(t, p)); d != "" {
			t.Fatalf("after %d steps (-scratch +edited):\n%.4000s", step, d)
		}
		for _, r := range p.Rows(plan.Services) {
			seen[r.Value.(*plan.Service).Mode] = true
		}
	}
	for _, m := range []plan.Mode{plan.Kernel, plan.HTTP, plan.TLS, plan.Opaque, plan.Any, plan.Detect} {
		if !seen[m] {
			t.Errorf("the edits never came to mode %s", m)
		}
	}
}

func TestAddThenDeleteLeavesNothing(t *testing.T) {
	p := start(t)
	nothing := dump(t, p) // but what every proxy has
	p.Load(world(t)...)
	if n := len(dump(t, p)); n < 100 {
		t.Fatalf("just %d rows", n)
	}
	p.Load()
	if left := dump(t, p); !slices.Equal(left, nothing) || p.Objects() != 0 {
		t.Errorf("%d objects and\n%s", p.Objects(), strings.Join(left, "\n"))
	}
}

func TestIdleReloadComputesNothing(t *testing.T) {
	p := start(t)
	p.Load(world(t)...)
	before := p.Computed()
	if changes := p.Load(world(t)...); len(changes) != 0 {
		t.Errorf("%d changes, the first %+v", len(changes), changes[0])
	}
	if d := cmp.Diff(before, p.Computed()); d != "" {
		t.Errorf("computed:\n%s", d)
	}
}

func TestShuffledFilesGiveTheSamePlan(t *testing.T) {
	files := world(t)
	p := start(t)
	p.Load(files...)
	want := dump(t, p)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 5 {
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		p := start(t)
		p.Load(files...)
		if d := cmp.Diff(want, dump(t, p)); d != "" {
			t.Fatalf("in another order:\n%.4000s", d)
		}
	}
}
