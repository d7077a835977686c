// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// balancing tells what the kernel gives clients of a service: "own", and where captured
// ones get something else "routed".
func balancing(s *incr.Store, key string) []string {
	row := s.Get(plan.Services, key).(*plan.Service)
	var out []string
	list := func(who string, of []plan.KernelBackend) {
		for _, b := range of {
			out = append(out, fmt.Sprintf("%s %s %d", who, b.Addr, b.Weight))
		}
		if len(of) == 0 {
			out = append(out, who+" nobody")
		}
	}
	list("own", row.Backends)
	if row.Routed != nil {
		list("routed", row.Routed.Backends)
	}
	return out
}

// A split that the kernel makes is for captured clients; all others get the service's own
// endpoints, as without it.
func TestL4SplitInTheKernel(t *testing.T) {
	to := func(service string, weight uint32) model.Backend {
		return model.Backend{Namespace: "shop", Service: service, Port: 5432, Weight: weight}
	}
	for name, c := range map[string]struct {
		backends []model.Backend
		want     []string
	}{
		"no routes":   {nil, []string{"own 10.244.1.8:5432 1", "own 10.244.1.9:5432 1"}},
		"split":       {[]model.Backend{to("db1", 75), to("db2", 25)}, []string{"own 10.244.1.8:5432 1", "own 10.244.1.9:5432 1", "routed 10.244.1.1:5432 3", "routed 10.244.1.2:5432 3", "routed 10.244.1.3:5432 2"}},
		"to itself":   {[]model.Backend{to("db", 7)}, []string{"own 10.244.1.8:5432 1", "own 10.244.1.9:5432 1"}},
		"to one's":    {[]model.Backend{to("db2", 1)}, []string{"own 10.244.1.8:5432 1", "own 10.244.1.9:5432 1", "routed 10.244.1.3:5432 1"}},
		"to nobody's": {[]model.Backend{to("ghost", 1)}, []string{"own 10.244.1.8:5432 1", "own 10.244.1.9:5432 1", "routed nobody"}},
	} {
		f := &model.Frontend{Namespace: "shop", Service: "db", Port: 5432, Backends: c.backends}
		db := service("db", "10.96.0.9", 5432, model.AppTCP)
		db.value.(*model.Service).Affinity = time.Minute
		s := store(db, service("db1", "10.96.0.10", 5432, ""), service("db2", "10.96.0.11", 5432, ""),
			endpoints("db", 5432, 5432, "10.244.1.8", "10.244.1.9"), endpoints("db1", 5432, 5432, "10.244.1.1", "10.244.1.2"),
			endpoints("db2", 5432, 5432, "10.244.1.3"), input{"route/blue", f.Key(), f})
		t.Run(name, func(t *testing.T) {
			check(t, balancing(s, "TCP/10.96.0.9:5432"), c.want...)
			if got := s.Get(plan.Services, "TCP/10.96.0.9:5432").(*plan.Service).Affinity; got != time.Minute {
				t.Errorf("affinity %s", got)
			}
		})
	}
}

// What the proxy routes is for captured clients, too: the kernel gives all others the
// service's own endpoints, wherever the routes lead.
func TestRoutesOfTheProxyAreNotTheKernels(t *testing.T) {
	canary := []model.Backend{{Namespace: "shop", Service: "canary", Port: 80, Weight: 1}}
	for app, f := range map[model.App]*model.Frontend{
		model.AppHTTP: {Routes: []model.Route{{Backends: canary}}},
		model.AppTCP:  {Connections: []model.ConnectionRoute{{Backends: canary}}},
	} {
		f.Namespace, f.Service, f.Port = "shop", "web", 80
		s := store(service("web", "10.96.0.1", 80, app), service("canary", "10.96.0.2", 80, app),
			endpoints("web", 80, 8080, "10.244.1.1"), endpoints("canary", 80, 8080, "10.244.1.2"), input{"route/blue", f.Key(), f})
		t.Run(string(app), func(t *testing.T) {
			check(t, balancing(s, "TCP/10.96.0.1:80"), "own 10.244.1.1:8080 1")
			if mode := s.Get(plan.Services, "TCP/10.96.0.1:80").(*plan.Service).Mode; mode == plan.Kernel {
				t.Errorf("mode %s", mode)
			}
		})
	}
}

// No plane routes datagrams.
func TestDatagramsAreNotRouted(t *testing.T) {
	f := &model.Frontend{Namespace: "shop", Service: "dns", Port: 53, Backends: []model.Backend{{Namespace: "shop", Service: "other", Port: 53, Weight: 1}}}
	dns, eps := service("dns", "10.96.0.1", 53, ""), endpoints("dns", 53, 5353, "10.244.1.1")
	dns.value.(*model.Service).Ports[0].Protocol, eps.value.(*model.Endpoints).Ports[0].Protocol = model.UDP, model.UDP
	s := store(dns, eps, service("other", "10.96.0.2", 53, ""), endpoints("other", 53, 5353, "10.244.1.2"), input{"route/blue", f.Key(), f})
	check(t, balancing(s, "UDP/10.96.0.1:53"), "own 10.244.1.1:5353 1")
}
