// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// badRoutes is a table that only Envoy finds bad.
func badRoutes(t *testing.T, name string) xds.Resource {
	t.Helper()
	r, err := xds.New(&route.RouteConfiguration{Name: name, VirtualHosts: []*route.VirtualHost{{
		Name: "*", Domains: []string{"*"},
		Routes: []*route.Route{{
			Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: "("}}},
			Action: &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{Status: 200}},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) kill(pid int) {
	r.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
}

// another waits for an Envoy with another pid to be served.
func (r *rig) another(pid int) {
	r.t.Helper()
	r.waitFor("another envoy", func() bool {
		s := r.status()
		return s.Envoy.PID != 0 && s.Envoy.PID != pid && s.Envoy.Connected && s.Envoy.State == "LIVE"
	})
}

func (r *rig) wantStatus(n, want int) {
	r.t.Helper()
	var got reply
	for range 200 { // a new Envoy is live a little before its listeners are
		var err error
		if got, err = rawRequest(r.t.Context(), alpha, vip(n), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"); err == nil && got.Status == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Errorf("service %d answers %d, want %d", n, got.Status, want)
}

func TestRejectedByEnvoy(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners())...)
	r.wantStatus(1, 200)

	// A new service whose routes are bad, a new version of one, and a good service.
	// Envoy judges at once what it has in use, and the rest when it is asked for.
	fresh := service(2)
	fresh[0] = badRoutes(t, "svc-2")
	o := r.pushOutcome(rows(fresh, service(3, to("a")), []any{badRoutes(t, "svc-1")})...)
	if len(o.Rejected) != 1 || o.Rejected[0].Name != "svc-1" || !strings.Contains(o.Rejected[0].Detail, "missing )") {
		t.Errorf("rejected %+v", o.Rejected)
	}
	check := func(when string) {
		t.Helper()
		t.Log(when)
		r.wantStatus(1, 200)
		r.wantStatus(2, 500)
		r.wantStatus(3, 200)
	}
	check("as pushed")
	s := r.status()
	if len(s.Served.Rejected) == 0 {
		t.Errorf("status %+v", s.Served)
	}
	r.waitFor("the agent to know of both", func() bool { return len(r.agent.Status().Rejected) == 2 })
	r.kill(s.Envoy.PID)
	r.another(s.Envoy.PID)
	check("after Envoy's restart")
	r.push(service(2, to("a"))...)
	r.wantStatus(2, 200)
}

func TestBadClusterCostsNothingElse(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	bad := xds.Resource{Type: xds.ClusterType, Name: "bad", Version: "x", Body: []byte{0xff}}
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), []any{bad}, service(1, to("bad")), service(2, to("a")), listeners())...)
	r.wantStatus(1, 503)
	r.wantStatus(2, 200)
	if s := r.status().Served; len(s.Rejected) != 1 || s.Rejected[0].Name != "bad" {
		t.Errorf("rejected %+v", s.Rejected)
	}
	r.waitFor("the agent to know", func() bool {
		all := r.agent.Status().Rejected
		return len(all) == 1 && all[0].Name == "bad"
	})
}

func TestServesWithoutTheAgent(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	all := rows(clusterOf(plan.Cluster{Name: "a"}, serverA), clusterOf(plan.Cluster{Name: "old"}, serverA), service(1, to("a")), service(2, to("a")), listeners())
	r.push(all...)
	r.feed.Stop()
	pid := r.status().Envoy.PID
	r.kill(pid)
	r.another(pid)
	r.wantStatus(1, 200)

	// The next agent has a cluster less, a service less and one more: the proxy
	// gets the difference, and nothing fails meanwhile.
	before := r.status().Served.Counters
	now := resources(t, rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), service(3, to("a")), listeners())...)
	stop := hammer(t, 1)
	r.startAgent(now...)
	r.waitFor("the difference", func() bool {
		n := r.status().Served.Resources
		return n["Cluster"] == 1 && n["RouteConfiguration"] == 2 && n["ScopedRouteConfiguration"] == 4
	})
	r.wantStatus(3, 200)
	r.wantStatus(2, 404)
	if failed, n := stop(); failed > 0 || n == 0 {
		t.Errorf("%d of %d requests failed", failed, n)
	}
	after := r.status().Served.Counters
	if n := after.Resources - before.Resources; n != 3 { // two scopes and their routes
		t.Errorf("Envoy was sent %d resources", n)
	}
	r.push(service(4, to("a"))...)
	r.wantStatus(4, 200)
}

// hammer sends requests to a service until the returned function is called.
func hammer(t *testing.T, n int) (stop func() (failed, sent int)) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan [2]int)
	go func() {
		failed, sent := 0, 0
		for ctx.Err() == nil {
			got, err := rawRequest(t.Context(), alpha, vip(n), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
			if sent++; err != nil || got.Status != 200 {
				if failed++; failed > 20 {
					continue
				}
				t.Logf("request %d: %d %v %s", sent, got.Status, err, got.Body)
			}
			time.Sleep(time.Millisecond)
		}
		done <- [2]int{failed, sent}
	}()
	return func() (int, int) {
		cancel()
		n := <-done
		return n[0], n[1]
	}
}

// helperProxy makes the test binary a proxy; see TestMain.
const helperProxy = "FAIRLEAD_TEST_PROXY"

// helperFlip makes it tell the rules of the bank, and kill itself "before" or
// "after" it does so for bank 1.
const (
	helperFlip    = "FAIRLEAD_TEST_FLIP"
	helperStandby = "FAIRLEAD_TEST_STANDBY" // set: it keeps a standby
	helperDrain   = "FAIRLEAD_TEST_DRAIN"   // its drain time
	helperFiles   = "FAIRLEAD_TEST_FILES"   // how many files it and its Envoys may open
	helperGroup   = "FAIRLEAD_TEST_GROUP"   // the cgroup's folder that it goes to first
)

func runHelper() error {
	dir, envoy, _ := strings.Cut(os.Getenv(helperProxy), " ")
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	opts := Options{Node: "n1", RunDir: dir, EnvoyPath: envoy, Concurrency: 2, DrainTime: time.Second,
		Standby: os.Getenv(helperStandby) != "", Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if d, ok := os.LookupEnv(helperDrain); ok {
		var err error
		if opts.DrainTime, err = time.ParseDuration(d); err != nil {
			return err
		}
	}
	if n, err := strconv.ParseUint(os.Getenv(helperFiles), 10, 64); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	if dir := os.Getenv(helperGroup); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
	}
	if when, ok := os.LookupEnv(helperFlip); ok {
		die := func(at string, bank int) {
			if when == at && bank == 1 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		opts.Flip = func(bank int) error {
			die("before", bank)
			defer die("after", bank)
			return nftFlip(bank)
		}
	}
	return Run(ctx, opts)
}

func (r *rig) startHelper(envoy string, env ...string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), env...), helperProxy+"="+r.dir+" "+envoy)
	cmd.Stderr = testWriter{r.t}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r.waitFor("envoy served by the helper", func() bool {
		s, err := ReadStatus(r.t.Context(), r.dir)
		return err == nil && s.Envoy.Connected && s.Envoy.State == "LIVE"
	})
	return cmd
}

func TestEnvoyOutlivesTheProxy(t *testing.T) {
	r := newRig(t)
	envoy := need.Envoy(t)
	server(t, serverA, nil)
	r.stop()
	helper := r.startHelper(envoy)
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners())...)
	r.wantStatus(1, 200)
	first := r.status().Envoy
	if first.Adopted {
		t.Errorf("status %+v", first)
	}

	stop := hammer(t, 1)
	helper.Process.Kill()
	helper.Wait()
	time.Sleep(300 * time.Millisecond)
	r.startProxy(envoy)
	second := r.status().Envoy
	if second.PID != first.PID || !second.Adopted {
		t.Errorf("first %+v, then %+v", first, second)
	}
	r.push(service(2, to("a"))...)
	r.wantStatus(2, 200)
	if failed, n := stop(); failed > 0 || n == 0 {
		t.Errorf("%d of %d requests failed", failed, n)
	}
	left, err := findEnvoys(r.dir)
	if err != nil || len(left) != 1 {
		t.Errorf("running: %+v %v", left, err)
	}
	r.kill(second.PID) // no child of this proxy, but it is noticed
	r.another(second.PID)
	r.wantStatus(2, 200)
	r.stop()
	if left, err := findEnvoys(r.dir); err != nil || len(left) != 0 {
		t.Errorf("still running: %+v %v", left, err)
	}
}

func TestDamagedStateIsRebuilt(t *testing.T) {
	r := newRig(t)
	envoy := need.Envoy(t)
	server(t, serverA, nil)
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners())...)
	if s := r.status(); s.StateError != "no saved state" {
		t.Errorf("at the first start: %q", s.StateError)
	}
	path := PathsIn(r.dir).State
	for _, c := range []struct {
		name, says string
		change     func(whole []byte) []byte // nil: no file
	}{
		{"changed", "damaged", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{"cut short", "damaged", func(b []byte) []byte { return b[:len(b)/2] }},
		{"empty", "no state file of this version", func([]byte) []byte { return nil }},
		{"of another version", "no state file of this version", func(b []byte) []byte { b[len(stateMagic)-2] = '9'; return b }},
		{"missing", "no saved state", nil},
	} {
		t.Log(c.name)
		r.stop()
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.change == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, c.change(whole), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.startProxy(envoy)
		if s := r.status(); !strings.Contains(s.StateError, c.says) || s.Served.Resources["Cluster"] != 1 {
			t.Errorf("%s: status %+v", c.name, s)
		}
		r.wantStatus(1, 200)
		r.waitFor("a good state file", func() bool {
			saved, err := loadState(path)
			return err == nil && len(saved.resources) == 8
		})
	}
	// And from the file alone.
	r.stop()
	r.feed.Stop()
	r.startProxy(envoy)
	r.wantStatus(1, 200)
	if s := r.status(); s.StateError != "" {
		t.Errorf("from a good file: %q", s.StateError)
	}
}

func TestEnvoyHasOnePrivilege(t *testing.T) {
	r := newRig(t)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.status().Envoy.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Name:\tenvoy\n", "Uid:\t15099\t15099\t15099\t15099", "Groups:\t \n", "CapEff:\t0000000000001000", "CapPrm:\t0000000000001000"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.status().Envoy.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") && f[3] != f[4] {
			t.Error(line)
		}
	}
}
