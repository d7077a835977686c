// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab/load"
	"fairlead.io/fairlead/proxy"
)

// listenerStats are what Envoy counts of its listeners: those that were added or
// changed, and answers that had any.
const listenerStats = "^listener_manager\\.(listener_(added|modified|in_place_updated|removed|create_.*)|lds\\.update_(attempt|success|rejected))$"

// envoyStats reads counters of a node's Envoy.
func (w *world) envoyStats(t *testing.T, node, filter string) map[string]uint64 {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) {
		return net.Dial("unix", proxy.PathsIn(filepath.Join(w.run, node)).Admin[0])
	}}}
	resp, err := client.Get("http://envoy/stats?filter=" + strings.ReplaceAll(filter, "|", "%7C"))
	if err != nil {
		t.Fatalf("%s: %v", node, err)
	}
	defer resp.Body.Close()
	out := map[string]uint64{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[name] = n
		}
	}
	if err := lines.Err(); err != nil || len(out) == 0 {
		t.Fatalf("%s: no counters: %v", node, err)
	}
	return out
}

// rewrite gives the objects whose text has a part other texts, as an editor saves a
// file, waits until the agents have put them to work, and returns how many there are.
func (w *world) rewrite(t *testing.T, part string, edit func(text string) string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.run, "source", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), part) {
			continue
		}
		found++
		text := edit(string(b))
		if text == string(b) {
			t.Fatalf("%s: nothing was changed", file)
		}
		unseen := filepath.Join(filepath.Dir(file), "."+filepath.Base(file))
		if err := os.WriteFile(unseen, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(unseen, file); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.applied(t.Context()); err != nil {
		t.Fatal(err)
	}
	return found
}

// openings are policies that allow a path each.
const openings = 10

func opening(n, round int) string {
	return fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open-%[1]d, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {paths: ["/open/%[1]d/%[2]d"]}}]}]
`, n, round)
}

var round = regexp.MustCompile(`("/open/\d+/)\d+"`)

// TestPolicyChanges changes policies a thousand times under traffic that keeps its
// connections: each change holds at once, and touches no listener.
func TestPolicyChanges(t *testing.T) {
	w := lives(t)
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	app, istio, open := shop(t, "app.yaml"), shop(t, "istio.yaml"), txtar.File{Name: "open.yaml"}
	for n := range openings {
		open.Data = append(open.Data, "---\n"+opening(n, rounds)...)
	}
	t.Cleanup(func() { w.delete(t, open, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio, open)
	w.runText(t, "shop", `
		frontend-1 GET http://reviews/api/x -> 200
		frontend-2 GET http://reviews/api/x -> 200`)
	w.retired(t)
	before := map[string]map[string]uint64{}
	sent := w.written(t)
	for _, n := range w.nodes() {
		before[n] = w.envoyStats(t, n, listenerStats)
	}
	var allowed, forbidden []*generator
	for _, p := range []string{"shop/frontend-1", "shop/frontend-2"} {
		allowed = append(allowed, generate(t, p, "--url", "http://reviews/api/x", "--rate", "150", "--connections", "8", "-4", "-6"))
		forbidden = append(forbidden, generate(t, p, "--url", "http://reviews/private", "--forbid", "--rate", "50", "--connections", "4", "-4", "-6"))
	}
	begin := time.Now()
	changes := 0
	for i := range rounds {
		changes += w.rewrite(t, "name: open-", func(text string) string {
			return round.ReplaceAllString(text, fmt.Sprintf("${1}%d\"", i))
		})
	}
	took := time.Since(begin)
	if changes != openings*rounds {
		t.Errorf("%d changes, want %d", changes, openings*rounds)
	}
	w.runText(t, "shop", strings.NewReplacer("NOW", strconv.Itoa(rounds-1), "BEFORE", strconv.Itoa(rounds-2)).Replace(`
		frontend-1 GET http://reviews/open/0/NOW *4 -> 200
		frontend-2 POST http://reviews/open/9/NOW *4 v6 -> 200
		frontend-1 GET http://reviews/open/0/BEFORE *4 -> 403
		frontend-2 POST http://reviews/open/9/BEFORE *4 v6 -> 403`))
	var requests uint64
	for _, g := range allowed {
		sum := g.end(t)
		requests += sum.Requests
		w.keptAll(t, g, sum)
		if sum.Failed > 0 || sum.OK == 0 {
			t.Errorf("%s: %d of %d failed: %v", g.what, sum.Failed, sum.Requests, sum.Failures)
		}
	}
	for _, g := range forbidden {
		sum := g.end(t)
		requests += sum.Requests
		w.keptAll(t, g, sum)
		if sum.Violations > 0 || sum.OK == 0 || sum.Refusals["status 403"] != sum.OK {
			t.Errorf("%s: %d of %d got through; refused were %v", g.what, sum.Violations, sum.Requests, sum.Refusals)
		}
	}
	for node, was := range before {
		if now := w.envoyStats(t, node, listenerStats); !maps.Equal(was, now) {
			t.Errorf("%s: Envoy's listeners: %v before, %v after", node, was, now)
		}
	}
	for node, now := range w.written(t) {
		got := now.envoy.Resources - sent[node].envoy.Resources
		if got < uint64(rounds) {
			t.Errorf("%s: %d resources in %d rounds: not each came to the proxy", node, got, rounds)
		}
		t.Logf("%s: %d resources, %d bytes to the proxy", node, got, now.envoy.Bytes-sent[node].envoy.Bytes)
	}
	t.Logf("%d changes in %v, %d requests meanwhile", changes, took.Round(time.Millisecond), requests)
}

// keptAll expects a generator to have kept its connections.
func (w *world) keptAll(t *testing.T, g *generator, sum load.Summary) {
	t.Helper()
	if sum.IdleClosed > 0 || sum.IdleReset > 0 {
		t.Errorf("%s: %d connections were closed, %d cut", g.what, sum.IdleClosed, sum.IdleReset)
	}
}
