// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"fairlead.io/fairlead/translators/objects"
)

const (
	groups    = 28 // pairs of services; odd ones are SMI's
	firstLast = 16 // of the addresses of their pods, groupPods to a group
	groupPods = 8
)

// group is a pair of services, a and b, that lead to each other's backends and to
// nobody else's, whatever is done to their objects.
type group struct {
	n       int
	ns      string
	texts   map[string]string // objects by what they are; missing: not there
	outcome map[string]int    // how often each variant came, over all groups
}

func (g *group) service(ab string) string { return fmt.Sprintf("s%d%s", g.n, ab) }

func (g *group) ip(ab string) (v4, v6 string) {
	n := 2*g.n + 1 + int(ab[0]-'a')
	return fmt.Sprintf("10.96.1.%d", n), fmt.Sprintf("fd96::1:%x", n)
}

// server is the port of a service's backends.
func (g *group) server(ab string) uint16 { return uint16(7100 + 2*g.n + int(ab[0]-'a')) }

func (g *group) last(ab string, i int) int {
	return firstLast + groupPods*g.n + groupPods/2*int(ab[0]-'a') + i
}

// pods of the group are always there; which of them are endpoints changes.
func (g *group) pods() string {
	var out strings.Builder
	for _, ab := range []string{"a", "b"} {
		for i := range groupPods / 2 {
			out.WriteString(podText(g.ns, fmt.Sprintf("%s-%d", g.service(ab), i), fmt.Sprintf("s%d", g.n), "node-2", g.last(ab, i),
				fmt.Sprintf("app: s%d, service: %s, version: v%d", g.n, g.service(ab), 1+i%2)))
		}
	}
	return out.String()
}

// churn is the part of the cluster that changes.
type churn struct {
	rng    *rand.Rand
	groups []*group
	inputs map[string]objects.Input
	counts map[string]int
	names  []string // of inputs, sorted; nil: not up to date
}

func newChurn(rng *rand.Rand) *churn {
	c := &churn{rng: rng, inputs: map[string]objects.Input{}, counts: map[string]int{}}
	for n := range groups {
		g := &group{n: n, ns: "churn", texts: map[string]string{}, outcome: c.counts}
		if n%2 == 1 {
			g.ns = "churn-smi"
		}
		c.groups = append(c.groups, g)
		c.put(fmt.Sprintf("pods-%02d.yaml", n), g.pods())
	}
	for _, in := range stillObjects() {
		c.inputs[in.Name] = in
	}
	return c
}

func (c *churn) put(name, text string) {
	c.names = nil
	if text == "" {
		delete(c.inputs, name)
	} else {
		c.inputs[name] = objects.Input{Name: name, Data: []byte(text)}
	}
}

// all are the objects of now, in the order of their names as a folder is read.
func (c *churn) all() []objects.Input {
	if c.names == nil {
		c.names = slices.Sorted(maps.Keys(c.inputs))
	}
	out := make([]objects.Input, len(c.names))
	for i, n := range c.names {
		out[i] = c.inputs[n]
	}
	return out
}

// change makes one object another one, or none, or one of none.
func (c *churn) change() {
	for {
		g := c.groups[c.rng.IntN(len(c.groups))]
		what, text := g.draw(c.rng)
		if g.texts[what] == text {
			continue
		}
		g.texts[what] = text
		c.put(fmt.Sprintf("%s-%02d.yaml", what, g.n), text)
		return
	}
}

// mend replaces objects of which an earlier version is in use, because the last one is
// invalid: what that is depends on the past.
func (c *churn) mend(files []string) {
	for _, g := range c.groups {
		for _, what := range slices.Sorted(maps.Keys(g.texts)) {
			file := fmt.Sprintf("%s-%02d.yaml", what, g.n)
			if slices.Contains(files, file) {
				g.texts[what] = ""
				c.put(file, "")
			}
		}
	}
}

// draw takes an object of the group and says how it is from now on.
func (g *group) draw(rng *rand.Rand) (what, text string) {
	ab := []string{"a", "b"}[rng.IntN(2)]
	kinds := []string{"service", "endpoints", "endpoints", "routes", "routes", "policy"}
	if g.ns == "churn" {
		kinds = append(kinds, "subsets")
	} else {
		kinds = append(kinds, "rules")
	}
	what = kinds[rng.IntN(len(kinds))]
	switch what {
	case "service":
		return what + "-" + ab, g.drawService(rng, ab)
	case "endpoints":
		return what + "-" + ab, g.drawEndpoints(rng, ab)
	}
	list := variants[g.ns+"/"+what]
	v := list[rng.IntN(len(list))]
	g.outcome[what+": "+v.name]++
	r := strings.NewReplacer("NS", g.ns, "GROUP", fmt.Sprintf("s%d", g.n), "SA", g.service("a"), "SB", g.service("b"),
		"W1", fmt.Sprint(rng.IntN(100)), "W2", fmt.Sprint(1+rng.IntN(100)), "REV", fmt.Sprint(rng.IntN(1000)))
	return what, r.Replace(v.text)
}

func (g *group) drawService(rng *rand.Rand, ab string) string {
	v4, v6 := g.ip(ab)
	port := []string{"", "", "http", "http", "http", "http", "http", "http-web", "http2", "grpc", "tcp", "tcp", "tcp"}[rng.IntN(13)]
	if port == "" {
		g.outcome["service: gone"]++
		return ""
	}
	g.outcome["service: "+port]++
	return serviceText(g.ns, g.service(ab), v4, v6, port, 80, g.server(ab))
}

func (g *group) drawEndpoints(rng *rand.Rand, ab string) string {
	var out []member
	for i := range groupPods / 2 {
		if rng.IntN(3) > 0 {
			out = append(out, member{fmt.Sprintf("%s-%d", g.service(ab), i), g.last(ab, i), rng.IntN(4) > 0})
		}
	}
	g.outcome[fmt.Sprint("endpoints: ", len(out))]++
	// The port's name is the service's of now, or does not fit.
	port := "http"
	for _, p := range []string{"http-web", "http2", "grpc", "tcp"} {
		if strings.Contains(g.texts["service-"+ab], "name: "+p+",") && rng.IntN(8) > 0 {
			port = p
		}
	}
	return slicesText(g.ns, g.service(ab), port, g.server(ab), out)
}

// variant is an object in one of its forms; no text: it is not there.
type variant struct{ name, text string }

// in is a variant under a head.
func in(head string, all ...variant) []variant {
	for i := range all {
		if all[i].text != "" {
			all[i].text = head + all[i].text
		}
	}
	return all
}

// variants of the groups' objects. Bad ones are what users write: expressions that are
// none, references to nobody, weights without sense, unknown values.
var variants = map[string][]variant{
	"churn/routes": in("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: GROUP, namespace: NS}\n",
		variant{"none", ""},
		variant{"plain", "spec: {hosts: [SA], http: [{route: [{destination: {host: SA}, headers: {response: {set: {x-rev: \"REV\"}}}}]}]}\n"},
		variant{"both services", "spec: {hosts: [SA, SB], http: [{route: [{destination: {host: SB}}], timeout: W2s}]}\n"},
		variant{"weights", "spec: {hosts: [SA], http: [{route: [{destination: {host: SA}, weight: W1}, {destination: {host: SB}, weight: W2}]}]}\n"},
		variant{"header", "spec: {hosts: [SA], http: [{match: [{headers: {x-user: {prefix: u-REV}}}], route: [{destination: {host: SB}}]}, {route: [{destination: {host: SA}}]}]}\n"},
		variant{"path", "spec: {hosts: [SA], http: [{match: [{uri: {prefix: /x/}}], rewrite: {uri: /y/REV}, route: [{destination: {host: SB}}]}, {route: [{destination: {host: SA}}]}]}\n"},
		variant{"regex", "spec: {hosts: [SA], http: [{match: [{uri: {regex: \"/v[0-9]+/REV\"}}], route: [{destination: {host: SB}}]}, {route: [{destination: {host: SA}}]}]}\n"},
		variant{"bad regex", "spec: {hosts: [SA], http: [{match: [{uri: {regex: \"/v(REV\"}}], route: [{destination: {host: SB}}]}, {route: [{destination: {host: SA}}]}]}\n"},
		variant{"host of nobody", "spec: {hosts: [SA], http: [{route: [{destination: {host: nobody-REV}}]}]}\n"},
		variant{"subset", "spec: {hosts: [SA], http: [{route: [{destination: {host: SA, subset: v1}, weight: W1}, {destination: {host: SA, subset: v2}, weight: W2}]}]}\n"},
		variant{"mirror", "spec: {hosts: [SA], http: [{route: [{destination: {host: SA}}], mirror: {host: SB}, mirrorPercentage: {value: 50}}]}\n"},
		variant{"direct", "spec: {hosts: [SA], http: [{directResponse: {status: 418, body: {string: \"REV\"}}}]}\n"},
		variant{"retries", "spec: {hosts: [SA], http: [{route: [{destination: {host: SA}}], retries: {attempts: 2, perTryTimeout: 1s, retryOn: \"5xx,reset\"}}]}\n"},
		variant{"client's labels", "spec: {hosts: [SA], http: [{match: [{sourceLabels: {app: alpha}}], route: [{destination: {host: SB}}]}, {route: [{destination: {host: SA}}]}]}\n"},
		variant{"namespace of the client", "spec: {hosts: [SA], http: [{match: [{sourceNamespace: still}], route: [{destination: {host: SA}}]}]}\n"},
		variant{"redirect", "spec: {hosts: [SA], http: [{redirect: {uri: /REV}}]}\n"},
		variant{"connections", "spec: {hosts: [SA], tcp: [{match: [{sourceLabels: {app: alpha}}], route: [{destination: {host: SA, port: {number: 80}}, weight: W1}, {destination: {host: SB, port: {number: 80}}, weight: W2}]}]}\n"},
		variant{"connections by name", "spec: {hosts: [SA], tls: [{match: [{sniHosts: [REV.example.com]}], route: [{destination: {host: SB, port: {number: 80}}}]}], tcp: [{route: [{destination: {host: SA, port: {number: 80}}}]}]}\n"},
		variant{"unknown field", "spec: {hosts: [SA], https: [{route: [{destination: {host: SA}}]}]}\n"},
		variant{"no YAML", "spec: {hosts: [SA\n"},
	),
	"churn/policy": in("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: GROUP, namespace: NS}\n",
		variant{"none", ""},
		variant{"allow alpha", "spec: {selector: {matchLabels: {app: GROUP}}, action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/still/sa/alpha]}}], to: [{operation: {methods: [GET], paths: [/*, /REV]}}]}]}\n"},
		variant{"deny beta", "spec: {selector: {matchLabels: {app: GROUP}}, action: DENY, rules: [{from: [{source: {principals: [\"*/sa/beta\"]}}], to: [{operation: {paths: [/REV]}}]}]}\n"},
		variant{"deny all", "spec: {selector: {matchLabels: {app: GROUP}}}\n"},
		variant{"header", "spec: {selector: {matchLabels: {app: GROUP}}, action: ALLOW, rules: [{when: [{key: \"request.headers[x-user]\", notValues: [u-REV]}]}]}\n"},
		variant{"addresses", "spec: {selector: {matchLabels: {app: GROUP}}, action: DENY, rules: [{from: [{source: {ipBlocks: [10.244.1.12/32, 10.245.0.0/16]}}]}]}\n"},
		variant{"unknown action", "spec: {selector: {matchLabels: {app: GROUP}}, action: MAYBE, rules: [{}]}\n"},
		variant{"bad address", "spec: {selector: {matchLabels: {app: GROUP}}, action: DENY, rules: [{from: [{source: {ipBlocks: [10.244.REV.0/33]}}]}]}\n"},
	),
	"churn/subsets": in("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: GROUP, namespace: NS}\n",
		variant{"none", ""},
		variant{"both", "spec: {host: SA, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n"},
		variant{"one", "spec: {host: SA, subsets: [{name: v1, labels: {version: v1}}]}\n"},
		variant{"of nobody", "spec: {host: SA, subsets: [{name: v1, labels: {version: v-REV}}]}\n"},
		variant{"of another", "spec: {host: nobody, subsets: [{name: v1, labels: {version: v1}}]}\n"},
	),
	"churn-smi/routes": in("apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: GROUP, namespace: NS}\n",
		variant{"none", ""},
		variant{"weights", "spec: {service: SA, backends: [{service: SA, weight: W1}, {service: SB, weight: W2}]}\n"},
		variant{"all to b", "spec: {service: SA, backends: [{service: SB, weight: 1}]}\n"},
		variant{"zero", "spec: {service: SA, backends: [{service: SA, weight: 0}, {service: SB, weight: 0}]}\n"},
		variant{"by path", "spec: {service: SA, matches: [{kind: HTTPRouteGroup, name: GROUP}], backends: [{service: SB, weight: W2}]}\n"},
		variant{"service of nobody", "spec: {service: SA, backends: [{service: nobody-REV, weight: 1}]}\n"},
		variant{"no backends", "spec: {service: SA, backends: []}\n"},
		variant{"weight that is none", "spec: {service: SA, backends: [{service: SB, weight: heavy}]}\n"},
	),
	"churn-smi/rules": in("apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {name: GROUP, namespace: NS}\n",
		variant{"none", ""},
		variant{"path", "spec: {matches: [{name: m, pathRegex: /REV/.*, methods: [GET]}]}\n"},
		variant{"all", "spec: {matches: [{name: m, methods: [\"*\"]}, {name: n, pathRegex: /x/.*, headers: [{x-user: \"u-[0-9]+\"}]}]}\n"},
		variant{"bad regex", "spec: {matches: [{name: m, pathRegex: \"/x(REV\"}]}\n"},
		variant{"nothing", "spec: {matches: []}\n"},
	),
	"churn-smi/policy": in("apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {name: GROUP, namespace: NS}\n",
		variant{"none", ""},
		variant{"alpha", "spec: {destination: {kind: ServiceAccount, name: GROUP, namespace: NS}, sources: [{kind: ServiceAccount, name: alpha, namespace: still}], rules: [{kind: HTTPRouteGroup, name: GROUP}]}\n"},
		variant{"both", "spec: {destination: {kind: ServiceAccount, name: GROUP, namespace: NS}, sources: [{kind: ServiceAccount, name: alpha, namespace: still}, {kind: ServiceAccount, name: beta, namespace: still}], rules: [{kind: HTTPRouteGroup, name: GROUP, matches: [m]}]}\n"},
		variant{"match of nobody", "spec: {destination: {kind: ServiceAccount, name: GROUP, namespace: NS}, sources: [{kind: ServiceAccount, name: alpha, namespace: still}], rules: [{kind: HTTPRouteGroup, name: GROUP, matches: [REV]}]}\n"},
		variant{"source of nobody", "spec: {destination: {kind: ServiceAccount, name: GROUP, namespace: NS}, sources: [{kind: ServiceAccount, name: nobody-REV, namespace: still}], rules: [{kind: HTTPRouteGroup, name: nobody}]}\n"},
	),
}
