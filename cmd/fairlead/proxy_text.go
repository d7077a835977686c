// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/proxy"
)

func replacementLine(r proxy.Replacement) string {
	switch r.State {
	case proxy.ReplacementUnneeded:
		return "not replaced: what runs is what would be started"
	case proxy.ReplacementFailed:
		return fmt.Sprintf("not replaced (%s): %s", r.Reason, r.Error)
	case proxy.ReplacementDone:
		return fmt.Sprintf("replaced in %v (%s): pid %d in bank %d", r.Ended.Sub(r.Began).Round(time.Millisecond), r.Reason, r.PID, r.Bank)
	case proxy.ReplacementStarting:
		return fmt.Sprintf("being replaced (%s): pid %d in bank %d gets ready", r.Reason, r.PID, r.Bank)
	}
	return fmt.Sprintf("to be replaced (%s) when the other bank is free", r.Reason)
}

// proxyRows are the rows of a status that are about the proxy.
func proxyRows(s *agent.Status, now time.Time) [][]string {
	if s.Proxy == nil {
		return [][]string{{"envoy", "unknown: " + s.ProxyError}}
	}
	p := s.Proxy
	rows := [][]string{{"proxy", "version " + orUnknown(p.Version)}}
	if p.Envoy.PID == 0 {
		rows = append(rows, []string{"envoy", p.Envoy.State})
	}
	for _, g := range p.Generations {
		rows = append(rows, []string{"envoy", generationLine(g, p.Envoy, now)})
	}
	if p.Envoy.Restarts > 0 {
		rows = append(rows, []string{"envoy", fmt.Sprintf("restarted after a crash: %d times", p.Envoy.Restarts)})
	}
	if e := p.Envoy.LastEnd; e != nil {
		rows = append(rows, []string{"envoy", fmt.Sprintf("pid %d was lost %v ago: %s", e.PID, now.Sub(e.At).Round(time.Second), e.Why)})
	}
	if p.Replacement != nil {
		rows = append(rows, []string{"replacement", replacementLine(*p.Replacement)})
	}
	if p.StateError != "" {
		rows = append(rows, []string{"proxy", "configuration from the agent alone: " + p.StateError})
	}
	if p.SaveError != "" {
		rows = append(rows, []string{"proxy", "configuration is not saved, and is tried again; a proxy that is started now would begin with an older one: " + p.SaveError})
	}
	return append(rows, []string{"routes", fmt.Sprintf("%d tables in use, %d evicted", p.InUse, p.Evicted)})
}

// ownRows are the rows that are about proxies that namespaces have of their own.
func ownRows(own []agent.OwnStatus, now time.Time) (rows [][]string) {
	for _, o := range own {
		about := "envoy of " + o.Namespace
		say := func(line string) { rows = append(rows, []string{about, line}) }
		if o.Problem != "" {
			say("not as wanted: " + o.Problem)
		}
		if o.ProxyError != "" {
			say("proxy: " + o.ProxyError)
		}
		for _, r := range o.Rejected {
			say(fmt.Sprintf("rejected %s %s: %s; serving %s", r.Type, r.Name, r.Detail, r.Serving))
		}
		if o.Proxy == nil {
			continue
		}
		for _, g := range o.Proxy.Generations {
			say(fmt.Sprintf("%s; user %d, %d MiB", generationLine(g, o.Proxy.Envoy, now), o.UID, o.Memory>>20))
		}
		if n := o.Proxy.Envoy.Restarts; n > 0 {
			say(fmt.Sprintf("restarted after a crash: %d times", n))
		}
		if e := o.Proxy.Envoy.LastEnd; e != nil {
			say(fmt.Sprintf("pid %d was lost %v ago: %s", e.PID, now.Sub(e.At).Round(time.Second), e.Why))
		}
	}
	return rows
}

func generationLine(g proxy.Generation, serving proxy.EnvoyStatus, now time.Time) string {
	line := fmt.Sprintf("%s for %v, pid %d in bank %d, %s", g.Role, now.Sub(g.Since).Round(time.Second), g.PID, g.Bank, g.State)
	if g.Version != "" {
		line += ", " + g.Version
	}
	if g.Role == proxy.Draining || g.Connections > 0 {
		line += fmt.Sprintf(", %d connections", g.Connections)
	}
	if g.Waits != "" {
		line += ", not ready: " + g.Waits
	}
	if g.Trouble != "" {
		line += ", trouble: " + g.Trouble
	}
	if g.PID == serving.PID && !serving.Connected {
		line += ", not connected"
	}
	return line
}
