// SPDX-License-Identifier: Apache-2.0

// Package load sends requests from inside a lab's pods and accounts for each of
// them: Run is a load generator, Do sends single requests of any protocol that the
// echo server speaks.
//
// Nothing is retried in silence: a request that a library would send again counts
// as what it came to the first time.
package load

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a run.
type Options struct {
	URLs        []string
	Rate        float64       // requests per second in all; 0: as fast as the connections go
	Duration    time.Duration // 0: until the context ends
	Connections int           // kept alive, each with one request at a time; 0 = 8
	Fresh       float64       // share of requests, 0 to 1, with a connection of their own
	// Families to dial, of "4" and "6": several take turns by connection. None: as
	// the system prefers.
	Families []string
	Timeout  time.Duration // of one request, connecting included; 0 = 5s
	Expect   int           // status of success; 0 = 200
	// Forbid turns the expectation around: an answer of 2xx is a violation, and a
	// refusal of any kind is what is wanted.
	Forbid  bool
	Method  string // "" = GET
	Headers map[string]string
	Host    string // in place of the URL's
}

func (o Options) withDefaults() Options {
	o.Connections = cmp.Or(max(o.Connections, 0), 8)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Expect = cmp.Or(o.Expect, 200)
	o.Method = cmp.Or(o.Method, "GET")
	if len(o.Families) == 0 {
		o.Families = []string{""}
	}
	return o
}

// Run sends requests until the duration is over or the context ends, lets those in
// flight finish, and returns the account of all. report, if not nil, gets the
// account so far every second.
func Run(ctx context.Context, o Options, report func(Summary)) (Summary, error) {
	o = o.withDefaults()
	targets, err := parseTargets(o)
	if err != nil {
		return Summary{}, err
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	start := time.Now()
	stats := newStats(start)
	var ticket atomic.Int64
	var workers sync.WaitGroup
	for i := range o.Connections {
		workers.Go(func() {
			w := &worker{options: o, targets: targets, stats: stats, family: o.Families[i%len(o.Families)], kept: map[string]*conn{}}
			defer w.close()
			for due(ctx, start, &ticket, o.Rate) {
				w.one()
			}
		})
	}
	stop := make(chan struct{})
	var reporter sync.WaitGroup
	if report != nil {
		reporter.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					report(stats.summary())
				case <-stop:
					return
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	reporter.Wait()
	sum := stats.summary()
	sum.Rate = float64(sum.Requests) / sum.Elapsed // of the whole run
	return sum, nil
}

// due waits for the next request's time; false when there is to be none.
func due(ctx context.Context, start time.Time, ticket *atomic.Int64, rate float64) bool {
	if rate <= 0 {
		return ctx.Err() == nil
	}
	at := time.Duration(float64(ticket.Add(1)-1) / rate * float64(time.Second))
	wait := time.Until(start.Add(at))
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// worker sends one request at a time and keeps a connection per target.
type worker struct {
	options Options
	targets []target
	stats   *stats
	family  string
	kept    map[string]*conn
}

func (w *worker) close() {
	for _, c := range w.kept {
		c.close()
	}
}

// one sends a request and books what it came to.
func (w *worker) one() {
	t := w.targets[rand.IntN(len(w.targets))]
	fresh := rand.Float64() < w.options.Fresh
	begin := time.Now()
	deadline := begin.Add(w.options.Timeout)
	var c *conn
	if !fresh {
		c = w.kept[t.addr]
		delete(w.kept, t.addr)
		if c != nil {
			if state := c.idle(); state != idleAlive {
				c.close()
				c = nil
				w.stats.reconnected(state)
			}
		}
	}
	var err error
	if c == nil {
		if c, err = dial(t.addr, w.family, deadline); err != nil {
			w.book(result{class: classify(err), began: begin})
			return
		}
	}
	r := c.request(t, deadline)
	r.began = begin
	if r.keep && !fresh {
		w.kept[t.addr] = c
	} else {
		c.close()
	}
	w.book(r)
}

// book decides between success, failure and violation.
func (w *worker) book(r result) {
	took := time.Since(r.began)
	switch {
	case w.options.Forbid && r.status >= 200 && r.status < 300:
		w.stats.add(violation, r.class, r.by, took)
	case w.options.Forbid && r.class == classDNS:
		w.stats.add(failed, r.class, "", took) // nobody was asked, so nothing was shown
	case w.options.Forbid:
		w.stats.add(ok, r.class, "", took)
	case r.status == w.options.Expect:
		w.stats.add(ok, "", r.by, took)
	default:
		w.stats.add(failed, r.class, r.by, took)
	}
}
