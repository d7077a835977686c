// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab"
)

// TestPolicyOfNow takes all permissions away under load, and gives them back: also on
// connections that are open already the policy of now holds, within a second.
func TestPolicyOfNow(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	closed := txtar.File{Name: "closed.yaml", Data: []byte(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}
`)}
	t.Cleanup(func() { w.delete(t, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio)
	start := func(extra ...string) []*generator {
		var out []*generator
		for _, p := range []string{"shop/frontend-1", "shop/frontend-2"} {
			args := append([]string{"--url", "http://reviews/api/x", "--rate", "100", "--connections", "8", "-4", "-6"}, extra...)
			out = append(out, generate(t, p, args...))
		}
		return out
	}
	before := start()
	time.Sleep(time.Second)
	w.apply(t, closed)
	time.Sleep(time.Second)
	denied := start("--forbid")
	time.Sleep(2 * time.Second)
	for _, g := range denied {
		if sum := g.end(t); sum.Violations > 0 || sum.OK == 0 || sum.Failed > 0 {
			t.Errorf("%s: while all is denied: %+v", g.what, sum)
		}
	}
	// Those that were there before got answers for at most a second after it was closed.
	// Where the destination's node is the first to know, its kernel refuses the proxies
	// of the other, which answer 503 until they know too.
	for _, g := range before {
		sum := g.end(t)
		first := sum.Failures["status 503"]
		if sum.Failures["status 403"] < 250 || first > 50 || sum.Failed != sum.Failures["status 403"]+first {
			t.Errorf("%s: over connections that were open: %+v", g.what, sum)
		}
	}
	w.delete(t, closed)
	w.runText(t, "shop", `
		frontend-1 GET http://reviews/api/x *10 keepalive -> 200
		frontend-2 GET http://reviews/api/x *10 v6 -> 200`)
}

// TestRollout replaces all pods of the service under load: none of the requests fails.
func TestRollout(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	t.Cleanup(func() { w.delete(t, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio)
	s := w.storm(t)
	time.Sleep(time.Second)
	for _, colour := range []string{"green", "blue"} {
		const image = "        image: fairlead/echo\n"
		text := strings.ReplaceAll(string(app.Data), image, image+"        env: [{name: COLOUR, value: "+colour+"}]\n")
		w.apply(t, txtar.File{Name: app.Name, Data: []byte(text)})
		time.Sleep(time.Second)
	}
	s.end(t)
}

// TestProxyKilled kills the proxies, which costs nothing, and then their Envoys: what
// needs them fails until they are back, and nothing forbidden gets through meanwhile.
func TestProxyKilled(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	t.Cleanup(func() { w.delete(t, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio)
	s := w.storm(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, node := range w.nodes() {
		if err := lab.Stop(ctx, labName, node, "proxy", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := lab.Start(ctx, labName, node, "proxy"); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	s.end(t)

	var forbidden []*generator
	for _, p := range []string{"shop/frontend-1", "shop/frontend-2", "shop/batch"} {
		forbidden = append(forbidden, generate(t, p, "--url", "http://reviews/api/x", "--method", "POST", "--forbid",
			"--rate", "50", "--connections", "4", "--fresh", "0.5", "--timeout", "1s", "-4", "-6"))
	}
	for _, node := range w.nodes() {
		st, err := w.agents[node].Status(ctx)
		if err != nil || st.Proxy == nil || st.Proxy.Envoy.PID == 0 {
			t.Fatalf("%s: %v, %+v", node, err, st.Proxy)
		}
		if err := syscall.Kill(st.Proxy.Envoy.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	w.runText(t, "shop", `
		frontend-1 GET http://reviews/api/x timeout=500ms *4 eventually -> 200
		frontend-2 GET http://reviews/api/x timeout=500ms *4 eventually -> 200
		batch GET http://reviews/api/x *4 -> 403`)
	t.Logf("Envoys are back after %v", time.Since(begin).Round(100*time.Millisecond))
	for _, g := range forbidden {
		if sum := g.end(t); sum.Violations > 0 || sum.OK == 0 {
			t.Errorf("%s: %+v", g.what, sum)
		}
	}
}
