// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// fourPlanes are the demonstration's intent in all control planes, in the order in which
// they are swapped.
func fourPlanes(t *testing.T) []txtar.File {
	t.Helper()
	out := []txtar.File{shop(t, "istio.yaml"), shop(t, "smi.yaml")}
	for _, name := range []string{"linkerd.yaml", "gateway.yaml"} {
		b, err := os.ReadFile(filepath.Join("testdata", "swap", name))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, txtar.File{Name: name, Data: b})
	}
	return out
}

// TestSwapAmongFour swaps all control planes while requests flow: by a word on who owns
// the namespace, while all of them are there, and by applying the next before the last
// one is deleted. Linkerd's routes of what comes in answer with 404 what they do not have.
func TestSwapAmongFour(t *testing.T) {
	names := []string{"istio", "smi", "linkerd", "gateway"}
	for what, steps := range map[string]func(*world, *testing.T, []txtar.File) []func(){
		"by annotation": func(w *world, t *testing.T, all []txtar.File) []func() {
			steps := []func(){func() { w.apply(t, all...) }}
			for _, n := range append(names, "linkerd", "smi", "gateway", "istio") {
				steps = append(steps, func() { w.apply(t, owner(n)) })
			}
			return steps
		},
		"by apply and delete": func(w *world, t *testing.T, all []txtar.File) []func() {
			var steps []func()
			for i := range all {
				next := all[(i+1)%len(all)]
				steps = append(steps, func() { w.apply(t, next) }, func() { w.delete(t, all[i]) })
			}
			return steps
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := lives(t)
			app, all := shop(t, "app.yaml"), fourPlanes(t)
			t.Cleanup(func() { w.delete(t, append(all, app)...); w.nothingRetires(t) })
			w.apply(t, app, all[0])
			s := w.storm(t)
			s.refusals = append(s.refusals, "status 404")
			todo := steps(w, t, all)
			pause := length() / time.Duration(len(todo)+1)
			time.Sleep(pause)
			for _, step := range todo {
				step()
				time.Sleep(pause)
			}
			s.end(t)
		})
	}
}
