// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model/plan"
)

var redirectRule = regexp.MustCompile(`(?m)^(.* tproxy .*:)(\d+)( .*)$`)

// redirectTo makes the rules of the tests' network give connections to the listeners
// of a bank, or of the other one where nobody listens. For services where nobody
// listens at all clients try again, as with the kernel programs. Bank -1 is the rules
// as they were.
func redirectTo(bank int) string {
	_, chain, _ := strings.Cut(network, "chain in {\n")
	chain, _, _ = strings.Cut(chain, "}\n")
	if bank >= 0 {
		chain = redirectRule.ReplaceAllStringFunc(chain, func(rule string) string {
			part := redirectRule.FindStringSubmatch(rule)
			port, err := strconv.Atoi(part[2])
			if err != nil {
				panic(err)
			}
			to := func(bank int) string { return part[1] + strconv.Itoa(port+bank*BankPorts) + part[3] }
			return to(bank) + "\n" + to(1-bank)
		}) + `
		ip daddr 10.96.0.0/16 tcp flags & (syn | ack) == syn drop
		ip6 daddr fd96::/16 tcp flags & (syn | ack) == syn drop
`
	}
	return "flush chain inet t in\ntable inet t {\n\tchain in {\n" + chain + "\t}\n}\n"
}

// nftFlip is a Flip by nftables.
func nftFlip(bank int) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(redirectTo(bank))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// flipping are options of a proxy that tells the rules of the bank.
func flipping(t testing.TB) Options {
	t.Cleanup(func() {
		if err := nftFlip(-1); err != nil {
			t.Error(err)
		}
	})
	return Options{Flip: nftFlip}
}

// anotherEnvoy is a copy of the binary that differs by a byte that does not matter.
func anotherEnvoy(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(need.Envoy(t))
	if err != nil {
		t.Fatal(err)
	}
	writeBinary(t, path, append(b, 'x'))
}

// writeBinary replaces a binary as package managers do.
func writeBinary(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// linkEnvoy is a path to the stock binary that a test may change.
func linkEnvoy(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy")
	if err := os.Symlink(need.Envoy(t), path); err != nil {
		t.Fatal(err)
	}
	return path
}

func (r *rig) replace(force bool) Replacement {
	r.t.Helper()
	done, err := Replace(r.t.Context(), r.dir, force)
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

// byRole is the Envoy in a role; PID 0 if there is none.
func (s Status) byRole(role Role) Generation {
	for _, g := range s.Generations {
		if g.Role == role {
			return g
		}
	}
	return Generation{}
}

// alone waits until one Envoy runs, and is ready.
func (r *rig) alone() Generation {
	r.t.Helper()
	var s Status
	r.waitFor("one ready envoy", func() bool {
		s = r.status()
		return len(s.Generations) == 1 && s.Generations[0].Role == Active && s.Generations[0].Ready
	})
	return s.Generations[0]
}

// one is a service that all clients of a load reach.
func one(t *testing.T) []any {
	t.Helper()
	server(t, serverA, nil)
	server(t, serverA6, nil)
	return rows(clusterOf(plan.Cluster{Name: "a"}, serverA+" "+serverA6), service(1, to("a")), listeners())
}

// wantNone fails if requests of a load failed, or there were few.
func (l *load) wantNone(t *testing.T) {
	t.Helper()
	l.stop()
	if n := l.failed.Load(); n > 0 || l.sent.Load() < 100 {
		t.Errorf("%d of %d requests failed", n, l.sent.Load())
	}
	t.Logf("%d requests", l.sent.Load())
}

// TestReplacedUnderLoad: Envoys follow one another while requests flow, over
// connections that stay and over fresh ones; none fails.
func TestReplacedUnderLoad(t *testing.T) {
	r := newRigWith(t, flipping(t))
	r.push(one(t)...)
	r.wantStatus(1, 200)
	if done := r.replace(false); done.State != ReplacementUnneeded {
		t.Errorf("without need: %+v", done)
	}
	first := r.alone()
	l := r.load(1, "/")
	for n := range 4 {
		before := r.alone()
		done := r.replace(true)
		if done.State != ReplacementDone || done.Reason != "asked for" || done.Ended.Before(done.Began) {
			t.Errorf("replacement %d: %+v", n, done)
		}
		s := r.status()
		if s.Envoy.PID == before.PID || s.byRole(Active).Bank != 1-before.Bank {
			t.Errorf("replacement %d: %+v", n, s.Generations)
		}
		if o := s.byRole(Draining); o.PID != before.PID && o.PID != 0 {
			t.Errorf("replacement %d: %+v", n, s.Generations)
		}
		r.push(service(2+n, to("a"))...) // both take changes
		r.wantStatus(2+n, 200)
	}
	last := r.alone()
	if last.Bank != first.Bank {
		t.Errorf("bank %d after an even number", last.Bank)
	}
	l.wantNone(t)
	if s := r.status(); s.Envoy.Restarts != 0 || s.Envoy.Starts != 5 {
		t.Errorf("%+v", s.Envoy)
	}
	r.stop()
	if left, err := findEnvoys(r.dir); err != nil || len(left) != 0 {
		t.Errorf("still running: %+v %v", left, err)
	}
	p := PathsIn(r.dir)
	for _, path := range []string{p.Admin[0], p.Admin[1], p.Control, p.Own, p.XDS[0], p.XDS[1], p.Authority[0], p.Authority[1]} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// TestBinaryChangedInPlace: the binary under Envoy's path is another one, then a
// broken one, and Envoy crashes; requests are served all the while.
func TestBinaryChangedInPlace(t *testing.T) {
	path := linkEnvoy(t)
	opts := flipping(t)
	opts.EnvoyPath = path
	check := make(chan os.Signal)
	opts.Check = check
	r := newRigWith(t, opts)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	first := r.alone()
	l := r.load(1, "/")

	anotherEnvoy(t, path)
	check <- syscall.SIGHUP
	r.waitFor("replacement", func() bool { s := r.status(); return s.Replacement != nil && s.Replacement.State == ReplacementDone })
	second := r.alone()
	if second.Build == first.Build || second.Bank == first.Bank {
		t.Errorf("first %+v, then %+v", first, second)
	}

	writeBinary(t, path, []byte("#!/bin/sh\necho broken here >&2\nexit 1\n"))
	done := r.replace(false)
	if done.State != ReplacementFailed || !strings.Contains(done.Error, "broken here") {
		t.Errorf("replacement by a broken binary: %+v", done)
	}
	s := r.status()
	if s.Replacement == nil || s.Replacement.Error != done.Error || s.byRole(Active).PID != second.PID {
		t.Errorf("%+v", s)
	}
	l.wantNone(t)

	// What had run is started again, though its binary has no name any more.
	r.kill(second.PID)
	r.another(second.PID)
	r.wantStatus(1, 200)
	if g := r.alone(); g.Build != second.Build {
		t.Errorf("build %s, want %s", g.Build, second.Build)
	}
}

// TestLongRequestsOverReplacement: what is under way on the old Envoy has the drain
// time to end, and not more; connections that are idle there are told to close with
// their next response.
func TestLongRequestsOverReplacement(t *testing.T) {
	opts := flipping(t)
	opts.DrainTime = 3 * time.Second
	r := newRigWith(t, opts)
	server(t, serverA, func(w http.ResponseWriter, q *http.Request) bool {
		if d, err := time.ParseDuration(strings.TrimPrefix(q.URL.Path, "/")); err == nil {
			w.(http.Flusher).Flush()
			select {
			case <-time.After(d):
			case <-q.Context().Done():
			}
		}
		return false
	})
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners())...)
	r.wantStatus(1, 200)
	old := r.alone()
	idle, err := dialer(alpha).Dial("tcp", vip(1))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	ask := func() *http.Response {
		t.Helper()
		fmt.Fprint(idle, "GET / HTTP/1.1\r\nhost: web\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(idle), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	if ask().Close {
		t.Error("closed without a reason")
	}
	ended := map[string]chan error{"/1.5s": make(chan error, 1), "/60s": make(chan error, 1)}
	for path, c := range ended {
		go func() {
			_, err := rawRequest(t.Context(), alpha, vip(1), "GET "+path+" HTTP/1.1\r\nhost: web\r\n\r\n")
			c <- err
		}()
	}
	r.waitFor("connections", func() bool { return r.status().byRole(Active).Connections == 3 })
	began := time.Now()
	if done := r.replace(true); done.State != ReplacementDone {
		t.Fatalf("%+v", done)
	}
	if g := r.status().byRole(Draining); g.PID != old.PID || g.Connections != 3 {
		t.Errorf("%+v", g)
	}
	if !ask().Close {
		t.Error("an idle connection was not told to close")
	}
	if err := <-ended["/1.5s"]; err != nil {
		t.Errorf("a request shorter than the drain time: %v", err)
	}
	if err := <-ended["/60s"]; err == nil {
		t.Error("a request outlived the drain time")
	}
	if d := time.Since(began); d < 3*time.Second || d > 6*time.Second {
		t.Errorf("drained for %v", d)
	}
	r.alone()
}

// TestNotReadyInTime: an Envoy that does not get ready is stopped after the stated
// time; the old one serves on.
func TestNotReadyInTime(t *testing.T) {
	path := linkEnvoy(t)
	opts := flipping(t)
	opts.EnvoyPath, opts.ReadyTime = path, time.Second
	r := newRigWith(t, opts)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	first := r.alone()
	l := r.load(1, "/")
	writeBinary(t, path, []byte("#!/bin/sh\nexec sleep 60\n"))
	began := time.Now()
	done := r.replace(false)
	if d := time.Since(began); done.State != ReplacementFailed || !strings.HasPrefix(done.Error, "not ready after 1s: ask envoy") || d < time.Second || d > 4*time.Second {
		t.Errorf("%+v after %v", done, d)
	}
	if g := r.alone(); g.PID != first.PID {
		t.Errorf("first %+v, then %+v", first, g)
	}
	l.wantNone(t)
}

// TestFlipFails: a replacement that the kernel cannot be told of does not happen.
func TestFlipFails(t *testing.T) {
	opts := flipping(t)
	var fails atomic.Bool
	flip := opts.Flip
	opts.Flip = func(bank int) error {
		if bank == 1 && fails.Load() {
			return syscall.EPERM
		}
		return flip(bank)
	}
	r := newRigWith(t, opts)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	l := r.load(1, "/")
	fails.Store(true)
	if done := r.replace(true); done.State != ReplacementFailed || !strings.Contains(done.Error, "not permitted") {
		t.Errorf("%+v", done)
	}
	if g := r.alone(); g.Bank != 0 {
		t.Errorf("%+v", g)
	}
	fails.Store(false)
	if done := r.replace(true); done.State != ReplacementDone {
		t.Errorf("%+v", done)
	}
	l.wantNone(t)
}

// TestStandbyTakesOver: with a second Envoy ready, what a crash costs is the
// requests on the connections of the one that died; new connections are served at
// once. Without it they wait for another one.
func TestStandbyTakesOver(t *testing.T) {
	for _, standby := range []bool{true, false} {
		t.Run(strconv.FormatBool(standby), func(t *testing.T) {
			opts := flipping(t)
			opts.Standby = standby
			r := newRigWith(t, opts)
			r.push(one(t)...)
			r.wantStatus(1, 200)
			serving := func() (s Status) {
				r.waitFor("all envoys", func() bool {
					s = r.status()
					return s.byRole(Active).Ready && (!standby || s.byRole(Standby).Ready)
				})
				return s
			}
			serving()
			l := r.load(1, "/")
			conns := int64(8)
			for n := range int64(3) {
				before := serving()
				time.Sleep(200 * time.Millisecond)
				failed := l.failed.Load()
				r.kill(before.Envoy.PID)
				began := time.Now()
				r.wantStatus(1, 200)
				pause := time.Since(began)
				r.another(before.Envoy.PID)
				after := serving()
				if standby && (after.byRole(Active).PID != before.byRole(Standby).PID || pause > 500*time.Millisecond) {
					t.Errorf("before %+v, after %v: %+v", before.Generations, pause, after.Generations)
				}
				if !standby && after.byRole(Active).Bank != before.byRole(Active).Bank {
					t.Errorf("before %+v, after %+v", before.Generations, after.Generations)
				}
				if int64(after.Envoy.Restarts) != n+1 {
					t.Errorf("%+v", after.Envoy)
				}
				lost := l.failed.Load() - failed
				if lost > conns {
					t.Errorf("%d requests failed, of %d connections", lost, conns)
				}
				t.Logf("crash %d: %d requests lost, answered again after %v", n, lost, pause)
			}
			l.stop()
			// Replacement with a standby: that one makes room, and comes back.
			if standby {
				before := serving()
				l := r.load(1, "/")
				if done := r.replace(true); done.State != ReplacementDone {
					t.Errorf("%+v", done)
				}
				after := serving()
				if after.Envoy.PID == before.Envoy.PID || after.Envoy.PID == before.byRole(Standby).PID {
					t.Errorf("before %+v, after %+v", before.Generations, after.Generations)
				}
				l.wantNone(t)
			}
		})
	}
}
