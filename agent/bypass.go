// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// Absence says what becomes of connections that a proxy should take while no Envoy is
// ready on the node.
type Absence string

const (
	// Hold leaves them to the proxy: they wait for one for 3 s, and are refused then.
	Hold Absence = "hold"
	// Bypass has the kernel balance them at connect, without routes. Policy at their
	// destinations stays as it is: what has to be judged by request is refused.
	Bypass Absence = "bypass"
)

// String, Set and Type make it a flag.
func (a *Absence) String() string { return string(*a) }

// Set takes "hold" or "bypass".
func (a *Absence) Set(s string) error {
	switch v := Absence(s); v {
	case Hold, Bypass:
		*a = v
		return nil
	}
	return fmt.Errorf("want %s or %s", Hold, Bypass)
}

// Type is what stands in help.
func (a *Absence) Type() string { return string(Hold + "|" + Bypass) }

// bypassed is a service as the kernel has it while there is no proxy; nil: not at all.
// Addresses that are a pod's own are reached without it, and those that nobody is
// known to have are nobody's but the proxy's.
func bypassed(s *plan.Service) *plan.Service {
	switch {
	case s.Mode == plan.Kernel:
		return s
	case s.Mode == plan.Any, s.Direct:
		return nil
	}
	out := *s
	out.Mode = plan.Kernel
	return &out
}

// bypassRows are the kernel's rows while there is no proxy.
func bypassRows(rows []incr.Row) []incr.Row {
	out := make([]incr.Row, 0, len(rows))
	for _, r := range rows {
		if s, ok := r.Value.(*plan.Service); ok {
			if s = bypassed(s); s == nil {
				continue
			}
			r.Value = s
		}
		out = append(out, r)
	}
	return out
}

// bypassChanges is the same of changes.
func bypassChanges(changes []incr.Change) []incr.Change {
	value := func(v any) any {
		if s, ok := v.(*plan.Service); ok {
			if s = bypassed(s); s == nil {
				return nil
			}
			return s
		}
		return v
	}
	out := make([]incr.Change, 0, len(changes))
	for _, c := range changes {
		if c.Old, c.New = value(c.Old), value(c.New); c.Old != nil || c.New != nil {
			out = append(out, c)
		}
	}
	return out
}
