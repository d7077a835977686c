// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
)

// replacing is a rig whose proxy is a process of its own that is killed, under
// load, while it replaces Envoy: as its Flip says, or when what is asked for is so.
func replacing(t *testing.T, envoy, flip string, until func(Status) bool, change func()) (*rig, Status, *load) {
	t.Helper()
	r := newRigWith(t, flipping(t))
	r.stop()
	helper := r.startHelper(envoy, helperFlip+"="+flip)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	first := r.alone()
	l := r.load(1, "/")
	change()
	asked := make(chan struct{})
	go func() { // fails when the helper is killed
		defer close(asked)
		Replace(t.Context(), r.dir, true)
	}()
	var s Status
	if until != nil {
		r.waitFor("the replacement", func() bool { s = r.status(); return until(s) })
		helper.Process.Kill()
	}
	helper.Wait()
	<-asked
	left, err := findEnvoys(r.dir)
	if err != nil || len(left) != 2 {
		t.Fatalf("%d Envoys run: %v", len(left), err)
	}
	if until == nil { // nobody could be asked
		s = Status{Generations: []Generation{first}}
		for _, e := range left {
			if e.pid != first.PID {
				s.Generations = append(s.Generations, Generation{PID: e.pid, Role: Next})
			}
		}
	}
	return r, s, l
}

// TestKilledWhileReplacing: the proxy is killed at each point of a replacement; the
// next one goes on from there, and no request fails.
func TestKilledWhileReplacing(t *testing.T) {
	envoy := need.Envoy(t)
	for _, c := range []struct {
		name, flip string
		until      func(Status) bool
		saved      roles
		heir       Role // of the Envoy that serves at last
	}{
		{"while the next gets ready", "", func(s Status) bool { return s.byRole(Next).PID != 0 }, roles{0, Next}, Next},
		{"before the kernel is told", "before", nil, roles{1, Draining}, Next},
		{"after the kernel is told", "after", nil, roles{1, Draining}, Next},
		{"while the old one drains", "", func(s Status) bool { return s.byRole(Draining).PID != 0 }, roles{1, Draining}, Active},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s, l := replacing(t, envoy, c.flip, c.until, func() {})
			if saved, err := loadRoles(PathsIn(r.dir).Banks); err != nil || saved != c.saved {
				t.Fatalf("killed at another point: %+v %v", saved, err)
			}
			r.startProxy(envoy)
			if g := r.alone(); g.PID != s.byRole(c.heir).PID || g.Bank != 1 || !g.Adopted {
				t.Errorf("before %+v, after %+v", s.Generations, g)
			}
			l.wantNone(t)
		})
	}
}

// TestDrainingIsNotTakenOver: an Envoy that was told to drain never serves again. When it
// is all that a killed proxy left, the next one starts another at once, and lets it end.
func TestDrainingIsNotTakenOver(t *testing.T) {
	envoy := need.Envoy(t)
	check := func(t *testing.T, r *rig, draining, bank int, l *load) {
		t.Helper()
		began := time.Now()
		r.startProxy(envoy)
		r.wantStatus(1, 200)
		s := r.status()
		if g := s.byRole(Active); g.PID == draining || g.Bank != bank || g.Adopted || time.Since(began) > 10*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), s.Generations)
		}
		if s.Envoy.Restarts != 0 {
			t.Errorf("%+v", s.Envoy)
		}
		if g := r.alone(); g.Bank != bank {
			t.Errorf("at last %+v", g)
		}
		failed := l.failed.Load()
		time.Sleep(300 * time.Millisecond)
		if l.stop(); l.failed.Load() > failed {
			t.Error("requests still fail")
		}
	}
	t.Run("the one that served is gone", func(t *testing.T) {
		r, s, l := replacing(t, envoy, "", func(s Status) bool { return s.byRole(Draining).State == "DRAINING" }, func() {})
		gone := s.byRole(Active).PID
		r.kill(gone)
		r.waitFor("its end", func() bool { left, err := findEnvoys(r.dir); return err == nil && len(left) == 1 })
		check(t, r, s.byRole(Draining).PID, 1, l)
	})
	t.Run("the proxy was about to end", func(t *testing.T) {
		r := newRigWith(t, flipping(t))
		r.push(one(t)...)
		r.stop()
		helper := r.startHelper(envoy, helperFlip+"=")
		r.wantStatus(1, 200)
		first := r.alone()
		l := r.load(1, "/")
		idle, err := dialer(alpha).Dial("tcp", vip(1)) // it is waited for
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		r.waitFor("connections", func() bool { return r.status().byRole(Active).Connections > 0 })
		helper.Process.Signal(syscall.SIGTERM)
		a := newAdmin(PathsIn(r.dir).Admin[0])
		r.waitFor("drain", func() bool { info, err := a.info(t.Context()); return err == nil && info.State == "DRAINING" })
		helper.Process.Kill()
		helper.Wait()
		if left, err := findEnvoys(r.dir); err != nil || len(left) != 1 || left[0].pid != first.PID {
			t.Fatalf("running: %+v %v", left, err)
		}
		check(t, r, first.PID, 1, l)
	})
}

// TestUndoneAfterKill: what the killed proxy was about to start is not wanted any
// more.
func TestUndoneAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "envoy")
	if err := os.Symlink(need.Envoy(t), path); err != nil {
		t.Fatal(err)
	}
	r, s, l := replacing(t, path, "", func(s Status) bool { return s.byRole(Next).PID != 0 }, func() { anotherEnvoy(t, path) })
	if s.byRole(Next).Build == s.byRole(Active).Build {
		t.Errorf("%+v", s.Generations)
	}
	r.startProxy(need.Envoy(t))
	if g := r.alone(); g.PID != s.byRole(Active).PID || g.Bank != 0 {
		t.Errorf("before %+v, after %+v", s.Generations, g)
	}
	l.wantNone(t)
}

// TestReplacedAtStart: a proxy that finds an Envoy of another build has it replaced.
func TestReplacedAtStart(t *testing.T) {
	r := newRigWith(t, flipping(t))
	r.push(one(t)...)
	r.stop()
	helper := r.startHelper(need.Envoy(t), helperFlip+"=")
	r.wantStatus(1, 200)
	first := r.alone()
	l := r.load(1, "/")
	helper.Process.Kill()
	helper.Wait()
	path := filepath.Join(t.TempDir(), "envoy")
	anotherEnvoy(t, path)
	r.opts.EnvoyPath = path
	r.startProxy(path)
	r.waitFor("replacement", func() bool {
		s := r.status()
		return s.Replacement != nil && s.Replacement.State == ReplacementDone && s.Replacement.Reason == "binary or bootstrap differs from what runs"
	})
	if g := r.alone(); g.PID == first.PID || g.Build == first.Build || g.Bank != 1 {
		t.Errorf("first %+v, then %+v", first, g)
	}
	l.wantNone(t)
}

// TestAnyOfThemIsKilled: Envoys and the proxy are killed in any order, also while
// one Envoy takes over from another; what is left at the end is one Envoy that
// serves, and one that stands by.
func TestAnyOfThemIsKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	envoy := need.Envoy(t)
	r := newRigWith(t, flipping(t))
	r.stop()
	env := []string{helperFlip + "=", helperStandby + "=1"}
	helper := r.startHelper(envoy, env...)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	l := r.load(1, "/")
	killed, conns := 0, int64(8)
	var asked sync.WaitGroup
	for n := range 15 {
		time.Sleep(time.Duration(rnd.IntN(600)) * time.Millisecond)
		switch c := rnd.IntN(4); c {
		case 0, 1:
			left, err := findEnvoys(r.dir)
			if err != nil || len(left) == 0 {
				continue
			}
			pid := left[rnd.IntN(len(left))].pid
			t.Logf("%d: envoy %d is killed", n, pid)
			syscall.Kill(pid, syscall.SIGKILL) // unless it has just ended
			killed++
		case 2:
			t.Logf("%d: the proxy is killed", n)
			helper.Process.Kill()
			helper.Wait()
			helper = r.startHelper(envoy, env...)
		case 3:
			t.Logf("%d: replacement", n)
			asked.Go(func() { Replace(t.Context(), r.dir, true) }) // may be cut short
		}
	}
	r.waitFor("one that serves, one that stands by", func() bool {
		s := r.status()
		return len(s.Generations) == 2 && s.byRole(Active).Ready && s.byRole(Standby).Ready
	})
	time.Sleep(100 * time.Millisecond)
	failed := l.failed.Load()
	time.Sleep(500 * time.Millisecond)
	l.stop()
	if l.failed.Load() > failed {
		t.Error("requests still fail")
	}
	// Each client may lose what it has on the Envoy that dies.
	if failed > int64(killed)*conns {
		t.Errorf("%d of %d requests failed, with %d Envoys killed", failed, l.sent.Load(), killed)
	}
	t.Logf("%d of %d requests failed, with %d Envoys killed", failed, l.sent.Load(), killed)
	left, err := findEnvoys(r.dir)
	if err != nil || len(left) != 2 {
		t.Errorf("running: %+v %v", left, err)
	}
	helper.Process.Signal(syscall.SIGTERM)
	helper.Wait()
	asked.Wait()
	if left, err := findEnvoys(r.dir); err != nil || len(left) != 0 {
		t.Errorf("still running: %+v %v", left, err)
	}
}
