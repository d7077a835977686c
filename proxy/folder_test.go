// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/need"
)

// smallDisk is a file system of its own; it is gone with the test.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	need.Root(t)
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(dir)
	})
	return dir
}

// TestDiskFull: there is no room for the state. Changes reach Envoy, status says what is
// not saved, an Envoy that crashes is followed by another one, and when there is room
// again all is saved, though nothing changes.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "size=2m")
	need.Command(t, "nft")
	if err := setUp(); err != nil {
		t.Fatal(err)
	}
	r := newRigIn(t, dir)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	r.waitFor("the state", func() bool { _, err := loadState(PathsIn(dir).State); return err == nil })
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	l := r.load(1, "/")
	r.push(service(2, to("a"))...)
	r.wantStatus(2, 200)
	r.waitFor("the word", func() bool { return strings.Contains(r.status().SaveError, "no space left on device") })
	l.wantNone(t)
	before := r.alone()
	r.kill(before.PID)
	r.another(before.PID)
	r.wantStatus(2, 200)
	r.push(service(3, to("a"))...)
	r.wantStatus(3, 200)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	r.waitFor("all is saved", func() bool {
		st, err := loadState(PathsIn(dir).State)
		return err == nil && len(st.resources) == 2+3*3+3 && r.status().SaveError == ""
	})
	t.Logf("saved %v after there was room", time.Since(begin).Round(time.Millisecond))
}

// fill leaves no room.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		b := make([]byte, size)
		for {
			if _, err := f.Write(b); err != nil {
				break
			}
		}
	}
}

// TestFolderReadOnly: nothing in the run folder can be changed. What runs goes on, and
// takes changes; status says what is not saved.
func TestFolderReadOnly(t *testing.T) {
	dir := smallDisk(t, "size=8m")
	if err := setUp(); err != nil {
		t.Fatal(err)
	}
	r := newRigIn(t, dir)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	time.Sleep(2 * saveDelay)
	// Over itself, because a log is open for writing.
	if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	undo := sync.OnceFunc(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	defer undo()
	pid := r.alone().PID
	l := r.load(1, "/")
	r.push(service(2, to("a"))...)
	r.wantStatus(2, 200)
	r.waitFor("the word", func() bool { return strings.Contains(r.status().SaveError, "read-only file system") })
	l.wantNone(t)
	if g := r.alone(); g.PID != pid {
		t.Errorf("%+v", g)
	}
	undo()
	r.waitFor("it is saved again", func() bool { return r.status().SaveError == "" })
}

// TestFolderRemoved: the run folder goes away under a proxy. What runs goes on, and takes
// changes; no Envoy is ended for that it cannot be asked; the proxy makes the folder anew,
// so that it can be asked, and another Envoy be started.
func TestFolderRemoved(t *testing.T) {
	said := &words{}
	r := newRigWith(t, Options{Log: slog.New(slog.NewTextHandler(said, nil))})
	r.push(one(t)...)
	r.wantStatus(1, 200)
	pid := r.alone().PID
	l := r.load(1, "/")
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.waitFor("the word", func() bool {
		return strings.Contains(said.String(), "the run folder, or the sockets in it, were removed")
	})
	r.push(service(2, to("a"))...)
	r.wantStatus(2, 200)
	time.Sleep(silentLimit + 3*lookEvery)
	r.push(service(3, to("a"))...)
	r.wantStatus(3, 200)
	l.stop()
	// A worker that first asks for an authority now finds nobody, once.
	if n := l.failed.Load(); n > 2 || l.sent.Load() < 100 {
		t.Errorf("%d of %d requests failed", n, l.sent.Load())
	}
	t.Logf("%d of %d requests failed", l.failed.Load(), l.sent.Load())
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("Envoy %d: %v", pid, err)
	}
	if !strings.Contains(said.String(), "somebody has removed its admin socket") {
		t.Error(said.String())
	}
	if s := r.status(); s.SaveError != "" || !s.InCharge || s.Envoy.PID != pid || !s.Envoy.Connected || !strings.Contains(s.byRole(Active).Trouble, "admin socket") {
		t.Errorf("%+v", s)
	}
	r.waitFor("the state", func() bool { _, err := loadState(PathsIn(r.dir).State); return err == nil })
	r.kill(pid)
	r.another(pid)
	r.wantStatus(3, 200)
}

// words are what a log says.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func newRigIn(t *testing.T, dir string) *rig {
	t.Helper()
	r := newAgentIn(t, Options{}, dir)
	r.startProxy(need.Envoy(t))
	return r
}
