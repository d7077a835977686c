// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// podCaps are the capabilities that the container of a proxy needs; see doc.go.
const podCaps = "-all,+net_admin,+setuid,+setgid,+chown,+kill"

// pod is a proxy in a container's place: in a pid, mount and cgroup namespace of its own,
// without capabilities that it does not need. What it runs ends with it.
type pod struct {
	r    *rig
	name string
	cmd  *exec.Cmd
	own  string // control socket
	pid  int    // of the proxy, as seen here
	done chan struct{}
}

func (r *rig) startPod(name, envoy string, env ...string) *pod {
	r.t.Helper()
	need.Command(r.t, "unshare")
	need.Command(r.t, "setpriv")
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--pid", "--mount", "--cgroup", "--mount-proc", "--fork", "--kill-child",
		"setpriv", "--no-new-privs", "--inh-caps="+podCaps, "--bounding-set="+podCaps, self)
	cmd.Env = append(append(os.Environ(), env...), helperProxy+"="+r.dir+" "+envoy, helperFlip+"=")
	cmd.Stderr = testWriter{r.t}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	p := &pod{r: r, name: name, cmd: cmd, done: make(chan struct{})}
	go func() { cmd.Wait(); close(p.done) }()
	r.t.Cleanup(func() { cmd.Process.Kill(); <-p.done })
	r.waitFor("the container of "+name, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil || len(strings.Fields(string(b))) != 1 {
			return false
		}
		if p.pid, err = strconv.Atoi(strings.Fields(string(b))[0]); err != nil {
			return false
		}
		info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/pid", p.pid))
		if err != nil {
			return false
		}
		p.own = filepath.Join(r.dir, fmt.Sprintf("proxy-%d.sock", info.Sys().(*syscall.Stat_t).Ino))
		return true
	})
	return p
}

func (p *pod) readiness() (Readiness, error) {
	ctx, cancel := context.WithTimeout(p.r.t.Context(), 5*time.Second)
	defer cancel()
	var out Readiness
	err := call(ctx, p.own, http.MethodGet, "/ready", &out)
	return out, err
}

func (p *pod) status() Status {
	p.r.t.Helper()
	var s Status
	if err := call(p.r.t.Context(), p.own, http.MethodGet, "/status", &s); err != nil {
		p.r.t.Fatal(err)
	}
	return s
}

func (p *pod) wait(what string, ok func(Readiness) bool) Readiness {
	p.r.t.Helper()
	var last Readiness
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if last, err = p.readiness(); err == nil && ok(last) {
			return last
		}
	}
	p.r.t.Fatalf("pod %s is not %s: %+v %v", p.name, what, last, err)
	return last
}

func (p *pod) ready() Readiness {
	p.r.t.Helper()
	return p.wait("ready", func(r Readiness) bool { return r.Ready })
}

func (p *pod) inCharge() Readiness {
	p.r.t.Helper()
	return p.wait("in charge", func(r Readiness) bool { return r.Ready && r.InCharge })
}

// terminate tells the pod to end, as kubelet does, and waits for it.
func (p *pod) terminate() time.Duration {
	p.r.t.Helper()
	began := time.Now()
	if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
		p.r.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.r.t.Fatalf("pod %s does not end", p.name)
	}
	return time.Since(began)
}

// crash kills the pod's container.
func (p *pod) crash() {
	p.r.t.Helper()
	p.cmd.Process.Kill()
	<-p.done
}

// rollout is a rig without a proxy of its own.
func rollout(t *testing.T) (*rig, string) {
	t.Helper()
	return newAgent(t, flipping(t)), need.Envoy(t)
}

// changing pushes a service after another, all the while, and asks each when the push is
// acknowledged: over the redirect as it is then, as an agent that writes the kernel.
func (r *rig) changing() (stop func() int) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var n int
	var all sync.WaitGroup
	all.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			n++
			r.push(service(2+n%90, plan.Route{ID: "r", Clusters: to("a").Clusters, RequestHeaders: model.HeaderEdit{Set: []model.Header{{Name: "x-version", Value: strconv.Itoa(n)}}}})...)
			got, err := rawRequest(r.t.Context(), alpha, vip(2+n%90), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
			if err != nil || got.Status != 200 || got.Headers.Get("x-version") != strconv.Itoa(n) {
				r.t.Errorf("change %d was acknowledged, but a request gets %d with %q: %v", n, got.Status, got.Headers.Get("x-version"), err)
			}
		}
	})
	return sync.OnceValue(func() int { cancel(); all.Wait(); return n })
}

// forbidden asks for what no policy allows, over a connection that stays and over fresh
// ones, until stopped.
func (r *rig) forbidden(n int) (stop func() int64) {
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	var asked atomic.Int64
	for _, keep := range []bool{true, false} {
		all.Go(func() {
			var c net.Conn
			for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
				var err error
				if c == nil {
					if c, err = dialer(alpha).Dial("tcp", vip(n)); err != nil {
						continue // judged by the load
					}
				}
				fmt.Fprint(c, "GET /forbidden HTTP/1.1\r\nhost: web\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if asked.Add(1); resp.StatusCode != 403 {
						r.t.Errorf("a forbidden request got %d", resp.StatusCode)
					}
				}
				if err != nil || !keep || resp.Close {
					c.Close()
					c = nil
				}
			}
			if c != nil {
				c.Close()
			}
		})
	}
	return sync.OnceValue(func() int64 { cancel(); all.Wait(); return asked.Load() })
}

// TestRollout: pods follow one another by surge, under load and under changes: the new
// one is ready when new connections go to it, the old one keeps its own until it is told
// to end.
func TestRollout(t *testing.T) {
	r, envoy := rollout(t)
	old := r.startPod("v0", envoy)
	guarded := rows(clusterOf(plan.Cluster{Name: "shut", Policy: allow(), Checked: true}, serverA), service(100, to("shut")))
	r.push(rows(one(t), guarded)...)
	old.inCharge()
	r.wantStatus(1, 200)
	l, changes, asked := r.load(1, "/"), r.changing(), r.forbidden(100)
	for v := 1; v <= 2; v++ {
		before := old.status()
		next := r.startPod(fmt.Sprintf("v%d", v), envoy)
		began := time.Now()
		if got := next.ready(); !got.InCharge || got.Bank != 1-before.byRole(Active).Bank {
			t.Errorf("v%d: %+v", v, got)
		}
		took := time.Since(began)
		if s := r.status(); !s.InCharge || s.byRole(Active).Bank != v%2 || !s.Envoy.Connected || !s.Feed.Connected {
			t.Errorf("v%d is ready, but the proxy that is asked is not: %+v", v, s)
		}
		// The old one goes on: with its connections, with changes.
		if got := old.ready(); got.InCharge {
			t.Errorf("v%d: both are in charge: %+v", v, got)
		}
		s := old.status()
		if g := s.byRole(Relieved); g.PID != before.byRole(Active).PID || g.Connections == 0 || !s.Feed.Connected {
			t.Errorf("v%d: the old one: %+v", v, s)
		}
		time.Sleep(300 * time.Millisecond)
		if _, err := Replace(t.Context(), r.dir, true); err != nil {
			t.Error(err) // fails, but says so: the other bank is in use
		} else if last := next.status().Replacement; last == nil || last.State != ReplacementFailed || !strings.Contains(last.Error, "bank") {
			t.Errorf("v%d: replaced while the old one has the other bank: %+v", v, last)
		}
		ended := old.terminate()
		t.Logf("v%d: ready after %v, the one before ended in %v", v, took.Round(time.Millisecond), ended.Round(time.Millisecond))
		old = next
	}
	old.inCharge()
	t.Logf("%d changes, %d forbidden requests", changes(), asked())
	l.wantNone(t)
	if old.terminate(); true {
		if left, err := filepath.Glob(r.dir + "/*.sock"); err != nil || len(left) != 2 { // the agent's
			t.Errorf("left: %q %v", left, err)
		}
	}
}

// TestNewPodDoesNotGetReady: the old one serves on, as if there was no other; so it does
// when the new one is taken away again.
func TestNewPodDoesNotGetReady(t *testing.T) {
	r, envoy := rollout(t)
	old := r.startPod("old", envoy)
	r.push(one(t)...)
	old.inCharge()
	r.wantStatus(1, 200)
	l := r.load(1, "/")
	broken := filepath.Join(t.TempDir(), "envoy")
	for text, want := range map[string]string{
		"#!/bin/sh\nexit 1\n":        "envoy does not run",
		"#!/bin/sh\nexec sleep 60\n": "ask envoy",
	} {
		writeBinary(t, broken, []byte(text))
		next := r.startPod("new", broken)
		next.wait("unready", func(got Readiness) bool { return !got.Ready && strings.HasPrefix(got.Why, want) })
		time.Sleep(500 * time.Millisecond)
		if got, err := next.readiness(); err != nil || got.Ready || got.InCharge {
			t.Errorf("%+v %v", got, err)
		}
		old.inCharge()
		next.terminate()
	}

	// One that rejects what the old one serves, until it does not.
	long := to("a")
	long.ID, long.Match = "long", pathMatch(model.Regex, "/(a{40}|b{40}|c{40})")
	r.push(service(1, long, to("a"))...)
	r.wantStatus(1, 200)
	writeBinary(t, broken, strictEnvoy(t))
	next := r.startPod("strict", broken)
	const why = "the new envoy rejects what the one that serves accepts: RouteConfiguration svc-1: "
	next.wait("unready", func(got Readiness) bool { return !got.Ready && strings.HasPrefix(got.Why, why) })
	time.Sleep(500 * time.Millisecond)
	if got, err := next.readiness(); err != nil || got.Ready || got.InCharge {
		t.Errorf("%+v %v", got, err)
	}
	old.inCharge()
	r.wantStatus(1, 200)
	r.push(service(1, to("a"))...)
	next.inCharge()
	// Now the old one takes more: it is not asked, and what it took alone it keeps.
	r.push(service(2, long, to("a"))...)
	r.wantStatus(2, 500)
	old.terminate()
	r.wantStatus(1, 200)
	l.wantNone(t)
}

// TestPodsCrash: containers end without notice, each in each state, and come back on a
// run folder with what they left.
func TestPodsCrash(t *testing.T) {
	r, envoy := rollout(t)
	only := r.startPod("a", envoy)
	r.push(one(t)...)
	only.inCharge()
	r.wantStatus(1, 200)
	r.waitFor("a saved state", func() bool { _, err := loadState(PathsIn(r.dir).State); return err == nil })
	again := func(what string, p *pod) {
		t.Helper()
		began := time.Now()
		p.inCharge()
		r.wantStatus(1, 200)
		t.Logf("%s: serves after %v", what, time.Since(began).Round(time.Millisecond))
		if s := r.status(); !s.InCharge || s.StateError != "" {
			t.Errorf("%s: %+v", what, s)
		}
	}
	l := r.load(1, "/")
	lost := func(what string, most int64, do func()) {
		t.Helper()
		failed := l.failed.Load()
		do()
		time.Sleep(200 * time.Millisecond)
		n := l.failed.Load() - failed
		t.Logf("%s: %d requests of 8 connections lost", what, n)
		if n > most {
			t.Errorf("%s: %d requests lost, want %d at most", what, n, most)
		}
	}

	// A container restarts: what was under way is lost, the rest waits.
	lost("the only pod", 8, func() {
		only.crash()
		only = r.startPod("a, again", envoy)
		again("the only pod", only)
	})
	// In the middle of a rollout: the one that was relieved has the charge again.
	next := r.startPod("b", envoy)
	next.inCharge()
	lost("the new pod", 8, func() {
		next.crash()
		again("the one before", only)
	})
	// And hands it over to the next one.
	next = r.startPod("c", envoy)
	next.inCharge()
	lost("the relieved pod", 8, func() {
		only.crash()
		again("the new one", next)
	})
	// Both, and they come back in either order.
	other := r.startPod("d", envoy)
	other.inCharge()
	lost("both pods", 16, func() {
		next.crash()
		other.crash()
		next = r.startPod("c, again", envoy)
		other = r.startPod("d, again", envoy)
		next.ready()
		other.ready()
		r.wantStatus(1, 200)
	})
	// Of two, the one that is told to end gives the other the charge.
	if got, err := next.readiness(); err != nil || got.InCharge {
		next, other = other, next
	}
	lost("the one in charge is told to end", 0, func() {
		next.terminate()
		again("the other one", other)
	})
	l.stop()
}

// TestDrainsAndIsInChargeAgain: one that was relieved, and lets its connections go because
// it rejects what the one in charge has, is needed again when that one dies. Its Envoy
// cannot be told to stay; another one follows it.
func TestDrainsAndIsInChargeAgain(t *testing.T) {
	r, envoy := rollout(t)
	strict := filepath.Join(t.TempDir(), "envoy")
	writeBinary(t, strict, strictEnvoy(t))
	old := r.startPod("strict", strict, helperDrain+"=4s")
	r.push(one(t)...)
	old.inCharge()
	r.wantStatus(1, 200)
	kept, err := dialer(alpha).Dial("tcp", vip(1)) // the drain waits for it
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	fmt.Fprint(kept, "GET / HTTP/1.1\r\nhost: web\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(kept), nil); err != nil {
		t.Fatal(err)
	}
	next := r.startPod("new", envoy)
	next.inCharge()
	before := old.status().byRole(Relieved).PID
	long := to("a")
	long.ID, long.Match = "long", pathMatch(model.Regex, "/(a{40}|b{40}|c{40})")
	bad := r.pushOutcome(service(1, long, to("a"))...).Rejected
	if len(bad) != 1 || !slices.Equal(bad[0].Accepted, []string{InCharge(r.dir)}) || !slices.Equal(bad[0].Clients, []string{filepath.Base(old.own)}) {
		t.Errorf("rejected %+v; in charge is %s", bad, InCharge(r.dir))
	}
	r.wantStatus(1, 200)
	r.waitFor("the old one to drain", func() bool { return old.status().byRole(Draining).PID == before })
	l := r.load(1, "/")
	next.crash()
	time.Sleep(200 * time.Millisecond)
	failed := l.failed.Load()
	began := time.Now()
	got := old.inCharge()
	t.Logf("%d requests of 8 connections lost; another Envoy after %v", failed, time.Since(began).Round(time.Millisecond))
	if g := old.status().byRole(Active); g.PID == before || g.Bank != got.Bank {
		t.Errorf("%+v, was %d", g, before)
	}
	r.wantStatus(1, 200)
	if n := l.failed.Load() - failed; failed > 8 || n != 0 {
		t.Errorf("%d requests lost with the pod, and %d after it", failed, n)
	}
	l.stop()
	// It serves what it takes, and another one can follow it.
	next = r.startPod("next", envoy)
	next.inCharge()
	r.wantStatus(1, 200)
}

// TestRolloutWithoutAnAgent: a new pod gets from the old one what that has, and what it
// got last, and the bank of an Envoy that stands by.
func TestRolloutWithoutAnAgent(t *testing.T) {
	r, envoy := rollout(t)
	old := r.startPod("old", envoy, helperStandby+"=1")
	r.push(one(t)...)
	old.inCharge()
	r.waitFor("standby", func() bool { return old.status().byRole(Standby).Ready })
	r.wantStatus(1, 200)
	l := r.load(1, "/")
	r.push(service(2, to("a"))...)
	r.feed.Stop() // before the state is saved
	next := r.startPod("new", envoy, helperStandby+"=1")
	next.inCharge()
	r.wantStatus(2, 200)
	// An agent that comes now finds both, and changes reach both.
	all := rows(clusterOf(plan.Cluster{Name: "a"}, serverA+" "+serverA6), service(1, to("a")), service(3, to("a")), listeners())
	r.startAgent(resources(t, all...)...)
	r.waitFor("both", func() bool { return old.status().Feed.Connected && next.status().Feed.Connected })
	r.wantStatus(3, 200)
	r.wantStatus(2, 404)
	old.terminate()
	r.push(service(4, to("a"))...)
	r.wantStatus(4, 200)
	r.waitFor("standby", func() bool { return next.status().byRole(Standby).Ready })
	l.wantNone(t)
}
