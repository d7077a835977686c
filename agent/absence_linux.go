// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/proxy"
)

const (
	// absentAfter is how long no Envoy is there before it counts as absent: one that
	// crashed is back within that.
	absentAfter = time.Second
	// silentFor is how long an Envoy that lives but does not answer counts as there. Its
	// workers take connections while its main thread is busy with a large change, or the
	// node with other things; one that hangs does not come to itself. It counts from the
	// first question that was not answered in its second, and ends before ackLimit does:
	// an agent that begins gives nothing to an Envoy that hangs.
	silentFor = 3 * time.Second
	// statusLimit is how long the proxy has to say whether there is one: longer than it
	// waits for an Envoy itself.
	statusLimit = 2 * time.Second
	// adminLimit is how long an Envoy has to say so where the proxy does not.
	adminLimit = time.Second
)

// presence is whether an Envoy takes connections, as far as it can be told.
type presence int

const (
	gone   presence = iota // none runs, or what runs says that it does not yet
	silent                 // one lives, and may have taken them before; it does not answer
	ready
)

// absence is what an agent knows of an absent Envoy. Only agents that bypass ask.
type absence struct {
	since  time.Time // when none was ready for the first time; zero: one is
	gone   time.Time // when none was even alive for the first time since; zero: one is
	bypass time.Time // since when the kernel does without; zero: it does not
}

// watchProxy looks whether an Envoy is ready, and has the kernel do without if none has
// been for long. It reports whether one is back that the kernel does not count on yet.
func (a *agent) watchProxy(ctx context.Context) (back bool) {
	if a.opts.WhenProxyAbsent != Bypass {
		return false
	}
	there := a.present(ctx)
	if ctx.Err() != nil {
		return false
	}
	if there == ready {
		a.absent.since, a.absent.gone = time.Time{}, time.Time{}
		return !a.absent.bypass.IsZero()
	}
	now := time.Now()
	if a.absent.since.IsZero() {
		a.absent.since = now
	}
	// Until one is ready again: what is started over and over lives, too, now and then.
	if there == gone && a.absent.gone.IsZero() {
		a.absent.gone = now
	}
	late := now.Sub(a.absent.since) > silentFor || !a.absent.gone.IsZero() && now.Sub(a.absent.gone) > absentAfter
	if a.absent.bypass.IsZero() && late {
		a.setBypass(now)
		a.say(aboutProxy, fmt.Sprintf("no Envoy is ready since %s: the kernel balances what it should take, without routes; "+
			"policy at the destinations stands", a.absent.since.Format(time.TimeOnly)))
		a.rewrite()
	}
	return false
}

// endBypass gives connections to the proxy again, with the next writing of the kernel.
func (a *agent) endBypass() {
	a.log.Info("Envoy is back", "bypassed", time.Since(a.absent.bypass).Round(time.Millisecond))
	a.setBypass(time.Time{})
	a.say(aboutProxy, "")
	a.rewrite()
}

func (a *agent) setBypass(since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.absent.bypass = since
}

// findReady tells whether an Envoy takes connections. It may do so without a proxy that
// could be asked: then it is asked itself.
func (a *agent) findReady(ctx context.Context) presence {
	limited, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	s, err := proxy.ReadStatus(limited, a.opts.RunDir)
	if err != nil {
		p := proxy.PathsIn(a.opts.RunDir)
		return askEnvoys(ctx, p.Admin[:])
	}
	best := gone
	for _, g := range s.Generations { // those that have ended are not among them
		switch {
		case !g.Ready || g.Role == proxy.Draining:
		case g.State == "LIVE":
			best = ready
		case g.State == "silent":
			best = max(best, silent)
		}
	}
	return best
}

// askEnvoys asks at all admin sockets at once: a silent Envoy is not to cost the time of
// another.
func askEnvoys(ctx context.Context, sockets []string) presence {
	ctx, cancel := context.WithTimeout(ctx, adminLimit)
	defer cancel()
	all := make([]presence, len(sockets))
	var asked sync.WaitGroup
	for i, socket := range sockets {
		asked.Go(func() { all[i] = askEnvoy(ctx, socket) })
	}
	asked.Wait()
	return slices.Max(all)
}

// askEnvoy asks the Envoy that has the admin socket. The kernel takes connections to it
// for as long as the process lives, whatever that does.
func askEnvoy(ctx context.Context, socket string) presence {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, unix.EAGAIN): // more have connected than it has accepted
		return silent
	case err != nil:
		return gone
	}
	t := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, DisableKeepAlives: true}
	defer conn.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/ready", nil)
	if err != nil {
		return gone
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return silent
	case err != nil:
		return gone // it ended just now
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return gone
	}
	return ready
}
