// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/netip"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// ModeOf says who balances a service's port: at its addresses, or at its endpoints if it
// has none, or else at whatever address it is asked for. app is as its owner sees it.
func ModeOf(t Tables, s *model.Service, port uint16, app model.App) plan.Mode {
	at := func(a netip.Addr, port uint16) (plan.Mode, bool) {
		r, ok := t.Get(plan.Services, (&plan.Service{Addr: a, Port: port, Protocol: model.TCP}).Key()).(*plan.Service)
		if !ok || r.Name != s.Key() {
			return "", false
		}
		return r.Mode, true
	}
	for _, a := range s.VIPs {
		if m, ok := at(a, port); ok {
			return m
		}
	}
	if e, ok := t.Get(translators.Endpoints, s.Key()).(*model.Endpoints); ok && len(s.VIPs) == 0 {
		for _, p := range e.Ports {
			for _, b := range p.Backends {
				if m, ok := at(b.Addr, b.Port); ok && p.Port == port {
					return m
				}
			}
		}
	}
	switch {
	case s.Reach == model.ReachAddresses && len(s.Ranges) == 0:
	case app.IsHTTP():
		return plan.Any
	case s.Reach == model.ReachNamed && len(s.Ranges) == 0:
	case app == model.AppDetect || app == model.AppTLS:
		return plan.AnyDetect
	default:
		return plan.AnyOpaque
	}
	return plan.Kernel
}
