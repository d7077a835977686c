// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/serve"
)

// TestWatchdog: who is ended, and after how many looks that are a second apart.
func TestWatchdog(t *testing.T) {
	answers := look{answered: true, thread: thread{'S', 5}}
	silent := func(state byte, ticks uint64) look { return look{thread: thread{state, ticks}} }
	for _, c := range []struct {
		name  string
		looks func(i int) look
		end   int // the look that ends it; 0: none of 60
		says  string
	}{
		{"does its work", func(int) look { return answers }, 0, ""},
		{"is silent now and then", func(i int) look {
			if i%4 == 0 {
				return answers
			}
			return silent('S', 5)
		}, 0, "no answer for"},
		{"is stopped", func(i int) look {
			if i < 5 {
				return answers
			}
			return silent('T', 5)
		}, 5 + 2, "stopped by a signal for 2s"},
		{"is stopped for a moment", func(i int) look {
			if i%3 == 0 {
				return silent('T', 5)
			}
			return answers
		}, 0, "stopped"},
		{"hangs", func(i int) look {
			if i < 5 {
				return answers
			}
			return silent('S', 5)
		}, 4 + 5, "no answer for 5s"},
		{"hangs from the begin", func(int) look { return silent('S', 5) }, 5, "no answer for 5s"},
		{"works for long", func(i int) look {
			if i < 20 {
				return silent('R', uint64(100*i))
			}
			return answers
		}, 0, "its main thread is busy"},
		{"waits for a processor", func(i int) look {
			if i < 20 {
				return silent('R', 5)
			}
			return answers
		}, 0, "its main thread is busy"},
		{"works, then hangs", func(i int) look {
			if i < 10 {
				return silent('S', uint64(100*i))
			}
			return silent('S', 900)
		}, 9 + 5, "no answer for 14s"},
		{"nobody can ask it", func(i int) look {
			if i < 5 {
				return answers
			}
			return look{gone: true, thread: thread{'S', 5}}
		}, 0, "removed its admin socket"},
		{"works for ever", func(i int) look { return silent('R', uint64(100*i)) }, 30, "no answer for 30s"},
	} {
		var w watchdog
		begin := time.Now()
		said, ended := "", 0
		for i := range 60 {
			l := c.looks(i)
			l.at = begin.Add(time.Duration(i) * time.Second)
			trouble, end := w.see(l)
			if trouble != "" {
				said += trouble + "\n"
			}
			if end {
				ended = i
				break
			}
		}
		if ended != c.end || !strings.Contains(said, c.says) || c.says == "" && said != "" {
			t.Errorf("%s: ended at %d, want %d; says\n%s", c.name, ended, c.end, said)
		}
	}
}

func TestTroubleOfUses(t *testing.T) {
	for _, c := range []struct {
		in   uses
		want string
	}{
		{uses{}, ""},
		{uses{files: 100, filesLimit: 1000, memory: 100 << 20, memoryLimit: 200 << 20, connections: 5, mostConnections: 10}, ""},
		{uses{files: 900, filesLimit: 1000}, "900 of 1000 descriptors are open"},
		{uses{memory: 180 << 20, memoryLimit: 200 << 20}, "180 of 200 MiB of memory are used"},
		{uses{files: 60, filesLimit: 100, connections: 10, mostConnections: 10}, "10 connections of clients are open, which is all that 100 descriptors allow: further ones are refused"},
	} {
		if got := c.in.trouble(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.in, got, c.want)
		}
	}
	for files, want := range map[uint64]int64{0: 0, 100: 37, 1024: 384, 20_000: 9488, 1 << 20: 523_776} {
		if got := (bounds{files: files}).connections(); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}

// troubled waits until status names the trouble of an Envoy.
func (r *rig) troubled(pid int, word string) {
	r.t.Helper()
	r.waitFor(word, func() bool {
		for _, g := range r.status().Generations {
			if g.PID == pid && strings.Contains(g.Trouble, word) {
				return true
			}
		}
		return false
	})
}

// TestStoppedEnvoyIsReplaced: a stopped Envoy takes connections that wait in vain. It is
// named, ended and followed by another one.
func TestStoppedEnvoyIsReplaced(t *testing.T) {
	r := newRig(t)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	pid := r.alone().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	r.troubled(pid, "stopped by a signal")
	named := time.Since(begin)
	r.another(pid)
	back := time.Since(begin)
	r.wantStatus(1, 200)
	t.Logf("named after %v, another one serves after %v", named.Round(time.Millisecond), back.Round(time.Millisecond))
	if named > 2*time.Second+askLimit || back > stoppedLimit+3*lookEvery+5*time.Second {
		t.Error("too late")
	}
	e := r.status().Envoy
	if e.Restarts != 1 || e.LastEnd == nil || e.LastEnd.PID != pid || !strings.Contains(e.LastEnd.Why, "ended by the proxy: stopped by a signal") {
		t.Errorf("%+v %+v", e, e.LastEnd)
	}
	r.kill(e.PID)
	r.another(e.PID)
	if e := r.status().Envoy; e.LastEnd == nil || e.LastEnd.Why != "signal: killed" {
		t.Errorf("%+v", e.LastEnd)
	}
}

// TestStoppedForAMoment: what goes on soon is left alone.
func TestStoppedForAMoment(t *testing.T) {
	r := newRig(t)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	pid := r.alone().PID
	for range 3 {
		syscall.Kill(pid, syscall.SIGSTOP)
		time.Sleep(stoppedLimit / 2)
		syscall.Kill(pid, syscall.SIGCONT)
		time.Sleep(2 * lookEvery)
	}
	r.wantStatus(1, 200)
	if g := r.alone(); g.PID != pid {
		t.Errorf("another one: %+v", g)
	}
}

// TestDescriptorsRunOut: a client opens more connections than Envoy has descriptors for.
// Those that it has are served, further ones are refused, and it lives.
func TestDescriptorsRunOut(t *testing.T) {
	const files = 240
	r := newRig(t)
	envoy := need.Envoy(t)
	r.stop()
	defer r.end(r.startHelper(envoy, helperFiles+"="+strconv.Itoa(files)))
	r.push(one(t)...)
	r.wantStatus(1, 200)
	before := r.alone()
	most := int((bounds{files: files}).connections())
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	ask := func(c net.Conn) error {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nhost: web\r\n\r\n"); err != nil {
			return err
		}
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err == nil && !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			err = fmt.Errorf("answer %q", b[:n])
		}
		return err
	}
	refused := 0
	for range 2 * files {
		d := dialer(alpha)
		d.Timeout = 5 * time.Second
		c, err := d.DialContext(t.Context(), "tcp", vip(1))
		if err == nil {
			if err = ask(c); err == nil {
				open = append(open, c)
				continue
			}
			c.Close()
		}
		refused++
	}
	if len(open) != most || refused != 2*files-most {
		t.Errorf("%d connections are open, and %d were refused; want %d, %d", len(open), refused, most, 2*files-most)
	}
	r.troubled(before.PID, "further ones are refused")
	for _, c := range open {
		if err := ask(c); err != nil {
			t.Errorf("over one that was open: %v", err)
			break
		}
	}
	for _, c := range open[:5] {
		c.Close()
	}
	open = open[5:]
	r.wantStatus(1, 200)
	s := r.status()
	if g := r.alone(); g.PID != before.PID || g.DescriptorLimit != files || g.MostConnections != uint64(most) || g.Descriptors < uint64(most) || s.Envoy.Restarts != 0 {
		t.Errorf("%+v, %+v", g, s.Envoy)
	}
	t.Logf("%d open, %d refused, with %d of %d descriptors", len(open), refused, r.alone().Descriptors, files)
}

// boundedGroup is a memory cgroup; it is gone when the test ends.
func boundedGroup(t *testing.T, limit int) string {
	t.Helper()
	name := fmt.Sprintf("fairlead-test-%d", os.Getpid())
	dir, file := filepath.Join(cgroups, "memory", name), "memory.limit_in_bytes"
	if _, err := os.Stat(filepath.Dir(dir)); err != nil {
		dir, file = filepath.Join(cgroups, name), "memory.max"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		need.Missing(t, "needs a memory cgroup: %v", err)
	}
	t.Cleanup(func() {
		for range 100 { // until what was in it is gone
			if err := os.Remove(dir); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%s is left", dir)
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o644); err != nil {
		need.Missing(t, "needs a memory cgroup with a limit: %v", err)
	}
	return dir
}

// TestMemoryRunsOut: the kernel ends an Envoy whose memory is used up. It is said so, and
// another one follows.
func TestMemoryRunsOut(t *testing.T) {
	r := newRig(t)
	r.push(one(t)...)
	r.wantStatus(1, 200)
	dir := boundedGroup(t, 16<<20)
	pid := r.alone().PID
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	r.waitFor("the limit in status", func() bool {
		for _, g := range r.status().Generations {
			if g.PID == pid {
				return g.MemoryLimit == 16<<20 && g.Memory > 0 && strings.Contains(g.Trouble, "MiB of memory are used")
			}
		}
		return false
	})
	for n := 2; r.status().Envoy.PID == pid && n < 40; n++ { // each with some megabytes
		r.push(heavy(n)...)
		rawRequest(t.Context(), alpha, vip(n), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n") // it may end meanwhile
	}
	r.another(pid)
	e := r.status().Envoy
	if e.LastEnd == nil || e.LastEnd.PID != pid || e.LastEnd.Why != "out of memory: ended by the kernel at the limit of 16 MiB" {
		t.Errorf("%+v", e.LastEnd)
	}
	r.wantStatus(1, 200)
}

// TestHeapIsBounded: an Envoy that is told of a limit refuses new connections before the
// kernel ends it, serves those that it has, and goes on when there is room again.
func TestHeapIsBounded(t *testing.T) {
	const limit = 320 << 20
	r := newRig(t)
	envoy := need.Envoy(t)
	r.stop()
	dir := boundedGroup(t, limit)
	helper := r.startHelper(envoy, helperGroup+"="+dir)
	defer r.end(helper)
	// From here on the limit is Envoy's alone: what this is about is not the proxy's memory.
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), []byte(strconv.Itoa(helper.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	r.push(one(t)...)
	r.wantStatus(1, 200)
	g := r.alone()
	pressure := func() uint64 {
		stats, err := newAdmin(PathsIn(r.dir).Admin[g.Bank]).stats(t.Context(), `^overload\..*fixed_heap.pressure$`)
		if err != nil {
			t.Fatal(err)
		}
		return stats["overload.envoy.resource_monitors.fixed_heap.pressure"]
	}
	r.waitFor("pressure", func() bool { return pressure() > 0 })
	if n := pressure(); n >= 50 {
		t.Errorf("%d%% of the heap are used by nothing", n)
	}
	kept, err := dialer(alpha).DialContext(t.Context(), "tcp", vip(1))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	n, most := 2, uint64(0)
	for ; pressure() < 95 && n < 200; n++ {
		r.push(heavy(n)...)
		rawRequest(t.Context(), alpha, vip(n), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n") // refused at last
		time.Sleep(heapPoll)
	}
	time.Sleep(2 * heapPoll)
	most = pressure()
	if got, err := rawRequest(t.Context(), alpha, vip(1), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"); err == nil {
		t.Errorf("with %d%% of the heap used, a new connection is answered: %d", pressure(), got.Status)
	}
	kept.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 4096)
	if _, err := io.WriteString(kept, "GET / HTTP/1.1\r\nhost: web\r\n\r\n"); err != nil {
		t.Error(err)
	} else if m, err := kept.Read(b); err != nil || !strings.HasPrefix(string(b[:m]), "HTTP/1.1 ") {
		t.Errorf("over a connection that was open: %q %v", b[:m], err)
	}
	var gone []serve.Change
	for i := 2; i < n; i++ {
		for _, res := range resources(t, heavy(i)...) {
			gone = append(gone, serve.Change{Type: res.Type, Name: res.Name})
		}
	}
	if _, err := r.agent.Push(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	r.waitFor("room", func() bool { return pressure() < 90 })
	r.wantStatus(1, 200)
	s := r.status()
	if a := r.alone(); a.PID != g.PID || s.Envoy.Restarts != 0 || a.MemoryLimit != limit {
		t.Errorf("%+v %+v", a, s.Envoy)
	}
	t.Logf("%d services took the heap to %d%%, without them it is at %d%%", n-2, most, pressure())
}

// heavy is a service whose routes take some megabytes of an Envoy.
func heavy(n int) []any {
	table := &plan.RouteTable{Name: fmt.Sprint("svc-", n)}
	for i := range 2000 {
		table.Routes = append(table.Routes, plan.Route{ID: fmt.Sprintf("%d-%0500d", n, i), Clusters: to("a").Clusters, Match: pathMatch(model.Prefix, "/"+strconv.Itoa(i))})
	}
	return append([]any{table}, service(n)[1:]...)
}

// end has a helper stop with its Envoy.
func (r *rig) end(helper *exec.Cmd) {
	r.t.Helper()
	if err := helper.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Error(err)
	}
	if err := helper.Wait(); err != nil {
		r.t.Error(err)
	}
}
