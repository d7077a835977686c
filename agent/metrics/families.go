// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds/serve"
)

// family is a metric and how its samples are had.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	// read adds a sample for each value of the labels, in their order.
	read func(s *agent.Status, add func(value float64, labels ...string))
}

const (
	counter = prometheus.CounterValue // only grows, from the start of who counts
	gauge   = prometheus.GaugeValue
)

// families are all that is told of a node, in the order of the reference.
var families = []family{
	{"fairlead_agent_applied", "1 if what was read last is in use, in Envoy and in the kernel.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) {
			add(truth(s.Applied == s.Revision && s.Revision != ""))
		}},
	{"fairlead_agent_problem", "1 if something keeps the node from being as its source says; fairlead status says what.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(truth(s.Problem != "")) }},
	{"fairlead_agent_objects", "Objects that were read.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(float64(s.Objects)) }},
	{"fairlead_agent_diagnostics", "What translators say of the objects, by severity: error (refused), warning (approximated).", gauge, []string{"severity"},
		func(s *agent.Status, add func(float64, ...string)) {
			add(float64(s.Errors), "error")
			add(float64(s.Warnings), "warning")
		}},
	{"fairlead_agent_pods", "Pods of the node by state: ready, pending (not redirected yet, or not found), observed (nothing is enforced).", gauge, []string{"state"}, pods},
	{"fairlead_agent_unguarded_pods", "Pods of the node whose policy is not in the kernel yet.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) {
			n := 0
			for _, p := range s.Kernel.Pods {
				n += int(truth(!p.Guarded && !p.Observed))
			}
			add(float64(n))
		}},
	{"fairlead_agent_rejected", "Resources that Envoy does not take as they are, by type; fairlead explain says what is served instead.", gauge, []string{"type"},
		func(s *agent.Status, add func(float64, ...string)) {
			byType := map[string]int{}
			for _, r := range s.Rejected {
				byType[r.Type]++
			}
			each(byType, add)
		}},
	{"fairlead_agent_unacknowledged", "Resources that Envoy has not acknowledged in time.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(float64(len(s.Waiting))) }},
	{"fairlead_agent_bypassed", "1 while the kernel balances captured connections itself, for want of an Envoy.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(truth(s.BypassedSince != nil)) }},
	{"fairlead_agent_plugin_waiting_pods", "Pods that the CNI plugin does not let start yet.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) {
			if s.Plugin != nil {
				add(float64(s.Plugin.Waiting))
			}
		}},
	{"fairlead_agent_peers", "Agents that were heard of, by whether what their node's proxy has checked counts here.", gauge, []string{"believed"},
		func(s *agent.Status, add func(float64, ...string)) {
			behind := 0
			for _, p := range s.Peers {
				behind += int(truth(p.Behind != ""))
			}
			add(float64(len(s.Peers)-behind), "true")
			add(float64(behind), "false")
		}},

	{"fairlead_apiserver_complete", "1 if all that the API server has was read once.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) {
			if s.APIServer != nil {
				add(truth(s.APIServer.Complete))
			}
		}},
	{"fairlead_apiserver_problems", "What is not as it should be between agent and API server; fairlead status says what to do.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) {
			if s.APIServer != nil {
				add(float64(len(s.APIServer.Problems)))
			}
		}},

	{"fairlead_datapath_connections_total", "Decisions of the kernel that let something on its way, by reason.", counter, []string{"reason"},
		func(s *agent.Status, add func(float64, ...string)) { reasons(s, false, add) }},
	{"fairlead_datapath_drops_total", "Packets and connections that the kernel refused, by reason.", counter, []string{"reason"},
		func(s *agent.Status, add func(float64, ...string)) { reasons(s, true, add) }},
	{"fairlead_datapath_observed_total", "What the kernel let pass because its namespace is observed, and would have refused or handed to Envoy.", counter, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(float64(s.Kernel.Counters["observed"])) }},
	{"fairlead_datapath_map_entries", "Entries of a map of the kernel.", gauge, []string{"map"},
		func(s *agent.Status, add func(float64, ...string)) {
			for _, m := range s.Kernel.Maps {
				add(float64(m.Entries), m.Name)
			}
		}},
	{"fairlead_datapath_map_max_entries", "Entries that a map of the kernel has room for.", gauge, []string{"map"},
		func(s *agent.Status, add func(float64, ...string)) {
			for _, m := range s.Kernel.Maps {
				add(float64(m.Max), m.Name)
			}
		}},
	{"fairlead_datapath_map_writes_total", "Writes of this agent to a map of the kernel.", counter, []string{"map"},
		func(s *agent.Status, add func(float64, ...string)) {
			for _, name := range slices.Sorted(maps.Keys(s.Writes)) {
				add(float64(s.Writes[name]), name)
			}
		}},
	{"fairlead_datapath_missing", "What the node does not give the datapath: programs that are not attached, features, settings.", gauge, []string{"of"},
		func(s *agent.Status, add func(float64, ...string)) {
			attached := truth(s.Kernel.Cgroup.Reason != "")
			for _, a := range s.Kernel.Interfaces {
				attached += truth(a.Reason != "")
			}
			add(lacking(s.Kernel.Features), "features")
			add(lacking(s.Kernel.Host), "host")
			add(attached, "programs")
		}},

	{"fairlead_flows_seen_total", "Flows that the agent has seen.", counter, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(float64(s.Flows.Seen)) }},
	{"fairlead_flows_lost_total", "Flows that were lost on the way to who observes, by where.", counter, []string{"where"},
		func(s *agent.Status, add func(float64, ...string)) {
			add(float64(s.Flows.LostAccessLog), "access-log")
			add(float64(s.Flows.LostKernel), "kernel")
			add(float64(s.Flows.LostObservers), "observers")
		}},

	{"fairlead_xds_resources", "Resources that are there for Envoy, by type: what the agent has (agent), and what the proxy serves (proxy).", gauge, []string{"by", "type"},
		func(s *agent.Status, add func(float64, ...string)) {
			both(s, func(by string, served serve.Status) {
				each(served.Resources, func(v float64, l ...string) { add(v, by, l[0]) })
			})
		}},
	{"fairlead_xds_sent_bytes_total", "Bytes of resources that were sent: to the proxy (agent), and to Envoys (proxy).", counter, []string{"by"},
		func(s *agent.Status, add func(float64, ...string)) {
			both(s, func(by string, served serve.Status) { add(float64(served.Counters.Bytes), by) })
		}},
	{"fairlead_xds_sent_resources_total", "Resources that were sent, likewise.", counter, []string{"by"},
		func(s *agent.Status, add func(float64, ...string)) {
			both(s, func(by string, served serve.Status) { add(float64(served.Counters.Resources), by) })
		}},
	{"fairlead_xds_responses_total", "Answers to what was sent, by result: ack, nack.", counter, []string{"by", "result"},
		func(s *agent.Status, add func(float64, ...string)) {
			both(s, func(by string, served serve.Status) {
				add(float64(served.Counters.Acks), by, "ack")
				add(float64(served.Counters.Nacks), by, "nack")
			})
		}},

	{"fairlead_proxy_up", "1 if the node's proxy answers its agent.", gauge, nil,
		func(s *agent.Status, add func(float64, ...string)) { add(truth(s.Proxy != nil)) }},
	{"fairlead_proxy_fed", "1 if the proxy hears the agent, and has heard it completely.", gauge, nil, ofProxy(
		func(p *proxy.Status) float64 { return truth(p.Feed.Connected && p.Feed.Synced) })},
	{"fairlead_proxy_envoy_live", "1 if the Envoy that serves says that it is live and is connected to the proxy.", gauge, nil, ofProxy(
		func(p *proxy.Status) float64 { return truth(p.Envoy.State == "LIVE" && p.Envoy.Connected) })},
	{"fairlead_proxy_envoy_starts_total", "Envoys that this proxy has started or taken over.", counter, nil, ofProxy(
		func(p *proxy.Status) float64 { return float64(p.Envoy.Starts) })},
	{"fairlead_proxy_envoy_restarts_total", "Of these, those for one that ended unasked while it served.", counter, nil, ofProxy(
		func(p *proxy.Status) float64 { return float64(p.Envoy.Restarts) })},
	{"fairlead_proxy_envoy_generations", "Envoys that run: more than one while one replaces another, or stands by.", gauge, nil, ofProxy(
		func(p *proxy.Status) float64 { return float64(len(p.Generations)) })},
	{"fairlead_proxy_envoy_connections", "Connections of clients that are open, by the role of their Envoy.", gauge, []string{"role"},
		func(s *agent.Status, add func(float64, ...string)) {
			if s.Proxy != nil {
				open := map[string]uint64{}
				for _, g := range s.Proxy.Generations {
					open[string(g.Role)] += g.Connections
				}
				each(open, add)
			}
		}},
	{"fairlead_proxy_route_tables", "Route tables that Envoys have asked for and hold.", gauge, nil, ofProxy(
		func(p *proxy.Status) float64 { return float64(p.InUse) })},
	{"fairlead_proxy_route_tables_evicted_total", "Route tables that were taken from Envoys because nobody used them.", counter, nil, ofProxy(
		func(p *proxy.Status) float64 { return float64(p.Evicted) })},
	{"fairlead_proxy_host_lookups_total", "Requests whose host the proxy was asked for, by result: resolved, passed (no service of the cluster), refused.", counter, []string{"result"},
		func(s *agent.Status, add func(float64, ...string)) {
			if s.Proxy != nil {
				add(float64(s.Proxy.Authority.Passed), "passed")
				add(float64(s.Proxy.Authority.Refused), "refused")
				add(float64(s.Proxy.Authority.Resolved), "resolved")
			}
		}},
}

func pods(s *agent.Status, add func(float64, ...string)) {
	n := map[string]int{"observed": 0, "pending": 0, "ready": 0}
	for _, p := range s.Kernel.Pods {
		switch {
		case p.Observed:
			n["observed"]++
		case p.Ready:
			n["ready"]++
		default:
			n["pending"]++
		}
	}
	each(n, add)
}

// reasons adds those that drop, or the others; also those that have not been yet, so that
// an increase from nothing is one.
func reasons(s *agent.Status, drop bool, add func(float64, ...string)) {
	for _, r := range datapath.Reasons() {
		if datapath.Drops(r) == drop && r != "event-lost" && r != "observed" {
			add(float64(s.Kernel.Counters[r]), r)
		}
	}
}

func lacking(needs []datapath.Need) float64 {
	n := 0.
	for _, need := range needs {
		n += truth(!need.OK)
	}
	return n
}

// both calls f with what the agent serves its proxy, and with what that serves Envoys.
func both(s *agent.Status, f func(by string, served serve.Status)) {
	f("agent", s.Feed)
	if s.Proxy != nil {
		f("proxy", s.Proxy.Served)
	}
}

// ofProxy is one value of the proxy, none if it does not answer.
func ofProxy(read func(*proxy.Status) float64) func(*agent.Status, func(float64, ...string)) {
	return func(s *agent.Status, add func(float64, ...string)) {
		if s.Proxy != nil {
			add(read(s.Proxy))
		}
	}
}

func each[N int | uint64](values map[string]N, add func(float64, ...string)) {
	for _, label := range slices.Sorted(maps.Keys(values)) {
		add(float64(values[label]), label)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Names are those of all that is told of a node, in the order of the reference.
func Names() []string {
	var out []string
	for _, f := range families {
		out = append(out, f.name)
	}
	return out
}
