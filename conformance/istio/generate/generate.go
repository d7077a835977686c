// SPDX-License-Identifier: Apache-2.0

// Package generate makes scenarios: each varies some fields, alone or in company, with
// values that collide, and asks what meets and what just misses them. The same seed and
// number give the same scenario.
package generate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/conformance/istio/world"
)

// Scenario makes the i-th of a seed. valid says why istiod would not take its objects:
// then another is drawn.
func Scenario(seed uint64, i int, valid func(istio, mesh string) error) (*world.Scenario, error) {
	for try := range uint64(100) {
		d := &draft{Rand: rand.New(rand.NewPCG(seed, uint64(i)<<8|try)), fields: map[string]bool{}}
		d.draw()
		if valid(d.istio(), d.mesh) != nil {
			continue
		}
		name := fmt.Sprintf("seed%d_%04d", seed, i)
		s, err := world.FromArchive(name, d.archive())
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, txtar.Format(d.archive()))
		}
		return s, nil
	}
	return nil, fmt.Errorf("seed %d, scenario %d: nothing valid in 100 tries", seed, i)
}

// draft is a scenario that is being drawn.
type draft struct {
	*rand.Rand
	fields   map[string]bool
	objects  []string
	world    []string
	mesh     string
	requests []string
}

// draw picks what the scenario is about, as often as users write it and as it is easy to
// get wrong.
func (d *draft) draw() {
	d.weighted([]weighed{
		{40, d.httpRoutes},
		{7, d.connections},
		{14, d.trafficPolicy},
		{10, d.entries},
		{7, d.sidecar},
		{16, d.permissions},
		{3, d.authentication},
		{3, d.protocols},
		{4, d.visibility},
	})
}

type weighed struct {
	weight int
	do     func()
}

func (d *draft) weighted(all []weighed) {
	sum := 0
	for _, w := range all {
		sum += w.weight
	}
	n := d.IntN(sum)
	for _, w := range all {
		if n -= w.weight; n < 0 {
			w.do()
			return
		}
	}
}

// about notes that fields of a kind are varied.
func (d *draft) about(kind string, fields ...string) {
	for _, f := range fields {
		d.fields[kind+" "+f] = true
	}
}

// one reports true once in n times.
func (d *draft) one(n int) bool { return d.IntN(n) == 0 }

func pick[T any](d *draft, of ...T) T { return of[d.IntN(len(of))] }

// some picks between low and high different ones.
func some[T any](d *draft, low, high int, of []T) []T {
	of = slices.Clone(of)
	d.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	return of[:min(len(of), low+d.IntN(high-low+1))]
}

type object = map[string]any
type list = []any

// add is an object of Istio.
func (d *draft) add(kind, namespace, name string, spec object) {
	d.addAt(kind, namespace, name, "", spec)
}

func (d *draft) addAt(kind, namespace, name, created string, spec object) {
	group := "networking.istio.io/v1"
	if strings.HasSuffix(kind, "Policy") || strings.HasSuffix(kind, "Authentication") {
		group = "security.istio.io/v1"
	}
	meta := object{"name": name, "namespace": namespace}
	if created != "" {
		meta["creationTimestamp"] = created
	}
	b, err := yaml.Marshal(object{"apiVersion": group, "kind": kind, "metadata": meta, "spec": spec})
	if err != nil {
		panic(err) // of values that are written here
	}
	d.objects = append(d.objects, string(b))
}

func (d *draft) istio() string { return strings.Join(d.objects, "---\n") }

// ask adds a request, once.
func (d *draft) ask(format string, a ...any) {
	q := fmt.Sprintf(format, a...)
	if !slices.Contains(d.requests, q) && len(d.requests) < 14 {
		d.requests = append(d.requests, q)
	}
}

func (d *draft) archive() *txtar.Archive {
	a := &txtar.Archive{Comment: []byte("about: " + strings.Join(slices.Sorted(maps.Keys(d.fields)), ", ") + "\n")}
	section := func(name, text string) {
		if text != "" {
			a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(text)})
		}
	}
	section("mesh.yaml", d.mesh)
	section("world", lines(d.world))
	section("istio.yaml", d.istio())
	section("requests", lines(d.requests))
	return a
}

func lines(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}

// subsets declares the versions of reviews.
func (d *draft) subsets() {
	d.add("DestinationRule", "default", "reviews", object{"host": "reviews", "subsets": list{
		object{"name": "v1", "labels": object{"version": "v1"}},
		object{"name": "v2", "labels": object{"version": "v2"}},
		object{"name": "v3", "labels": object{"version": "v3"}},
	}})
}
