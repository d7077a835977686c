// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// proxied is a mode that some service has, so that captured pods need a listener of it.
type proxied struct {
	Mode          Mode
	DetectTimeout time.Duration
}

// need says that the rows are of a mode.
func (c *compiler) need(m Mode, wait time.Duration) {
	c.put(modes, string(m), proxied{m, wait})
}

// mode says who balances a port.
func (c *compiler) mode(p *servicePort) Mode {
	m, wait := Kernel, time.Duration(0)
	switch {
	case p.port.Protocol != model.TCP:
	case p.app.IsHTTP():
		m = HTTP
	case p.frontend == nil:
	case p.frontend.App == model.AppDetect:
		m, wait = c.detect(p)
	case len(p.frontend.Connections) > 0:
		m = Opaque
		if slices.ContainsFunc(p.frontend.Connections, func(r model.ConnectionRoute) bool { return len(r.ServerNames) > 0 }) {
			m = TLS
		}
	case len(p.service.VIPs) == 0 && !p.plain():
		m = Opaque // there is no address that the kernel could balance
	case slices.ContainsFunc(p.frontend.Backends, func(b model.Backend) bool { return b.Policy.NeedsProxy() }):
		m = Opaque
	}
	if m == Kernel && p.service.MeshOnly && p.port.Protocol == model.TCP {
		m = Opaque // the kernel leaves such an address alone
	}
	if m != Kernel {
		c.need(m, wait)
	}
	return m
}

// detect finds the mode whose timeout is the port's, or else the next longer one.
func (c *compiler) detect(p *servicePort) (Mode, time.Duration) {
	var all []time.Duration
	for _, row := range c.r.All(detections) {
		all = append(all, row.Value.(time.Duration))
	}
	want := detectTimeout(p.frontend)
	for i, have := range kept(all) {
		if have != want && !longer(have, want) {
			continue
		}
		if have != want {
			c.say(tooManyTimeouts(p, have))
		}
		return detectModes[i], have
	}
	return Kernel, 0 // not reached: its own is among them, and the longest is kept
}

// detectTimeout is how long the first bytes are waited for; 0 is for ever.
func detectTimeout(f *model.Frontend) time.Duration { return max(0, f.DetectTimeout) }

var detectModes = []Mode{Detect, Detect2, Detect3}

// kept are as many of the timeouts, which are sorted, as there are modes: the longest,
// so that each has one that is not shorter, and the shortest.
func kept(all []time.Duration) []time.Duration {
	if n := len(detectModes); len(all) > n {
		return append(slices.Clone(all[:n-1]), all[len(all)-1])
	}
	return all
}

// longer orders timeouts; 0 is for ever.
func longer(a, b time.Duration) bool { return b != 0 && (a == 0 || a > b) }

func tooManyTimeouts(p *servicePort, have time.Duration) model.Diagnostic {
	text := "for ever"
	if have != 0 {
		text = have.String()
	}
	d := model.Diagnostic{Code: "too-many-timeouts", Effect: model.Degrades, Outcome: model.Approximated,
		Message: fmt.Sprintf("a node has at most %d times for which it waits for the first bytes: %s waits %s, not %s", len(detectModes), p.key, text, detectTimeout(p.frontend)),
		Advice:  "say what the port speaks, or use fewer different timeouts"}
	if src := p.src(); len(src) > 0 {
		d.Source = src[0]
	}
	return d
}

// detectionStage lists the different timeouts, in their order.
func (b *builder) detectionStage() incr.Stage {
	return incr.Stage{Name: "plan/detection",
		Keys: map[incr.Table]func(string, any) []string{
			merge.Frontends: func(k string, v any) []string {
				if v.(*model.Frontend).App != model.AppDetect {
					return nil
				}
				return []string{k}
			},
		},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			f, _ := r.Get(merge.Frontends, key).(*model.Frontend)
			if f == nil || f.App != model.AppDetect {
				return nil
			}
			wait, k := detectTimeout(f), "forever" // behind all numbers
			if wait > 0 {
				k = fmt.Sprintf("%019d", wait)
			}
			return []incr.Row{{Table: detections, Key: k, Value: wait}}
		}}
}
