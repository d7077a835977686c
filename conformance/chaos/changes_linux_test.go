// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// TestChanges makes random changes, good and bad, while what they do not touch is
// used. No request fails there; in the end Envoy has what one has that knows the end
// alone; and neither it nor its proxy has grown.
func TestChanges(t *testing.T) {
	need.Root(t)
	need.Envoy(t)
	need.Command(t, "nft")
	need.Command(t, "ip")
	if !isolated(t) {
		return
	}
	rng := random(t)
	setUpNetwork(t)
	c := newChurn(rng)
	startServers(t, c)
	for range 6 * groups { // something of everything
		c.change()
	}
	k := &kernel{}
	n := start(t, k, c.all())
	load := loadStill(t)
	walking, stop := context.WithCancel(t.Context())
	var walkers sync.WaitGroup
	w := newWalk(k, c)
	for i := range 3 {
		own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		walkers.Go(func() { w.run(walking, own) })
	}
	t.Cleanup(func() { stop(); walkers.Wait() })

	var samples []sample
	made, spoilt, loads := 0, 0, 0
	begin := time.Now()
	for made < *changesFlag {
		for range 1 + rng.IntN(4) {
			c.change()
			made++
		}
		n.load(c.all())
		loads++
		if rng.IntN(12) == 0 {
			n.spoilOne(rng, loads)
			spoilt++
		}
		if len(n.spoilt) > 0 && rng.IntN(6) == 0 {
			n.heal(rng)
		}
		if made*10/(*changesFlag) > len(samples) {
			samples = append(samples, n.sample(made))
		}
	}
	took := time.Since(begin)
	for len(n.spoilt) > 0 {
		n.heal(rng)
	}
	var invalid []string
	for _, d := range n.pipe.Diagnostics() {
		if d.Code == "last-good-kept" {
			invalid = append(invalid, d.Source.File)
		}
	}
	c.mend(invalid)
	n.load(c.all())
	t.Logf("%d changes in %d loads, and %d resources that Envoy rejects, in %.1f s: %.0f changes/s", made, loads, spoilt, took.Seconds(), float64(made)/took.Seconds())
	t.Logf("of these: %v", c.counts)
	stop()
	walkers.Wait()
	load.end()
	t.Logf("%d requests for what changes: %v", w.asked.Load(), w.statuses)
	for _, wrong := range w.wrong {
		t.Error(wrong)
	}
	if err := n.renderer.Errors(); err != nil {
		t.Errorf("not rendered: %v", err)
	}
	if bad := n.feed.Status().Rejected; len(bad) > 0 {
		t.Errorf("rejected still: %+v", bad)
	}
	for _, s := range samples {
		t.Log(s)
	}
	if *changesFlag >= 5000 { // in less time it gets to know services still
		compareSamples(t, samples)
	}
	fed := map[string]string{}
	for _, r := range n.feed.Resources() {
		fed[xds.Short(r.Type)+" "+r.Name] = r.Version
	}
	n.askAll() // as the fresh one will be, before it is idle
	idle, config := n.idle(), n.askAll()
	st := n.status()
	t.Logf("sent to Envoy: %+v; %d tables evicted", st.Served.Counters, st.Evicted)
	n.stop()
	n = start(t, k, c.all())
	scratch := map[string]string{}
	for _, r := range n.feed.Resources() {
		scratch[xds.Short(r.Type)+" "+r.Name] = r.Version
	}
	for name := range fed { // their ports differ
		if strings.HasPrefix(name, "Listener ") && scratch[name] != "" {
			scratch[name] = fed[name]
		}
	}
	if d := cmp.Diff(scratch, fed); d != "" {
		t.Errorf("an agent that knows the end alone (-) feeds other versions than one with a past (+):\n%.4000s", d)
	}
	compareConfigs(t, config, n.askAll())
	compareIdle(t, idle, n.idle())
}

// spoilOne feeds a version of a resource that Envoy rejects.
func (n *node) spoilOne(rng *rand.Rand, number int) {
	n.t.Helper()
	all := n.churned()
	for k := range n.want {
		if k.typ == xds.ListenerType {
			all = append(all, k) // what is served must not mind
		}
	}
	if len(all) == 0 {
		return
	}
	k := all[rng.IntN(len(all))]
	bad, err := spoil(n.want[k], number)
	if err != nil {
		n.t.Fatal(err)
	}
	n.spoilt[k] = true
	n.push([]serve.Change{serve.Set(bad)})
}

// heal feeds what is wanted in place of a bad version.
func (n *node) heal(rng *rand.Rand) {
	n.t.Helper()
	all := slices.SortedFunc(maps.Keys(n.spoilt), compareKeys)
	k := all[rng.IntN(len(all))]
	delete(n.spoilt, k)
	n.push([]serve.Change{serve.Set(n.want[k])})
}
