// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"fairlead.io/fairlead/datapath"
)

// othersEvery is how often it is looked who else takes part in what the kernel does with
// packets and sockets: whoever is installed later stands there, too.
const othersEvery = 30 * time.Second

// datapathOptions are those that preflight looks by.
func (o *Options) datapathOptions() datapath.Options {
	return datapath.Options{PinDir: o.Bpffs, StateDir: o.RunDir, Cgroup: o.Cgroup, Uplinks: o.Uplinks}
}

// keepFinding looks again and again at what may change.
func (a *agent) keepFinding(ctx context.Context, others func() []datapath.Finding) error {
	t := time.NewTicker(othersEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			a.found(others())
		}
	}
}

// found makes known what stands in the way, once for as long as it does. What others
// looked at before stays as it was found.
func (a *agent) found(all []datapath.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.findings
	a.findings = nil
	looked := func(name string) bool {
		return slices.ContainsFunc(all, func(f datapath.Finding) bool { return f.Name == name })
	}
	for _, f := range was {
		if !looked(f.Name) {
			a.findings = append(a.findings, f)
		}
	}
	for _, f := range all {
		if f.Level != datapath.Fine {
			a.findings = append(a.findings, f)
		}
		switch had := slices.Contains(was, f); {
		case f.Level == datapath.Problem && !had:
			a.log.Log(context.Background(), slog.LevelError, "stands in the way", "what", f.Name, "found", f.Detail, "advice", f.Advice)
		case f.Level == datapath.Warning && !had:
			a.log.Warn("stands beside", "what", f.Name, "found", f.Detail, "advice", f.Advice)
		case f.Level == datapath.Fine && slices.ContainsFunc(was, func(w datapath.Finding) bool { return w.Name == f.Name }):
			a.log.Info("stands in the way no more", "what", f.Name)
		}
	}
}

// findingsLimit and detailLimit bound what the Lease tells: every agent hears of it.
const findingsLimit, detailLimit = 6, 300

// findingsNoteLocked is what the Lease tells of findings, the worst first; "" if there are
// none. It is called with mu held.
func (a *agent) findingsNoteLocked() string {
	var all []datapath.Finding
	for _, level := range []datapath.Level{datapath.Problem, datapath.Warning} {
		for _, f := range a.findings {
			if f.Level == level && len(all) < findingsLimit {
				f.Detail, f.Advice = shortened(f.Detail), shortened(f.Advice)
				all = append(all, f)
			}
		}
	}
	if len(all) == 0 {
		return ""
	}
	text, _ := json.Marshal(all) // strings alone
	return string(text)
}

func shortened(s string) string {
	if len(s) <= detailLimit {
		return s
	}
	return s[:detailLimit] + "..."
}
