// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/proxy"
)

// slack is between an end and what was seen of it.
const slack = 250 * time.Millisecond

// TestEnvoyKilled kills a node's Envoy. What the kernel does alone goes on; open
// connections through Envoy fail at once; those made meanwhile wait for the next one.
func TestEnvoyKilled(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	time.Sleep(pause())
	pid := w.envoyOf(t, "node-1")
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitStatus(t, "node-1", "another Envoy", func(s *status) bool {
		return s.Proxy != nil && s.Proxy.Envoy.PID != pid && s.Proxy.Envoy.Connected && s.Proxy.Envoy.State == "LIVE"
	})
	back := time.Now()
	t.Logf("another one serves after %v", back.Sub(killed).Round(time.Millisecond))
	if e := w.status(t, "node-1").Proxy.Envoy; e.LastEnd == nil || e.LastEnd.PID != pid || e.LastEnd.Why != "signal: killed" || e.Restarts == 0 {
		t.Errorf("status does not say what happened: %+v %+v", e, e.LastEnd)
	}
	time.Sleep(pause())
	a := s.end()
	late := time.Duration(0)
	n := a.want("Envoy killed", func(f traffic.Failure) bool {
		// Open through that Envoy when it ended, or through the other one's to it.
		cut := needs(f, byProxy) && f.Opened.Before(killed.Add(slack)) && f.Began.Before(killed.Add(slack))
		if cut {
			late = max(late, f.Ended.Sub(killed))
		}
		return cut
	})
	t.Logf("%d connections that were open failed, the last %v after the kill", n, late.Round(time.Millisecond))
	if late > slack*2 {
		t.Errorf("one that was open failed no sooner than %v after the kill", late)
	}
	if a.slowest > 3*time.Second+slack*2 {
		t.Errorf("one waited %v", a.slowest)
	}
}

// TestEnvoyStopped stops a node's Envoy by a signal. It is named, ended and replaced;
// what the kernel does alone goes on.
func TestEnvoyStopped(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	time.Sleep(pause())
	pid := w.envoyOf(t, "node-2")
	stopped := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	named := w.awaitStatus(t, "node-2", "the trouble", func(s *status) bool {
		if s.Proxy == nil {
			return false
		}
		for _, g := range s.Proxy.Generations {
			if g.PID == pid && strings.Contains(g.Trouble, "stopped by a signal") {
				return true
			}
		}
		return false
	})
	w.awaitStatus(t, "node-2", "another Envoy", func(s *status) bool {
		return s.Proxy != nil && s.Proxy.Envoy.PID != pid && s.Proxy.Envoy.Connected && s.Proxy.Envoy.State == "LIVE"
	})
	back := time.Since(stopped)
	t.Logf("named after %v, another one serves after %v", named.Round(time.Millisecond), back.Round(time.Millisecond))
	if back > 6*time.Second {
		t.Error("too late")
	}
	if e := w.status(t, "node-2").Proxy.Envoy; e.LastEnd == nil || !strings.Contains(e.LastEnd.Why, "stopped by a signal") {
		t.Errorf("status does not say what happened: %+v", e.LastEnd)
	}
	time.Sleep(pause())
	a := s.end()
	n := a.want("Envoy stopped", func(f traffic.Failure) bool {
		// It took connections all the while, which waited until it was ended.
		return needs(f, byProxy) && f.Began.Before(stopped.Add(back)) && f.Ended.After(stopped)
	})
	t.Logf("%d requests through the stopped Envoy failed", n)
}

// TestEnvoyReplaced replaces the Envoys of both nodes as for another version. Nothing
// fails, and the old ones are gone within their time.
func TestEnvoyReplaced(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	time.Sleep(pause())
	const drainTime = 10 * time.Second // the default
	for _, node := range w.Nodes() {
		old := w.envoyOf(t, node)
		begin := time.Now()
		done, err := proxy.Replace(context.Background(), w.RunDir(node), true)
		if err != nil || done.State != proxy.ReplacementDone {
			t.Fatalf("%s: %+v %v", node, done, err)
		}
		took := time.Since(begin)
		w.awaitStatus(t, node, "the end of the old one", func(s *status) bool {
			return len(s.Proxy.Generations) == 1 && s.Proxy.Generations[0].PID == done.PID
		})
		gone := time.Since(begin) - took
		t.Logf("%s: pid %d is replaced by %d in %v, and gone %v later", node, old, done.PID, took.Round(time.Millisecond), gone.Round(time.Millisecond))
		if gone > drainTime+5*time.Second {
			t.Errorf("%s: it drained for %v", node, gone)
		}
	}
	time.Sleep(pause())
	s.end().none("Envoy replaced")
}

// holds is how long a connection waits for an Envoy: until its client's try 3 s after the
// first, by which it is refused.
const holds = 3 * time.Second

// TestEnvoyAway takes a node's proxy and Envoy away for long. Connections that need them
// wait for 3 s and are refused then; everything else goes on, and nothing forbidden comes
// through.
func TestEnvoyAway(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	time.Sleep(pause())
	pid := w.envoyOf(t, "node-1")
	away := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := lab.Stop(ctx, w.Name, "node-1", "proxy", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitStatus(t, "node-1", "that it has no proxy", func(s *status) bool { return s.ProxyError != "" })
	time.Sleep(pause() + holds)
	counted := w.status(t, "node-1").Kernel.Counters["proxy-absent"]
	if err := lab.Start(ctx, w.Name, "node-1", "proxy"); err != nil {
		t.Fatal(err)
	}
	w.awaitEnvoys(t)
	back := time.Now()
	time.Sleep(pause() + holds)
	a := s.end()
	refused, first, last := 0, time.Minute, time.Duration(0)
	n := a.want("no Envoy", func(f traffic.Failure) bool {
		if !needs(f, byProxy) || f.Ended.Before(away) || f.Began.After(back.Add(slack)) {
			return false
		}
		if strings.Contains(f.Error, "connection refused") {
			waited := f.Ended.Sub(f.Began)
			refused, first, last = refused+1, min(first, waited), max(last, waited)
		}
		return true
	})
	t.Logf("away for %v: %d requests that needed it failed, %d of them refused after %v to %v; the kernel counts %d; the longest wait was %v",
		back.Sub(away).Round(time.Millisecond), n, refused, first.Round(time.Millisecond), last.Round(time.Millisecond), counted, a.slowest.Round(time.Millisecond))
	if refused == 0 || first < holds-slack || last > holds+2*slack {
		t.Errorf("%d were refused, after %v to %v; want them refused after %v", refused, first, last, holds)
	}
	if counted == 0 {
		t.Error("the kernel counts none as refused for want of a proxy")
	}
	if a.slowest > holds+2*slack {
		t.Errorf("one waited for %v", a.slowest)
	}
}
