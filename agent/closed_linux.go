// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/cni/install"
)

// closedEvery bounds how often it is computed what is fail-closed.
const closedEvery = time.Second

// closed is what plugins go by while no agent answers.
type closed struct {
	stale   bool      // the source was read since
	at      time.Time // when it was computed last
	written *cni.Closed
	ready   chan struct{} // closed when it was written first
}

// tellClosed leaves in a file which namespaces are fail-closed.
func (a *agent) tellClosed(now time.Time) {
	c := &a.closed
	if a.opts.Plugin == nil || !a.begun || a.held || !c.stale || now.Sub(c.at) < closedEvery {
		return
	}
	c.at = now
	a.mu.Lock()
	names, open, everywhere := a.pipe.Closed()
	a.mu.Unlock()
	next := cni.Closed{Everywhere: everywhere, Namespaces: names, Open: open}
	if c.written == nil || !c.written.Equal(next) {
		if err := cni.WriteClosed(a.opts.Plugin.StateDir(), next); err != nil {
			a.say(aboutClosed, err.Error())
			return
		}
		a.say(aboutClosed, "")
		if c.written == nil {
			close(c.ready)
		}
		c.written = &next
	}
	c.stale = false
}

// keepPlugin has the node's container runtime call the plugin, as soon as that can do
// without an agent.
func (a *agent) keepPlugin(ctx context.Context, o install.Options) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.closed.ready:
	}
	return install.Keep(ctx, o, func(where string, err error) {
		problem := ""
		if err != nil {
			problem = err.Error()
		}
		a.mu.Lock()
		a.pluginIn = where
		a.mu.Unlock()
		a.say(aboutPlugin, problem)
	})
}
