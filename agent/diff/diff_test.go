// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"fmt"
	"os"
	"slices"
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

// undeclared is a service, with or without an address, whose port nobody says the
// protocol of.
func undeclared(clusterIP, more string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: u, namespace: shop}\nspec: {clusterIP: " + clusterIP + ", selector: {app: web}, ports: [{name: u, port: 9000}]}\n---\n" +
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: u-1, namespace: shop, labels: {kubernetes.io/service-name: u}}\naddressType: IPv4\nports: [{name: u, port: 9000, protocol: TCP}]\n" +
		"endpoints: [{addresses: [10.244.1.13], conditions: {ready: true}, targetRef: {kind: Pod, name: web, namespace: shop}}]\n---\n" + more
}

func streams(port int) string { return streamsOf("u", port) }

func streamsOf(host string, port int) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: u, namespace: shop}\nspec: {hosts: [%s], tcp: [{route: [{destination: {host: web, port: {number: %d}}}]}]}", host, port)
}

func anywhere(more string) string {
	return "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: far, namespace: shop}\nspec: {hosts: [far.example], resolution: NONE, location: MESH_EXTERNAL, ports: [{number: 9000, name: x, protocol: TCP}]}\n---\n" + more
}

const requestsOfUndeclared = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: shop}\nspec: {hosts: [u], http: [{timeout: 1s, route: [{destination: {host: u}}]}]}\n---\n"

func detection(wait string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'protocolDetectionTimeout: " + wait + "'}"
}

// byLinkerd gives the namespace to Linkerd, which reads the first bytes to every port.
func byLinkerd(text string) string {
	return strings.Replace(text, "name: shop, labels: {istio-injection: enabled}", "name: shop, labels: {istio-injection: enabled}, annotations: {fairlead.io/control-plane: linkerd}", 1)
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
		{"a fault", virtualService("{fault: {delay: {percentage: {value: 10}, fixedDelay: 2s}}, " + toWeb + "}"), virtualService("{fault: {delay: {percentage: {value: 10}, fixedDelay: 2s}, abort: {percentage: {value: 0.5}, httpStatus: 418}}, " + toWeb + "}"),
			"fault: 10 % delayed by 2s -> 10 % delayed by 2s, 0.5 % aborted with 418"},
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
		{"connections to a port of undeclared protocol", undeclared("10.96.0.9", streams(90)), undeclared("10.96.0.9", streams(80)), "connections: backends: shop/web:90 -> shop/web:80"},
		{"connections to a headless port of undeclared protocol", undeclared("None", streams(90)), undeclared("None", streams(80)), "connections: backends: shop/web:90 -> shop/web:80"},
		{"how long the first bytes are waited for", undeclared("10.96.0.9", requestsOfUndeclared+detection("5s")), undeclared("10.96.0.9", requestsOfUndeclared+detection("0s")), "first bytes awaited: 5s -> for ever"},
		{"how long the first bytes are waited for, of a headless port", undeclared("None", requestsOfUndeclared+detection("5s")), undeclared("None", requestsOfUndeclared+detection("1s")), "first bytes awaited: 5s -> 1s"},
		{"connections to a port where requests are found out", undeclared("10.96.0.9", requestsOfUndeclared+streams(90)), undeclared("10.96.0.9", requestsOfUndeclared+streams(80)), "connections: backends: shop/web:90 -> shop/web:80"},
		{"connections to a headless port where requests are found out", undeclared("None", requestsOfUndeclared+streams(90)), undeclared("None", requestsOfUndeclared+streams(80)), "connections: backends: shop/web:90 -> shop/web:80"},
		{"connections to a declared host without address", anywhere(streamsOf("far.example", 90)), anywhere(streamsOf("far.example", 80)), "connections: backends: shop/web:90 -> shop/web:80"},
		{"another protocol of a declared host without address", anywhere(""), strings.Replace(anywhere(""), "protocol: TCP", "protocol: HTTP", 1), "balanced by: the proxy, at any address, per connection -> the proxy, at any address"},
		{"connections to a port of requests", text, byLinkerd(text), "shop/web:80  connections: backends: closed: the port speaks HTTP alone -> shop/web:80"},
		{"a rate limit", rateLimit("10"), rateLimit("20"), "WIDENS"},
		{"a rate limit that is gone", rateLimit("10"), server(""), "WIDENS"},
		{"a traffic policy", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec: {host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}", "", "traffic policy: limits: {connections: 1} -> -"},
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

// Requests to a port that one side takes for connections are not refused there.
func TestRequestsThatOneSideDoesNotRead(t *testing.T) {
	text := base(t)
	r := diff.Compare(tables(t, text), tables(t, byLinkerd(text)))
	got := told(r)
	if strings.Contains(got, "404") || !strings.Contains(got, "shop/web:90  : balanced by: the kernel, per connection -> ") {
		t.Errorf("told\n%s", got)
	}
}

// What differs is told with the lines that made it so, of the traffic policy too.
func TestTrafficPolicyIsToldWithItsLines(t *testing.T) {
	text := base(t)
	rule := func(n string) string {
		return virtualService("{"+toWeb+"}") + "\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec: {host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: " + n + "}}}}"
	}
	r := diff.Compare(tables(t, text, rule("1")), tables(t, text, rule("2")))
	if len(r.Routes) == 0 {
		t.Fatal("nothing is told")
	}
	for _, side := range [][]model.Source{r.Routes[0].OldSources, r.Routes[0].NewSources} {
		if !slices.ContainsFunc(side, func(s model.Source) bool { return s.Kind == "DestinationRule" && s.Line > 0 }) {
			t.Errorf("the DestinationRule is not named: %v", side)
		}
	}
}

// Examples are requests that somebody might send, and all who may send are everybody.
func TestPermissionsAreToldInShort(t *testing.T) {
	text := base(t)
	r := diff.Compare(tables(t, text, authorization("rules: [{to: [{operation: {methods: [GET]}}]}]")), tables(t, text))
	got := told(r)
	if !strings.Contains(got, "WIDENS everybody POST /\n") {
		t.Errorf("told\n%s", got)
	}
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
