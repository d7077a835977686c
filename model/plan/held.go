// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// held has a row for each pod of the node that is held to services: where unknown hosts
// are refused, so are connections to what is no service's.
const held incr.Table = "plan/held" // bool, key of the workload

func (b *builder) heldStage() incr.Stage {
	return incr.Stage{Name: "plan/held",
		Keys: map[incr.Table]func(string, any) []string{workloads: b.local},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			w, _ := r.Get(workloads, key).(*model.Workload)
			if w == nil || !w.Capture {
				return nil
			}
			if UnknownOf(r, w) != model.UnknownRefuse {
				return nil
			}
			return []incr.Row{{Table: held, Key: key, Value: true}}
		}}
}

// UnknownOf is what becomes of what a captured workload sends to hosts that nobody knows,
// "" if that is not asked.
func UnknownOf(t getter, w *model.Workload) model.Unknown {
	if u := unknownTo(t, w); u != "" {
		return u
	}
	if c := choiceOf(t, "", w.Namespace, nil); c.Basis == model.ByAuthority {
		return c.Unknown
	}
	return ""
}

// getter reads tables.
type getter interface {
	Get(t incr.Table, key string) any
}

// known puts the endpoints of a headless port, which have no entries otherwise, for pods
// that are held to services.
func (c *compiler) known(p *servicePort) {
	if p.port.Protocol != model.TCP || len(c.r.All(held)) == 0 {
		return
	}
	for _, e := range c.dialable(p) {
		s := &Service{Addr: e.Addr, Port: e.Port, Protocol: model.TCP, Name: p.service.Key(), Mode: Kernel, Direct: true}
		c.put(Services, s.Key(), s)
	}
}
