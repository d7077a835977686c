// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

func tables(t *testing.T, manifests ...string) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	p.Load(objects.Input{Name: "manifests.yaml", Data: []byte(strings.Join(manifests, "\n---\n"))})
	for _, d := range p.Diagnostics() {
		if d.IsError() && d.Outcome == model.Refused {
			t.Fatalf("the manifests are wrong: %v", d)
		}
	}
	return p
}

func base(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func virtualService(http string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], http: [" + http + "]}"
}

func authorization(spec string) string {
	return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: web, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}, " + spec + "}"
}

func server(more string) string {
	return "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: web, namespace: shop}\nspec: {podSelector: {matchLabels: {app: web}}, port: 8080, proxyProtocol: HTTP/1, accessPolicy: all-unauthenticated}\n---\n" + more
}

func rateLimit(n string) string {
	return server("apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: web, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: web}, total: {requestsPerSecond: " + n + "}}")
}

func tls(wide, narrow string, port int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {clusterIP: 10.96.0.9, selector: {app: web}, ports: [{name: tls, port: 443}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s, namespace: shop}\nspec: {hosts: [s, a.b.example, b.b.example, '*.example'], tls: [{match: [{sniHosts: [%s]}], route: [{destination: {host: s}}]}, {match: [{sniHosts: [%s]}], route: [{destination: {host: web, port: {number: %d}}}]}]}", wide, narrow, port)
}

func tcp(routes string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], tcp: [" + routes + "]}"
}

func declared(addresses string) string {
	return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: far, namespace: shop}\nspec: {hosts: [far.example], resolution: STATIC, location: MESH_EXTERNAL, ports: [{number: 80, name: http, protocol: HTTP}], addresses: " + addresses + "}"
}

const toWeb = "route: [{destination: {host: web}}]"

// TestDifferencesAreFound compares configurations that differ in what becomes of some
// request, if only in one that few matches are about.
func TestDifferencesAreFound(t *testing.T) {
	text := base(t)
	changed := func(old, new string) string {
		out := strings.Replace(text, old, new, 1)
		if out == text {
			t.Fatalf("%q is not in the manifests", old)
		}
		return out
	}
	for _, c := range []struct {
		name, old, new string
		want           string // of one change; "WIDENS" and "NARROWS" are of permissions
	}{
		{"two conditions at once",
			virtualService("{match: [{uri: {prefix: /a}}], timeout: 1s, " + toWeb + "}, {match: [{headers: {x: {exact: '1'}}}], timeout: 2s, " + toWeb + "}, {" + toWeb + "}"),
			virtualService("{match: [{headers: {x: {exact: '1'}}}], timeout: 2s, " + toWeb + "}, {match: [{uri: {prefix: /a}}], timeout: 1s, " + toWeb + "}, {" + toWeb + "}"),
			"timeout"},
		{"a prefix before an expression",
			virtualService("{match: [{headers: {x: {prefix: a}}}], timeout: 1s, " + toWeb + "}, {match: [{headers: {x: {regex: '.*b'}}}], " + toWeb + "}, {timeout: 1s, " + toWeb + "}"),
			virtualService("{match: [{headers: {x: {regex: '.*b'}}}], " + toWeb + "}, {timeout: 1s, " + toWeb + "}"),
			"timeout"},
		{"the same rewrite of another prefix",
			virtualService("{match: [{uri: {prefix: /api/}}], rewrite: {uri: /}, " + toWeb + "}, {" + toWeb + "}"),
			virtualService("{match: [{uri: {prefix: /api/v1/}}], rewrite: {uri: /}, " + toWeb + "}, {match: [{uri: {prefix: /api/}}], rewrite: {uri: /}, " + toWeb + "}, {" + toWeb + "}"),
			"path"},
		{"a mirror of another port",
			virtualService("{mirror: {host: web, port: {number: 80}}, " + toWeb + "}"), virtualService("{mirror: {host: web, port: {number: 90}}, " + toWeb + "}"), "mirrors"},
		{"clients with two labels",
			virtualService("{match: [{sourceLabels: {app: client}}], timeout: 1s, " + toWeb + "}, {match: [{sourceLabels: {version: v1}}], timeout: 2s, " + toWeb + "}, {" + toWeb + "}"),
			virtualService("{match: [{sourceLabels: {version: v1}}], timeout: 2s, " + toWeb + "}, {match: [{sourceLabels: {app: client}}], timeout: 1s, " + toWeb + "}, {" + toWeb + "}"),
			"timeout"},
		{"a deny of a header and a path",
			authorization("action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}], when: [{key: 'request.headers[x]', values: [a]}]}]"), "", "WIDENS"},
		{"a deny but for a method",
			authorization("action: DENY, rules: [{to: [{operation: {notMethods: [GET]}}]}]"), "", "WIDENS"},
		{"a deny of unusual methods",
			authorization("action: DENY, rules: [{to: [{operation: {notMethods: [GET, POST]}}]}]"), "", "WIDENS"},
		{"a deny of a header that is missing",
			authorization("action: DENY, rules: [{to: [{operation: {paths: [/a]}}], when: [{key: 'request.headers[x]', notValues: [a]}]}]"), "", "WIDENS"},
		{"a deny of another path", authorization("action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]"),
			authorization("action: DENY, rules: [{to: [{operation: {paths: [/b]}}]}]"), "WIDENS"},
		{"expressions that no text tells apart", virtualService("{match: [{uri: {regex: '/[a-m]'}}], timeout: 1s, " + toWeb + "}, {" + toWeb + "}"),
			virtualService("{match: [{uri: {regex: '/[a-k]'}}], timeout: 1s, " + toWeb + "}, {" + toWeb + "}"), "not known whether"},
		{"a deny of a template", authorization("action: DENY, rules: [{to: [{operation: {paths: ['/a/{*}/b']}}]}]"), "", "WIDENS"},
		{"an allow of another template", authorization("rules: [{to: [{operation: {paths: ['/a/{*}']}}]}]"), authorization("rules: [{to: [{operation: {paths: ['/a/{**}']}}]}]"), "WIDENS"},
		{"the address of one pod of two", authorization("action: DENY, rules: [{from: [{source: {ipBlocks: [10.244.1.12]}}]}]"), "", "WIDENS"},
		{"a network with a hole", authorization("rules: [{from: [{source: {ipBlocks: [198.51.100.0/25]}}]}]"),
			authorization("rules: [{from: [{source: {ipBlocks: [198.51.100.0/24]}}]}]"), "WIDENS"},
		{"a network of IPv6", authorization("rules: [{from: [{source: {ipBlocks: ['2001:db8::/64']}}]}]"),
			authorization("rules: [{from: [{source: {ipBlocks: ['2001:db8::/32']}}]}]"), "WIDENS"},
		{"datagrams", authorization("rules: [{from: [{source: {namespaces: [shop]}}]}]"), authorization("rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ['8080', '9000', '53']}}]}, {to: [{operation: {ports: ['1']}}]}]"), "NARROWS"},
		{"another port of the pods", text, changed("targetPort: 9000}", "targetPort: 9001}"), ""},
		{"fewer endpoints", text, changed("conditions: {ready: true}, targetRef", "conditions: {ready: false}, targetRef"), "endpoints"},
		{"another port behind the service", text, changed("{name: tcp, port: 9000, protocol: TCP}, {name: dns", "{name: tcp, port: 9001, protocol: TCP}, {name: dns"), "endpoints"},
		{"another port of datagrams behind the service", text, changed("{name: dns, port: 53, protocol: UDP}]\nendpoints", "{name: dns, port: 54, protocol: UDP}]\nendpoints"), "endpoints"},
		{"a port of datagrams", text, changed("{name: dns, port: 53, protocol: UDP}]\n---", "{name: dns, port: 54, protocol: UDP}]\n---"), "there"},
		{"a service without address", text, changed("clusterIP: 10.96.0.1\n  clusterIPs: [10.96.0.1]", "clusterIP: None"), "addresses"},
		{"another address of a declared service", declared("[192.0.2.1], endpoints: [{address: 192.0.2.8}]"), declared("[192.0.2.2], endpoints: [{address: 192.0.2.8}]"), "addresses"},
		{"an endpoint of a declared service", declared("[192.0.2.1], endpoints: [{address: 192.0.2.8}]"), declared("[192.0.2.1], endpoints: [{address: 192.0.2.9}]"), "endpoints"},
		{"affinity", text, changed("  selector: {app: web}\n", "  selector: {app: web}\n  sessionAffinity: ClientIP\n"), "affinity"},
		{"clients that are not captured any more", text, changed(", labels: {istio-injection: enabled}", ""), "captured"},
		{"another identity", text, changed("serviceAccountName: web", "serviceAccountName: other"), "identity"},
		{"connections of clients in another order",
			tcp("{match: [{sourceLabels: {app: client}}], route: [{destination: {host: web, port: {number: 90}}}]}, {match: [{sourceLabels: {version: v1}}], route: [{destination: {host: web, port: {number: 80}}}]}, {route: [{destination: {host: web, port: {number: 90}}}]}"),
			tcp("{match: [{sourceLabels: {version: v1}}], route: [{destination: {host: web, port: {number: 80}}}]}, {match: [{sourceLabels: {app: client}}], route: [{destination: {host: web, port: {number: 90}}}]}, {route: [{destination: {host: web, port: {number: 90}}}]}"),
			"backends"},
		{"another server name", tls("'*.example'", "a.b.example", 80), tls("'*.example'", "b.b.example", 80), "backends"},
		{"connections by weight", tcp("{route: [{destination: {host: web, port: {number: 90}}, weight: 1}, {destination: {host: web, port: {number: 80}}, weight: 1}]}"),
			tcp("{route: [{destination: {host: web, port: {number: 90}}, weight: 1}, {destination: {host: web, port: {number: 80}}, weight: 3}]}"), "backends"},
		{"a rate limit", rateLimit("10"), rateLimit("20"), "WIDENS"},
		{"a rate limit that is gone", rateLimit("10"), server(""), "WIDENS"},
		{"a traffic policy", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec: {host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}", "", "with limits"},
		{"hosts that nobody knows, for some clients",
			"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: shop}\nspec: {workloadSelector: {labels: {app: client}}, outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
			"", "unknown hosts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			side := func(s string) *pipeline.Pipeline {
				if strings.Contains(s, "kind: Node") {
					return tables(t, s)
				}
				return tables(t, text, s)
			}
			r := diff.Compare(side(c.old), side(c.new))
			got := told(r)
			if c.want == "" && !r.Empty() {
				t.Errorf("there is no difference, but it is told\n%s", got)
			}
			if !strings.Contains(got, c.want) || c.want != "" && r.Empty() {
				t.Errorf("%q is not told, but\n%s", c.want, got)
			}
		})
	}
}

func told(r *diff.Report) string {
	var b strings.Builder
	for _, c := range r.Routes {
		for _, x := range c.Changes {
			b.WriteString(c.Frontend + " " + c.For + " " + c.Example + ": " + x.What + ": " + x.Old + " -> " + x.New + "\n")
		}
	}
	for _, e := range r.Entities {
		for _, x := range e.Changes {
			b.WriteString(e.Kind + " " + e.Name + ": " + x.What + ": " + x.Old + " -> " + x.New + "\n")
		}
	}
	for _, p := range r.Permissions {
		b.WriteString(strings.ToUpper(string(p.Effect)) + " " + strings.Join(p.From, ",") + " " + p.Example + "\n")
	}
	return b.String()
}

// TestOtherWritingIsNoDifference compares configurations that mean the same.
func TestOtherWritingIsNoDifference(t *testing.T) {
	text := base(t)
	for _, c := range []struct{ name, old, new string }{
		{"matches in another order",
			virtualService("{match: [{uri: {exact: /a}}], timeout: 1s, " + toWeb + "}, {match: [{uri: {exact: /b}}], timeout: 2s, " + toWeb + "}, {" + toWeb + "}"),
			virtualService("{match: [{uri: {exact: /b}}], timeout: 2s, " + toWeb + "}, {match: [{uri: {exact: /a}}], timeout: 1s, " + toWeb + "}, {" + toWeb + "}")},
		{"weights", virtualService("{route: [{destination: {host: web}, weight: 1}, {destination: {host: web, port: {number: 80}}, weight: 1}]}"), virtualService("{" + toWeb + "}")},
		{"rules apart", authorization("rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {methods: [POST]}}]}]"),
			authorization("rules: [{to: [{operation: {methods: [GET, POST]}}]}]")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := diff.Compare(tables(t, text, c.old), tables(t, text, c.new)); !r.Empty() {
				t.Errorf("told\n%s", told(r))
			}
		})
	}
}

// TestManyRoutesAreCompared is about how long it takes.
func TestManyRoutesAreCompared(t *testing.T) {
	text := base(t)
	routes := func(last string) string {
		var b strings.Builder
		for i := range 500 {
			fmt.Fprintf(&b, "{match: [{uri: {prefix: /a%d/}, headers: {x%d: {exact: y}}}], timeout: %ds, %s}, ", i, i%10, i+1, toWeb)
		}
		return virtualService(b.String() + "{timeout: " + last + ", " + toWeb + "}")
	}
	begin := time.Now()
	r := diff.Compare(tables(t, text, routes("1s")), tables(t, text, routes("2s")))
	if len(r.Routes) != 1 || !strings.Contains(told(r), "timeout: 1s -> 2s") {
		t.Errorf("told\n%s", told(r))
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("it took %s", d)
	}
	t.Logf("%d requests in %s", r.Asked, time.Since(begin))
}
