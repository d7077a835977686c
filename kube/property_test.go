// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// content is what a pipeline came to.
func content(t *testing.T, p *pipeline.Pipeline) string {
	t.Helper()
	out := ""
	for _, table := range plan.Tables() {
		for _, row := range p.Rows(table) {
			out += fmt.Sprintf("%s %s %s\n", table, row.Key, model.Bytes(row.Value))
		}
	}
	for _, d := range p.Diagnostics() {
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		out += string(text) + "\n"
	}
	return out
}

// disturb does one thing to the server.
func (r *rig) disturb(rng *rand.Rand) {
	name := fmt.Sprintf("s%d", rng.IntN(8))
	routes := r.Defined("networking.istio.io/virtualservices")
	switch n := rng.IntN(20); {
	case n < 5:
		r.Apply(service(name, 80+rng.IntN(3)))
	case n < 7:
		r.Remove("", "services", "shop/"+name)
	case n < 10 && routes:
		r.Apply(vs(name, fmt.Sprintf("%ds", 1+rng.IntN(3))))
	case n < 11 && routes:
		r.Remove("networking.istio.io", "virtualservices", "shop/"+name)
	case n < 12 && routes:
		r.Undefine("networking.istio.io", "virtualservices")
	case n < 13 && !routes:
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1beta1", "v1")
	case n < 14:
		r.Away()
	case n < 16:
		r.Back()
	case n < 17:
		r.Forgets()
	case n < 18:
		code := []int{429, 500, 503, 401, 403, 410}[rng.IntN(6)]
		r.Interrupt(func(*http.Request) (int, bool) { return code, false })
	case n < 19:
		r.Interrupt(func(*http.Request) (int, bool) { return 0, true })
	default:
		r.Interrupt(nil)
	}
}

// Whatever happened on the way, what was handed out comes to what the server has.
func TestAnySequenceComesToTheEndState(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				rng := rand.New(rand.NewPCG(uint64(seed), 6))
				r.Apply(node + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {fairlead.io/capture: enabled}}\n")
				r.after(time.Second)
				for range 60 {
					r.disturb(rng)
					r.after(time.Duration(rng.IntN(3)*rng.IntN(20_000)) * time.Millisecond)
				}
				r.Back()
				r.Interrupt(nil)
				r.after(15 * time.Minute)
				if got := r.problems(); got != "" {
					t.Error(got)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				edits, err := Read(ctx, Options{Config: r.Config(), Registry: r.source.registry, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				fresh, err := pipeline.New(pipeline.Options{Node: "n1"})
				if err != nil {
					t.Fatal(err)
				}
				fresh.Apply(edits)
				grown, err := pipeline.New(pipeline.Options{Node: "n1"})
				if err != nil {
					t.Fatal(err)
				}
				for _, u := range r.all {
					grown.Apply(u.Edits)
				}
				if want, got := content(t, fresh), content(t, grown); got != want {
					t.Errorf("edit by edit:\n%s\nat once:\n%s", got, want)
				}
				var sum [16]byte
				for _, e := range edits {
					for i, b := range e.Digest() {
						sum[i] ^= b
					}
				}
				if got := fmt.Sprintf("%x", sum); got != r.revision {
					t.Errorf("revision %s, and of what there is %s", r.revision, got)
				}
			})
		})
	}
}
