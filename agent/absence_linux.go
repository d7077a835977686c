// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"fairlead.io/fairlead/proxy"
)

const (
	// absentAfter is how long no Envoy is ready before it counts as absent: one that
	// crashed is back within that.
	absentAfter = time.Second
	// presenceLimit is how long the proxy has to say whether there is one.
	presenceLimit = 2 * time.Second
)

// absence is what an agent knows of an absent Envoy. Only agents that bypass ask.
type absence struct {
	since  time.Time // when none was ready for the first time; zero: one is
	bypass time.Time // since when the kernel does without; zero: it does not
}

// watchProxy looks whether an Envoy is ready, and has the kernel do without if none has
// been for long. It reports whether one is back that the kernel does not count on yet.
func (a *agent) watchProxy(ctx context.Context) (back bool) {
	if a.opts.WhenProxyAbsent != Bypass {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, presenceLimit)
	defer cancel()
	there := a.present(limited)
	now := time.Now()
	switch {
	case ctx.Err() != nil:
		return false
	case there:
		a.absent.since = time.Time{}
		return !a.absent.bypass.IsZero()
	case a.absent.since.IsZero():
		a.absent.since = now
	case a.absent.bypass.IsZero() && now.Sub(a.absent.since) > absentAfter:
		a.setBypass(now)
		a.say(aboutProxy, fmt.Sprintf("no Envoy is ready since %s: the kernel balances what it should take, without routes; "+
			"policy at the destinations stands", a.absent.since.Format(time.TimeOnly)))
		a.resync = true
	}
	return false
}

// endBypass gives connections to the proxy again, with the next writing of the kernel.
func (a *agent) endBypass() {
	a.log.Info("Envoy is back", "bypassed", time.Since(a.absent.bypass).Round(time.Millisecond))
	a.setBypass(time.Time{})
	a.say(aboutProxy, "")
	a.resync = true
}

func (a *agent) setBypass(since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.absent.bypass = since
}

// findReady reports whether an Envoy takes connections. It may do so without a proxy
// that could be asked: then it is asked itself.
func (a *agent) findReady(ctx context.Context) bool {
	s, err := proxy.ReadStatus(ctx, a.opts.RunDir)
	if err != nil {
		for _, socket := range proxy.PathsIn(a.opts.RunDir).Admin {
			if envoyReady(ctx, socket) {
				return true
			}
		}
		return false
	}
	for _, g := range s.Generations {
		if g.Ready && g.State == "LIVE" && g.Role != proxy.Draining {
			return true
		}
	}
	return false
}

// envoyReady asks the Envoy that has the admin socket.
func envoyReady(ctx context.Context, socket string) bool {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/ready", nil)
	if err != nil {
		return false
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
