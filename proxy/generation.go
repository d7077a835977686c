// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Role is what an Envoy is for.
type Role string

const (
	// Active takes the connections that are made.
	Active Role = "active"
	// Next gets ready to take over from the active one.
	Next Role = "next"
	// Standby is ready to take over if the active one ends.
	Standby Role = "standby"
	// Relieved serves the connections that it has, and those that the kernel finds nobody
	// else for; another proxy's Envoy takes those that are made.
	Relieved Role = "relieved"
	// Draining lets the connections end that it has.
	Draining Role = "draining"
	// Stopping is told to end.
	Stopping Role = "stopping"
)

const (
	readyPoll = 50 * time.Millisecond
	askLimit  = 2 * time.Second
	// Route tables in use are waited for this long when all else is ready: without
	// them a first request takes some milliseconds more.
	routesLimit = 10 * time.Second
)

// generation is an Envoy in a bank.
type generation struct {
	*process
	bank    int
	build   *build
	adopted bool // started by an earlier proxy
	began   time.Time
	admin   *admin

	// Under the supervisor's lock.
	role  Role
	since time.Time // when it got the role
	ready bool
	waits string // what it lacks, if it is not ready
	// See guard.
	trouble string // what is wrong with it
	why     string // it is ended
	uses    uses
	kills   memoryKills
}

func (g *generation) is(r Role) { g.role, g.since = r, time.Now() }

// lack is what keeps an Envoy from taking over.
type lack struct {
	what string // "" = nothing
	// cold: all is there but route tables, which would be fetched when requests come.
	cold bool
}

// lacks compares an Envoy with the one that it may take over from, which may be
// nil, and with the route tables in use.
func (g *generation) lacks(ctx context.Context, from *generation, tables []string) (lack, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	info, err := g.admin.info(ctx)
	if err != nil {
		return lack{}, err
	}
	if info.State != "LIVE" {
		return lack{what: "envoy is " + info.State}, nil
	}
	// It is live a little before it listens.
	stats, err := g.admin.stats(ctx, `^listener_manager\.(workers_started|total_listeners_warming)$`)
	if err != nil {
		return lack{}, err
	}
	if stats["listener_manager.workers_started"] == 0 {
		return lack{what: "envoy does not listen yet"}, nil
	}
	if n := stats["listener_manager.total_listeners_warming"]; n > 0 {
		return lack{what: fmt.Sprintf("%d listeners are not ready", n)}, nil
	}
	if from == nil {
		return lack{}, nil
	}
	want, err := from.admin.listeners(ctx)
	if err != nil { // gone, or deaf: no yardstick
		return lack{}, ctx.Err()
	}
	has, err := g.admin.listeners(ctx)
	if err != nil {
		return lack{}, err
	}
	if what := missing("listener", want, has); what != "" || len(tables) == 0 {
		return lack{what: what}, nil
	}
	if has, err = g.admin.routeTables(ctx); err != nil {
		return lack{}, err
	}
	want = map[string]bool{}
	for _, t := range tables {
		want[t] = true
	}
	what := missing("route table", want, has)
	return lack{what, what != ""}, nil
}

// missing says which of the wanted names are not there. An alias ("name~2") counts
// as the name.
func missing(noun string, want, has map[string]bool) string {
	there := map[string]bool{}
	for n := range has {
		there[n] = true
		if i := strings.LastIndexByte(n, '~'); i > 0 {
			there[n[:i]] = true
		}
	}
	n, first := 0, ""
	for w := range want {
		if !there[w] {
			if n++; n == 1 || w < first {
				first = w
			}
		}
	}
	switch n {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%s %s is missing", noun, first)
	}
	return fmt.Sprintf("%s %s and %d more are missing", noun, first, n-1)
}

// awaitReady returns nil when nothing is lacking. from and tables are asked each
// time, and veto, whose error ends it; progress is told what is lacking.
func (g *generation) awaitReady(ctx context.Context, from func() *generation, tables func() []string, veto func() error, progress func(string)) error {
	var cold time.Time
	for {
		l, err := g.lacks(ctx, from(), tables())
		if vetoed := veto(); vetoed != nil {
			return vetoed
		}
		switch {
		case err != nil:
			l = lack{what: err.Error()}
		case l.what == "":
			return nil
		case !l.cold:
			cold = time.Time{}
		case cold.IsZero():
			cold = time.Now()
		case time.Since(cold) > routesLimit:
			return nil
		}
		progress(l.what)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.done:
			return errors.New("envoy ended")
		case <-time.After(readyPoll):
		}
	}
}
