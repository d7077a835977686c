// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/metrics"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds/serve"
)

// healthy is a node on which all is well, which has run for some time: what counts, counts.
func healthy(since time.Duration) *agent.Status {
	n := uint64(since / time.Second)
	served := serve.Status{Resources: map[string]int{"Cluster": 3}, Counters: serve.Counters{Resources: 5 + n, Responses: 4 + n, Bytes: 700 + 10*n, Acks: 3 + n}}
	return &agent.Status{
		Node: "node-1", Objects: 12, Revision: "a", Applied: "a", Warnings: 1, APIServer: &kube.Health{Complete: true},
		Peers: []kube.Peer{{Node: "node-2"}}, Plugin: &agent.PluginStatus{}, Feed: served,
		Proxy: &proxy.Status{
			Envoy: proxy.EnvoyStatus{State: "LIVE", Connected: true, Starts: 1}, Generations: []proxy.Generation{{Role: proxy.Active, Connections: 7}},
			Feed: proxy.FeedStatus{Connected: true, Synced: true}, Served: served,
		},
		Kernel: datapath.Status{
			Interfaces: []datapath.Attached{{Name: "eth0"}}, Host: []datapath.Need{{Name: "rule", OK: true}}, Features: []datapath.Need{{Name: "tcx", OK: true}},
			Pods: []datapath.PodStatus{{Name: "a/ready", Ready: true, Guarded: true}}, Maps: []datapath.MapStatus{{Name: "fl_policy_v1", Entries: 3, Max: 100}},
			Counters: map[string]uint64{"policy": n / 10, "direct": 80 * n, "spoofed": n / 600},
		},
		Writes: map[string]uint64{"fl_policy_v1": 6}, Flows: agent.FlowCounts{Seen: 90 * n},
	}
}

// scenarios are what each alert is about: what is wrong with the node, for so long. Others may
// fire besides.
var scenarios = map[string]struct {
	broken func(s *agent.Status, since time.Duration)
	silent bool // the agent does not answer
}{
	"FairleadAgentDown":  {silent: true},
	"FairleadNotApplied": {broken: func(s *agent.Status, _ time.Duration) { s.Revision = "b" }},
	"FairleadProblem":    {broken: func(s *agent.Status, _ time.Duration) { s.Problem = "no Envoy is connected" }},
	"FairleadPodsUnguarded": {broken: func(s *agent.Status, _ time.Duration) {
		s.Kernel.Pods[0].Guarded, s.Kernel.Pods[0].Ready = false, false
	}},
	"FairleadRejected":        {broken: func(s *agent.Status, _ time.Duration) { s.Rejected = []agent.Rejected{{Type: "Cluster"}} }},
	"FairleadUnacknowledged":  {broken: func(s *agent.Status, _ time.Duration) { s.Waiting = []agent.Waiting{{Type: "Listener"}} }},
	"FairleadProxyDown":       {broken: func(s *agent.Status, _ time.Duration) { s.Proxy, s.ProxyError = nil, "refused" }},
	"FairleadEnvoyDown":       {broken: func(s *agent.Status, _ time.Duration) { s.Proxy.Envoy.State, s.Proxy.Envoy.Connected = "", false }},
	"FairleadEnvoyRestarts":   {broken: func(s *agent.Status, since time.Duration) { s.Proxy.Envoy.Restarts = int(since / (2 * time.Minute)) }},
	"FairleadBypassed":        {broken: func(s *agent.Status, _ time.Duration) { at := time.Unix(1, 0); s.BypassedSince = &at }},
	"FairleadProxyNotFed":     {broken: func(s *agent.Status, _ time.Duration) { s.Proxy.Feed = proxy.FeedStatus{} }},
	"FairleadMapFilling":      {broken: func(s *agent.Status, _ time.Duration) { s.Kernel.Maps[0].Entries = 91 }},
	"FairleadDatapathMissing": {broken: func(s *agent.Status, _ time.Duration) { s.Kernel.Interfaces[0].Reason = "no such interface" }},
	"FairleadDropsRise": {broken: func(s *agent.Status, since time.Duration) {
		s.Kernel.Counters["policy"] += 20 * uint64(since/time.Second)
	}},
	"FairleadSpoofing": {broken: func(s *agent.Status, since time.Duration) {
		s.Kernel.Counters["spoofed"] += uint64(since / time.Second)
	}},
	"FairleadFlowsLost": {broken: func(s *agent.Status, since time.Duration) {
		s.Flows.LostKernel = uint64(since / time.Second)
	}},
	"FairleadAPIServerAway":    {broken: func(s *agent.Status, _ time.Duration) { s.APIServer.Problems = []kube.Problem{{What: "away"}} }},
	"FairleadPodsWait":         {broken: func(s *agent.Status, _ time.Duration) { s.Plugin.Waiting = 1 }},
	"FairleadPeersNotBelieved": {broken: func(s *agent.Status, _ time.Duration) { s.Peers[0].Behind = "silent" }},
}

// Every alert has a scenario. Nothing fires on a node that is well; the alert fires when the node
// has been in its state for a quarter of an hour, and no more an hour after it has got out.
func TestEachAlertFires(t *testing.T) {
	var names []string
	for _, r := range newServer(t).group.AlertingRules() {
		names = append(names, r.Name())
		if _, there := scenarios[r.Name()]; !there {
			t.Errorf("alert %s has no scenario: nobody has seen it fire", r.Name())
		}
	}
	for name, c := range scenarios {
		t.Run(name, func(t *testing.T) {
			if !slices.Contains(names, name) {
				t.Fatalf("%s has no such alert", file)
			}
			const well, ill = 2 * time.Hour, 15 * time.Minute
			s := newServer(t)
			s.live(well, healthy)
			if got := s.firing(); len(got) > 0 {
				t.Fatalf("on a node that is well fire %v", got)
			}
			s.live(ill, func(since time.Duration) *agent.Status {
				if c.silent {
					return nil
				}
				st := healthy(well + since)
				c.broken(st, since)
				return st
			})
			if got := s.firing(); !slices.Contains(got, name) {
				t.Errorf("fires not, but %v", got)
			} else {
				t.Logf("fire: %v", got)
			}
			s.live(well, func(since time.Duration) *agent.Status { return healthy(well + ill + since) })
			if got := s.firing(); len(got) > 0 {
				t.Errorf("when it is over still fire %v", got)
			}
		})
	}
}

// No alert rests on a series that no agent has.
func TestSeriesAreThere(t *testing.T) {
	known := metrics.Names()
	for _, r := range newServer(t).group.AlertingRules() {
		found := regexp.MustCompile(`fairlead_[a-z_]+`).FindAllString(r.Query().String(), -1)
		if len(found) == 0 {
			t.Errorf("%s rests on nothing of ours: %s", r.Name(), r.Query())
		}
		for _, name := range found {
			if !slices.Contains(known, name) {
				t.Errorf("%s rests on %s, which nobody has; there are %s", r.Name(), name, strings.Join(known, ", "))
			}
		}
	}
}
