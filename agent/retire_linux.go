// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"time"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// linger is how long Envoy keeps what nothing leads to any more. Connections that the
// kernel has handed to a listener wait until Envoy accepts them, and a listener that goes
// resets them; requests that wait, for a delay or between two tries, look their cluster up
// by name afterwards.
const linger = 2 * time.Second

// retire has resources taken away when their time is over, unless they are needed again.
func (a *agent) retire(deletes []serve.Change) {
	a.accepted(deletes, nil) // what was wrong with them is nobody's concern any more
	due := time.Now().Add(linger)
	for _, c := range deletes {
		a.retiring[resourceKey{c.Type, c.Name}] = due
	}
}

// keep takes back what retire was told of resources that are set again.
func (a *agent) keep(sets []serve.Change) {
	for _, c := range sets {
		delete(a.retiring, resourceKey{c.Type, c.Name})
	}
}

// takeAway removes from Envoy what has retired, when all else is as wanted.
func (a *agent) takeAway(ctx context.Context) {
	now := time.Now()
	var deletes []serve.Change
	for k, due := range a.retiring {
		if proxy := a.res.moved[k]; proxy != "" && !a.ownLive(proxy) {
			continue // the kernel sends there until the namespace's own is ready
		}
		if !now.Before(due) {
			deletes = append(deletes, serve.Change{Type: k.typ, Name: k.name})
		}
	}
	if len(deletes) == 0 {
		return
	}
	for _, c := range deletes {
		delete(a.res.moved, resourceKey{c.Type, c.Name})
	}
	a.keep(deletes) // what is not acknowledged is tried again, as any change
	if a.push(ctx, deletes) {
		a.releasePorts()
		a.publish(true)
	}
}

// releasePorts gives back the ports of listeners that Envoy no longer has, and to
// which the kernel no longer sends anything.
func (a *agent) releasePorts() {
	for _, name := range a.ports.listeners() {
		k := resourceKey{xds.ListenerType, name}
		if _, still := a.retiring[k]; !a.res.has(k) && !still && !a.ownHolds(k) {
			a.ports.release(name)
		}
	}
}
