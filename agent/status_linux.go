// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/internal/version"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

var errNoEnvoy = errors.New("no Envoy is connected")

func (a *agent) ready() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.proxyOK
}

// publish copies for status what the loop owns; applied says that what was read last
// is in use.
func (a *agent) publish(applied bool) {
	a.noteUnusable()
	a.mu.Lock()
	defer a.mu.Unlock()
	if applied {
		a.applied, a.lagging = a.revision, time.Time{}
	}
	a.retiringCopy = map[string]int{}
	for k := range a.retiring {
		a.retiringCopy[xds.Short(k.typ)]++
	}
	a.portsCopy, a.livePorts = maps.Clone(a.ports.state.Used), map[string]uint16{}
	for name := range a.portsCopy {
		a.livePorts[name] = a.kernelPort(name)
	}
}

// topic is what a problem is about; each has one problem at most.
type topic string

const (
	aboutSource topic = "source"
	aboutEnvoy  topic = "envoy"
	aboutKernel topic = "kernel"
	aboutPorts  topic = "ports"
	aboutProxy  topic = "proxy"
	// aboutRecords is what plugins have told that makes no sense, aboutPlugin what keeps
	// the plugin from being where it is called.
	aboutRecords topic = "records"
	aboutPlugin  topic = "plugin"
	aboutClosed  topic = "fail-closed namespaces"
	// aboutOwn is why a namespace has no proxy of its own, aboutOwnFile why the node proxy
	// does not know which there are.
	aboutOwn     topic = "namespaces' proxies"
	aboutOwnFile topic = "list of namespaces' proxies"
)

// ofPlugin are topics that make the node no less as its source says.
var ofPlugin = []topic{aboutClosed, aboutPlugin, aboutRecords}

// say makes a problem known, once for as long as it lasts; "" ends it.
func (a *agent) say(about topic, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if problem == "" {
		delete(a.problems, about)
		return
	}
	if a.problems[about] != problem {
		a.log.Warn("not as wanted", "about", about, "problem", problem)
	}
	a.problems[about] = problem
}

// problemLocked tells of all problems. It is called with mu held.
func (a *agent) problemLocked() string {
	var problems []string
	for _, t := range slices.Sorted(maps.Keys(a.problems)) {
		if !slices.Contains(ofPlugin, t) {
			problems = append(problems, a.problems[t])
		}
	}
	return strings.Join(problems, "; ")
}

// readiness tells whether everything was read once, and what was read last is in use. An
// API server that goes away later does not change it: the node is as it last said.
func (a *agent) readiness() Readiness {
	health := a.src.health()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := Readiness{Revision: a.revision, Applied: a.applied}
	problem := a.problemLocked()
	switch {
	case health != nil && !health.Complete:
		out.Why = "not all objects were read yet: " + health.String()
	case a.revision == "":
		out.Why = "no objects were read yet"
	case problem != "":
		out.Why = problem
	case a.applied != a.revision:
		out.Why = "what was read last is not in use yet"
	default:
		out.Ready = true
	}
	return out
}

func (a *agent) status(kernel *datapath.Datapath, feed *serve.Server) Status {
	s := Status{Node: a.opts.Node, Version: version.String(), Uptime: time.Since(a.started).Round(time.Second).String(), Time: time.Now(), Source: a.src.String(), APIServer: a.src.health(),
		Pods: map[string]string{}, Feed: feed.Status(), Writes: kernel.Stats()}
	s.Plugin = a.pluginStatus()
	var err error
	if s.Kernel, err = kernel.Status(); err != nil {
		s.KernelError = err.Error()
	}
	s.Peers = a.peers()
	if a.lease != nil {
		renewed := a.lease.Status()
		s.Lease = &renewed
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p, err := proxy.ReadStatus(ctx, a.opts.RunDir); err == nil {
		s.Proxy = &p
	} else {
		s.ProxyError = err.Error()
	}
	s.Own = a.ownStatus()
	for _, p := range s.Kernel.Pods {
		s.Pods[p.Name] = "ready"
		if !p.Ready {
			s.Pods[p.Name] = "pending: " + p.Reason
		}
	}
	seen, lost := a.flows.Counts()
	s.Flows = FlowCounts{Seen: seen, LostKernel: s.Kernel.Lost, LostAccessLog: a.alog.Lost(), LostObservers: lost}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Objects, s.Revision, s.Applied = a.pipe.Objects(), a.revision, a.applied
	s.Problem, s.Preflight = a.problemLocked(), slices.Clone(a.findings)
	for _, d := range a.pipe.Diagnostics() {
		if d.IsError() {
			s.Errors++
		} else if d.Effect != model.Cosmetic {
			s.Warnings++
		}
	}
	if s.WhenProxyAbsent = cmp.Or(a.opts.WhenProxyAbsent, Hold); !a.absent.bypass.IsZero() {
		since := a.absent.bypass
		s.BypassedSince = &since
	}
	if a.standbyOf != a.revision {
		a.standby, a.standbyOf = diff.Standbys(a.pipe), a.revision
	}
	for _, r := range a.pipe.Rows(translators.Namespaces) {
		if r.Value.(*model.Namespace).Observed {
			s.Observed = append(s.Observed, r.Key)
		}
	}
	s.Standby, s.Retiring = a.standby, a.retiringCopy
	s.Ports, s.Rejected, s.AckLimit, s.Waiting = a.portsCopy, a.rejected.list(s.Proxy), ackLimit.String(), a.waits()
	return s
}
