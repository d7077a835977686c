// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/render"
)

const (
	// Envoy is told that clusters of connections are gone, at most of so many that it
	// asked for, by stand-ins of so many bytes.
	maxStandIns  = 500
	standInBytes = 20 << 10
)

// sample is what a node's processes hold.
type sample struct {
	made         int // changes
	allocated    int // bytes in Envoy
	counts       map[string]int
	envoy, proxy process
}

func (s sample) String() string {
	return fmt.Sprintf("after %d changes: Envoy %.1f MB, resident %.1f MB, %d descriptors, %v; proxy resident %.1f MB, %d descriptors",
		s.made, mb(s.allocated), mb(s.envoy.rss<<10), s.envoy.descriptors, s.counts, mb(s.proxy.rss<<10), s.proxy.descriptors)
}

func mb(bytes int) float64 { return float64(bytes) / (1 << 20) }

func (n *node) sample(made int) sample {
	n.t.Helper()
	s := sample{made: made, allocated: n.admin().allocated(), counts: n.admin().counts()}
	var err error
	if s.envoy, err = measure(n.status().Envoy.PID); err != nil {
		n.t.Fatal(err)
	}
	if s.proxy, err = measure(n.proxy.Process.Pid); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// askAll asks for all that there is, and returns what Envoy has then.
func (n *node) askAll() map[string]string {
	n.t.Helper()
	var config map[string]string
	n.waitFor("all that was asked for", func() bool { // of which some is gone by now if asking took long
		n.kernel.askAll()
		config = n.admin().config()
		for _, at := range n.kernel.paths() {
			if s, ok := n.pipe.Get(plan.Scopes, plan.DestinationKey(at.to)).(*plan.Scope); ok && config["route_configs "+s.RouteTable] == "" {
				return false
			}
		}
		return true
	})
	return config
}

// idle waits until Envoy has let everything go, and returns what it holds then.
func (n *node) idle() sample {
	n.t.Helper()
	n.waitFor("all tables and clusters to go", func() bool { // of the clusters Envoy keeps those that it asked for by name
		if n.status().InUse > 0 {
			return false
		}
		for name := range n.admin().config() {
			if cluster, ok := strings.CutPrefix(name, "active_clusters "); ok && !render.OfConnections(cluster) {
				return false
			}
		}
		return true
	})
	s := n.sample(0)
	n.t.Log("idle: ", s)
	return s
}

// compareConfigs fails unless an Envoy with a past has what a fresh one has, asked for
// the same.
func compareConfigs(t *testing.T, changed, fresh map[string]string) {
	t.Helper()
	t.Logf("%d stand-ins", dropStandIns(changed)-dropStandIns(fresh))
	if d := cmp.Diff(fresh, changed); d != "" {
		t.Errorf("asked for everything, an Envoy that knows the end alone (-) and one with a past (+) have:\n%.6000s", d)
	}
	kinds := map[string]int{}
	for name := range changed {
		var kind string
		fmt.Sscan(name, &kind)
		kinds[kind]++
	}
	t.Logf("asked for everything, both have %v", kinds)
	for _, kind := range []string{"active_clusters", "route_configs", "endpoint_configs", "scoped_route_configs"} {
		if kinds[kind] < groups {
			t.Errorf("just %d %s were compared", kinds[kind], kind)
		}
	}
}

// compareIdle fails if one with a past holds more than a fresh one, when nobody uses it.
func compareIdle(t *testing.T, changed, fresh sample) {
	t.Helper()
	// A statistic comes with the first use of something; see compareSamples.
	delete(fresh.counts, "statistics")
	delete(changed.counts, "statistics")
	standIns := changed.counts["stand-ins"]
	if standIns > maxStandIns {
		t.Errorf("%d stand-ins", standIns)
	}
	delete(fresh.counts, "stand-ins")
	delete(changed.counts, "stand-ins")
	if d := cmp.Diff(fresh.counts, changed.counts); d != "" {
		t.Errorf("asked for nothing, an Envoy that knows the end alone (-) and one with a past (+) have:\n%s", d)
	}
	noMore(t, "bytes in Envoy", changed.allocated-standIns*standInBytes, fresh.allocated, 1.15, 1<<20)
	noMore(t, "descriptors of Envoy", changed.envoy.descriptors, fresh.envoy.descriptors, 1, 8)
	noMore(t, "descriptors of the proxy", changed.proxy.descriptors, fresh.proxy.descriptors, 1, 4)
}

func noMore(t *testing.T, what string, is, than int, factor float64, more int) {
	t.Helper()
	if float64(is) > float64(than)*factor+float64(more) {
		t.Errorf("%s: %d, want no more than %d allow", what, is, than)
	}
}

// compareSamples fails if the last are higher than the early ones.
func compareSamples(t *testing.T, all []sample) {
	t.Helper()
	third := len(all) / 3
	median := func(of []sample, value func(sample) int) int {
		var v []int
		for _, s := range of {
			v = append(v, value(s))
		}
		return slices.Sorted(slices.Values(v))[len(v)/2]
	}
	for what, value := range map[string]func(sample) int{
		"bytes in Envoy":           func(s sample) int { return s.allocated - s.counts["stand-ins"]*standInBytes },
		"kB resident in Envoy":     func(s sample) int { return s.envoy.rss },
		"kB resident in the proxy": func(s sample) int { return s.proxy.rss },
		"statistics of Envoy":      func(s sample) int { return s.counts["statistics"] },
		"descriptors of Envoy":     func(s sample) int { return s.envoy.descriptors },
		"descriptors of the proxy": func(s sample) int { return s.proxy.descriptors },
	} {
		noMore(t, what, median(all[2*third:], value), median(all[third:2*third], value), 1.2, 20)
	}
}
