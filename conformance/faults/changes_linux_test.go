// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/lab"
)

// TestChanges changes a service from what the kernel does alone to what Envoy does and
// back, its split, its plane and its policy, again and again, under load that is allowed
// all the while: nothing fails and no connection breaks; nothing forbidden comes through.
// A guest is let in and shut out: who loses access is refused within a second.
func TestChanges(t *testing.T) {
	w := lives(t)
	n := times(*changesFlag, 60, 1000)
	s := w.storm(t)
	base := app(t)
	at := strings.Index(base, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web")
	routes := base[at : at+strings.Index(base[at:], "---")]
	type verb = func(context.Context, lab.Change) (*lab.Status, error)
	turns := []struct {
		what string
		how  func(i int) (verb, string)
	}{
		{"split", func(i int) (verb, string) {
			a := 10 + 10*(i%8)
			return lab.Apply, strings.NewReplacer("back-a}, weight: 50", fmt.Sprintf("back-a}, weight: %d", a), "back-b}, weight: 50", fmt.Sprintf("back-b}, weight: %d", 100-a)).Replace(routes)
		}},
		{"policy wider", func(i int) (verb, string) {
			return lab.Apply, wider(i)
		}},
		{"from kernel to proxy", func(int) (verb, string) {
			return lab.Apply, rawRoutes
		}},
		{"plane", func(int) (verb, string) {
			return lab.Apply, httpRoute + "---\n" + owner("gateway")
		}},
		{"plane back", func(int) (verb, string) {
			return lab.Apply, owner("istio")
		}},
		{"guest let in", func(int) (verb, string) { return lab.Apply, guest }},
		{"guest shut out", func(int) (verb, string) { return lab.Delete, guest }},
		{"from proxy to kernel", func(int) (verb, string) {
			return lab.Delete, rawRoutes
		}},
	}
	t.Cleanup(func() {
		w.mend(t)
		w.Change(t, lab.Apply, owner("istio"))
		w.Change(t, lab.Delete, httpRoute+"---\n"+guest+"---\n"+wider(0))
	})
	begin := time.Now()
	counts, cut := map[string]int{}, time.Duration(0)
	for i := range n {
		turn := turns[i%len(turns)]
		do, text := turn.how(i)
		w.Change(t, do, text)
		counts[turn.what]++
		switch applied := time.Now(); turn.what {
		case "guest let in":
			if !w.passes(t, "stranger-a", "/guest/x") {
				t.Errorf("change %d: the guest is not let in", i)
			}
		case "guest shut out":
			for w.passes(t, "stranger-a", "/guest/x") && time.Since(applied) < 5*time.Second {
			}
			cut = max(cut, time.Since(applied))
		}
	}
	if cut > revokeBound {
		t.Errorf("who was shut out got answers for %v", cut)
	}
	t.Logf("who was shut out was refused %v after that at the latest", cut.Round(time.Millisecond))
	t.Logf("%d changes in %v: %v", n, time.Since(begin).Round(time.Millisecond), counts)
	time.Sleep(pause())
	s.end().none("changed")
}

// wider allows a path more.
func wider(i int) string {
	return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wider, namespace: faults}
spec:
  selector: {matchLabels: {app: back}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/faults/sa/client]}}], to: [{operation: {methods: [GET], paths: ["/wider/%d"]}}]}]
`, i)
}

// guest lets the stranger in, at a path of his own.
const guest = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guest, namespace: faults}
spec:
  selector: {matchLabels: {app: back}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/faults/sa/stranger]}}], to: [{operation: {methods: [GET], paths: ["/guest/*"]}}]}]
`

// rawRoutes have a service of connections pass Envoy.
const rawRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: faults}
spec:
  hosts: [raw]
  tcp:
  - match: [{sourceLabels: {app: client-a}}]
    route: [{destination: {host: raw, port: {number: 9000}}}]
  - route: [{destination: {host: raw, port: {number: 9000}}}]
`

// httpRoute says of web what its VirtualService says.
const httpRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: faults}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-route, value: web}]}}]
    backendRefs: [{name: back-a, port: 80, weight: 50}, {name: back-b, port: 80, weight: 50}]
`

func owner(plane string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: faults, labels: {istio-injection: enabled}, annotations: {fairlead.io/route-by: destination, fairlead.io/control-plane: %s}}
`, plane)
}
