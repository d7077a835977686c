// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/internal/need"
)

var update = flag.Bool("update", false, "rewrite complexity.json")

// cost is what the verifier says of a program.
type cost struct {
	Instructions uint32 `json:"instructions"` // that it walked through
	Stack        uint32 `json:"stack"`        // bytes, of all its functions
}

// The verifier gives up after a million instructions and at 512 bytes of stack.
const (
	maxInstructions = 800_000
	maxStack        = 512
	growth          = 10 // percent
)

// Programs stay as cheap to verify as they are, all of them, or their growth is written down:
// go test ./bpf -run Complexity -update.
func TestComplexity(t *testing.T) {
	need.Root(t)
	const file = "complexity.json"
	got := map[string]cost{}
	for object, s := range specs(t) {
		for _, m := range s.Maps {
			m.Pinning = ebpf.PinNone
		}
		c, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
		if err != nil {
			var v *ebpf.VerifierError
			if errors.As(err, &v) {
				t.Fatalf("%s: %+v", object, v)
			}
			t.Fatalf("%s: %v", object, err)
		}
		for name := range s.Programs {
			got[name] = costOf(t, name, c.Programs[name])
		}
		c.Close()
	}
	if *update {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]cost
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		t.Logf("%-16s %6d instructions, %3d bytes of stack", name, got[name].Instructions, got[name].Stack)
	}
	for _, why := range overBudget(want, got) {
		t.Errorf("%s: %s", file, why)
	}
}

// overBudget says which programs cost more than the budget has for them, by growth or
// more, or are not in both.
func overBudget(budget, got map[string]cost) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(got)) {
		g := got[name]
		w, ok := budget[name]
		switch {
		case !ok:
			say("%s is not in the budget", name)
		case g.Instructions*100 >= w.Instructions*(100+growth):
			say("%s has %d instructions, was %d", name, g.Instructions, w.Instructions)
		}
		if ok && g.Stack*100 >= w.Stack*(100+growth) {
			say("%s has %d bytes of stack, was %d", name, g.Stack, w.Stack)
		}
		if g.Instructions > maxInstructions || g.Stack > maxStack {
			say("%s has %d instructions, %d bytes of stack: near the limits of the verifier", name, g.Instructions, g.Stack)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(budget)) {
		if _, ok := got[name]; !ok {
			say("%s is in the budget, but in no object", name)
		}
	}
	return out
}

func TestOverBudget(t *testing.T) {
	budget := map[string]cost{"a": {1000, 100}, "b": {30, 32}}
	with := func(name string, c cost) map[string]cost {
		out := maps.Clone(budget)
		out[name] = c
		return out
	}
	for name, c := range map[string]struct {
		got  map[string]cost
		want []string
	}{
		"as it was":         {budget, nil},
		"a little more":     {with("a", cost{1099, 109}), nil},
		"less":              {with("a", cost{1, 8}), nil},
		"instructions grew": {with("a", cost{1100, 100}), []string{"a has 1100 instructions, was 1000"}},
		"of a small one":    {with("b", cost{33, 32}), []string{"b has 33 instructions, was 30"}},
		"the stack grew":    {with("a", cost{1000, 110}), []string{"a has 110 bytes of stack, was 100"}},
		"both grew":         {with("a", cost{2000, 200}), []string{"a has 2000 instructions, was 1000", "a has 200 bytes of stack, was 100"}},
		"a new one":         {with("c", cost{10, 8}), []string{"c is not in the budget"}},
		"one is gone":       {map[string]cost{"a": {1000, 100}}, []string{"b is in the budget, but in no object"}},
	} {
		if d := cmp.Diff(c.want, overBudget(budget, c.got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

var (
	processed  = regexp.MustCompile(`processed (\d+) insns`)
	stackDepth = regexp.MustCompile(`stack depth ([\d+]+)`)
)

func costOf(t *testing.T, name string, p *ebpf.Program) cost {
	t.Helper()
	var c cost
	if m := processed.FindStringSubmatch(p.VerifierLog); m != nil {
		fmt.Sscan(m[1], &c.Instructions)
	}
	if m := stackDepth.FindStringSubmatch(p.VerifierLog); m != nil {
		for _, f := range strings.Split(m[1], "+") {
			var n uint32
			fmt.Sscan(f, &n)
			c.Stack += n
		}
	}
	if c.Instructions == 0 || !stackDepth.MatchString(p.VerifierLog) {
		t.Fatalf("%s: the verifier does not say what it did:\n%s", name, p.VerifierLog)
	}
	return c
}
