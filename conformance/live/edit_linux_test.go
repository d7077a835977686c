// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// TestMistakesUnderTraffic saves files with mistakes while requests flow: what they
// touch stays as it last was, the rest goes on, and the agents say what is wrong.
func TestMistakesUnderTraffic(t *testing.T) {
	w := lives(t)
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	t.Cleanup(func() { w.delete(t, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio)
	s := w.storm(t)
	time.Sleep(time.Second)
	w.retired(t)
	before := w.written(t)
	edit := func(pairs ...string) txtar.File {
		text := strings.NewReplacer(pairs...).Replace(string(istio.Data))
		if text == string(istio.Data) {
			t.Fatalf("istio.yaml has none of %q", pairs)
		}
		return txtar.File{Name: "istio.yaml", Data: []byte(text)}
	}
	for _, m := range []struct {
		what string
		file txtar.File
	}{
		{"an unknown field of the policy", edit("  action: ALLOW", "  actions: ALLOW")},
		{"a key of the policy twice", edit("  action: ALLOW", "  action: ALLOW\n  action: DENY")},
		{"an unknown version of the policy", edit("security.istio.io/v1", "security.istio.io/v5")},
		{"a weight that is no number", edit("weight: 75", "weight: lots")},
		{"weights that come to nothing", edit("weight: 75", "weight: 0", "weight: 25", "weight: 0")},
		{"a bad expression", edit("  - route:", "  - match: [{uri: {regex: \"/(\"}}]\n    route:")},
	} {
		w.apply(t, m.file)
		for _, node := range w.nodes() {
			st, err := w.agents[node].Status(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if st.Errors == 0 {
				t.Errorf("%s: %s says nothing of it", m.what, node)
			}
		}
		w.sameWritten(t, m.what, before)
		time.Sleep(300 * time.Millisecond)
	}
	w.breakFile(t, "AuthorizationPolicy", before)
	// A missing service costs its own share and nothing else; a neighbour in the
	// same file works at once.
	w.apply(t, istio, txtar.File{Name: "more.yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews-v2, namespace: shop}
spec:
  hosts: [reviews-v2]
  http:
  - match: [{uri: {prefix: /api/lost}}]
    route: [{destination: {host: reviews-v7}}]
  - match: [{uri: {prefix: /api/subset}}]
    route: [{destination: {host: reviews-v2, subset: none}}]
  - route: [{destination: {host: reviews-v1}}]
`)})
	w.runText(t, "shop", `
		frontend GET http://reviews-v2/api/lost -> 503
		frontend GET http://reviews-v2/api/subset -> 503
		frontend GET http://reviews-v2/api/x *10 keepalive -> 200 v1`)
	w.delete(t, txtar.File{Name: "more.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews-v2, namespace: shop}\n")})
	s.end(t)
}

// breakFile saves half a file in place of an object of the kind.
func (w *world) breakFile(t *testing.T, kind string, before map[string]written) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.run, "source", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(whole), "kind: "+kind) {
			continue
		}
		for _, text := range [][]byte{append(whole[:len(whole)/2:len(whole)/2], "\n  [{\n"...), whole} {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := w.applied(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.sameWritten(t, "half of "+filepath.Base(file), before)
			time.Sleep(300 * time.Millisecond)
		}
		return
	}
	t.Fatalf("no %s among %v", kind, files)
}
