// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/hubble"
)

// shopIn is the shop's namespace in a mode.
func shopIn(mode string) txtar.File {
	return txtar.File{Name: "namespace.yaml", Data: fmt.Appendf(nil,
		"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {istio-injection: enabled}\n  annotations: {fairlead.io/mode: %s, fairlead.io/route-by: destination}\n", mode)}
}

// The shop's policy lets in what is here of another namespace, too, which is captured and
// enforced.
var callers = txtar.File{Name: "callers.yaml", Data: []byte(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{from: [{source: {namespaces: [callers]}}], to: [{operation: {paths: ["/open/*"]}}]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: callers, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller, namespace: callers}
spec:
  replicas: 2
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec: {containers: [{name: main, image: fairlead/load}]}
`)}

// refusedOf says of each pod that sent something that was refused, or would have been, by
// whom that was decided; of flows since a time.
func (w *world) refusedOf(t *testing.T, since time.Time, verdicts ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range w.flowsSince(t, since) {
		if slices.Contains(verdicts, f.Verdict) && strings.HasPrefix(f.Destination.Pod+f.Service, "shop/reviews") {
			out[f.Source.Pod] = strings.Join(f.DecidedBy, "; ")
		}
	}
	return out
}

func (w *world) flowsSince(t *testing.T, since time.Time) []hubble.Flow {
	t.Helper()
	var out []hubble.Flow
	for _, node := range w.nodes() {
		err := w.agents[node].Flows(t.Context(), agent.FlowQuery{Last: 8192}, func(f hubble.Flow) error {
			if f.Time.After(since) {
				out = append(out, f)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// until asks again until it is so: access logs come late.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// TestObserve: what is observed is told, and done when it is enforced: the same to the same,
// by the same objects.
func TestObserve(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	t.Cleanup(func() { w.delete(t, callers, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio, callers, shopIn("observe"))
	const requests = `
		batch GET http://reviews/api/x *4 -> %[1]s
		batch GET http://reviews/api/x *4 v6 -> %[1]s
		callers/caller-1 GET http://reviews.shop/api/x *4 -> %[1]s
		callers/caller-2 GET http://reviews.shop/api/x *4 v6 -> %[1]s
		frontend-1 POST http://reviews/api/x *4 -> %[1]s
		frontend-1 GET http://reviews/private *4 v6 -> %[1]s
		frontend-1 GET http://reviews/api/x *4 -> 200
		frontend-2 GET http://reviews/api/x *4 v6 -> 200
		callers/caller-1 GET http://reviews.shop/open/x *4 -> 200
		callers/caller-2 GET http://reviews.shop/open/x *4 v6 -> 200`
	begin := time.Now()
	w.runText(t, "shop", fmt.Sprintf(requests, "200"))

	// The rules that need no request are judged of connections, and those that do for
	// whoever comes by a proxy. Of the others it is told that a proxy would judge.
	var would map[string]string
	until(t, "the refusals that would be are told", func() bool {
		would = w.refusedOf(t, begin, "audited")
		return len(would) >= 3
	})
	for pod, by := range would {
		if !strings.Contains(by, "AuthorizationPolicy shop/reviews") {
			t.Errorf("%s would be refused by %q", pod, by)
		}
	}
	proxied := map[string]bool{}
	for _, f := range w.flowsSince(t, begin) {
		if f.Reason == "would-be-proxied" {
			proxied[f.Direction+" "+f.Source.Pod] = true
		}
		switch {
		case f.Verdict == "redirected" && strings.HasPrefix(f.Source.Pod, "shop/"), f.Verdict == "dropped", f.Verdict == "denied":
			t.Errorf("%s %s: %s -> %s (%s)", f.Direction, f.Verdict, f.Source.Name(), f.Destination.Name(), f.Reason)
		case f.Verdict == "audited" && f.HTTP != nil && f.HTTP.Path != "/api/x":
			t.Errorf("%s would not be refused: %+v", f.Source.Name(), f.HTTP)
		}
	}
	for _, want := range []string{"to-pod shop/frontend-1", "connect "} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(proxied)), func(k string) bool { return strings.HasPrefix(k, want) }) {
			t.Errorf("nobody says that %q would be proxied: %v", want, proxied)
		}
	}

	w.apply(t, shopIn("enforce"))
	begin = time.Now()
	w.runText(t, "shop", fmt.Sprintf(requests, "403"))
	var refused map[string]string
	until(t, "the refusals are told", func() bool {
		refused = w.refusedOf(t, begin, "denied", "dropped")
		return len(refused) >= 4
	})
	delete(refused, "shop/frontend-1") // for what it asked, which nobody had read
	if !maps.Equal(would, refused) {
		t.Errorf("would be refused\n\t%v\nwere refused\n\t%v", would, refused)
	}

	w.apply(t, shopIn("observe"))
	w.runText(t, "shop", fmt.Sprintf(requests, "200"))
}

// TestObserveUnderLoad turns the mode over and over: nothing that policy allows fails, but
// what is asked on a connection that was open before, past no proxy, to a port whose policy
// needs the request: nobody can judge it.
func TestObserveUnderLoad(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	t.Cleanup(func() { w.delete(t, callers, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio, callers, shopIn("observe"))
	const connections = 4 // of each family
	load := func(pod, url, fresh string) *generator {
		return generate(t, pod, "--url", url, "--connections", strconv.Itoa(connections), "--fresh", fresh, "--rate", "60", "-4", "-6")
	}
	var allowed, kept []*generator
	for _, p := range []string{"shop/frontend-1", "shop/frontend-2"} {
		allowed = append(allowed, load(p, "http://reviews/api/x", "1"))
		kept = append(kept, load(p, "http://reviews/api/x", "0.3"))
	}
	for _, p := range []string{"callers/caller-1", "callers/caller-2"} {
		allowed = append(allowed, load(p, "http://reviews.shop/open/x", "0.3"))
	}
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	const fresh = `
		batch GET http://reviews/api/x *4 -> %[1]s
		frontend-1 POST http://reviews/api/x *4 -> %[1]s
		frontend-2 GET http://reviews/private *4 v6 -> %[1]s
		callers/caller-1 GET http://reviews.shop/api/x *4 -> %[1]s`
	for range rounds {
		time.Sleep(time.Second)
		w.apply(t, shopIn("enforce"))
		w.runText(t, "shop", fmt.Sprintf(fresh, "403"))
		time.Sleep(2 * time.Second) // so that what is open is judged, too
		w.apply(t, shopIn("observe"))
		w.runText(t, "shop", fmt.Sprintf(fresh, "200"))
	}
	for _, g := range allowed {
		sum := g.end(t)
		t.Logf("%s: %d requests, %d answered, %d failed, of idle connections %d were cut", g.what, sum.Requests, sum.OK, sum.Failed, sum.IdleReset)
		if sum.Failed > 0 || sum.OK == 0 {
			t.Errorf("%s: %d of %d failed: %v", g.what, sum.Failed, sum.Requests, sum.Failures)
		}
	}
	for _, g := range kept {
		sum := g.end(t)
		t.Logf("%s: %d requests, %d answered, %v, of idle connections %d were cut", g.what, sum.Requests, sum.OK, sum.Failures, sum.IdleReset)
		if cut := sum.Failures["reset"]; sum.Failed > cut || cut > uint64(2*connections*rounds) || sum.OK == 0 {
			t.Errorf("%s: %d of %d failed: %v; at most each connection is cut, each time", g.what, sum.Failed, sum.Requests, sum.Failures)
		}
	}
}
