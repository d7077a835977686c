// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.io/fairlead/model/plan"
)

// theHost is for an address that nobody has, and theHeadless for pods' own.
const (
	theHost = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ext, namespace: shop}
spec: {hosts: [api.example.com], http: [{route: [{destination: {host: web, port: {number: 80}}}]}]}
`
	theHeadless = `
apiVersion: v1
kind: Service
metadata: {name: direct, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
`
	theTCP = `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: web}, ports: [{name: tcp, port: 5432, targetPort: 8080}]}
`
)

func bypassRig(t *testing.T, there bool) *rig {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "headless.yaml": theHeadless, "tcp.yaml": theTCP})
	r.opts.WhenProxyAbsent, r.there = Bypass, there
	return r
}

// kinds are the kernel's services in one line.
func (r *rig) kinds() string {
	var out []string
	for _, k := range []string{"TCP/10.96.0.1:80", "TCP/10.96.0.2:80", "TCP/10.96.0.7:5432", "TCP/10.244.1.2:8080"} {
		if m, ok := r.services[k]; ok {
			out = append(out, strings.TrimPrefix(k, "TCP/")+"="+string(m))
		}
	}
	return strings.Join(out, " ")
}

const (
	proxied = "10.96.0.1:80=http 10.96.0.7:5432=kernel 10.244.1.2:8080=http"
	around  = "10.96.0.1:80=kernel 10.96.0.7:5432=kernel"
)

// pass lets the loop's ticker go on for a while.
func (r *rig) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(tick) {
		r.lookAfter(r.t.Context())
	}
}

func TestBypassOfAnAbsentEnvoy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bypassRig(t, true)
		r.reload(t.Context())
		want := func(what, kinds string, bypassed bool) {
			t.Helper()
			if got := r.kinds(); got != kinds || r.absent.bypass.IsZero() == bypassed || (r.says(aboutProxy) != "") != bypassed {
				t.Errorf("%s: services %s, bypassed since %v, problem %q; want %s", what, got, r.absent.bypass, r.says(aboutProxy), kinds)
			}
		}
		want("at first", proxied, false)
		r.there = false
		r.pass(absentAfter)
		want("within a second", proxied, false)
		r.there = true
		r.pass(tick)
		r.there = false
		r.pass(absentAfter)
		want("absent, twice for short", proxied, false)
		r.pass(3 * tick)
		want("absent", around, true)
		if log := r.took(r.lookAfter); strings.Contains(log, "kernel") {
			t.Errorf("an idle look did\n%s", log)
		}

		// What changes meanwhile comes to the kernel as it is now.
		r.write("app.yaml", strings.ReplaceAll(theApp, "10.96.0.1", "10.96.0.2"))
		r.reload(t.Context())
		want("changed", strings.ReplaceAll(around, "10.96.0.1", "10.96.0.2"), true)
		r.write("headless.yaml", "")
		r.reload(t.Context())
		r.write("headless.yaml", theHeadless)
		r.reload(t.Context())
		r.write("app.yaml", theApp)
		r.reload(t.Context())
		want("changed back", around, true)
		if !strings.Contains(r.says(aboutEnvoy), "no Envoy") {
			t.Errorf("problem %q", r.says(aboutEnvoy))
		}

		// One that is there but has not acknowledged is not back.
		r.there, r.stuck = true, errNoEnvoy
		r.pass(time.Second)
		want("not acknowledged", around, true)
		r.stuck = nil
		log := r.took(r.lookAfter)
		before(t, log, "set Listener", "kernel")
		want("back", proxied, false)
		if !r.isApplied() {
			t.Errorf("not applied: %v", r.problems)
		}
	})
}

// An Envoy that is busy serves on: it has longer to say that it is there than one that
// has ended, but not for ever, and not to take over again.
func TestBypassOfASilentEnvoy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bypassRig(t, true)
		r.reload(t.Context())
		want := func(what, kinds string) {
			t.Helper()
			if got := r.kinds(); got != kinds {
				t.Errorf("%s: services %s, want %s", what, got, kinds)
			}
		}
		r.silent = true
		r.pass(silentFor)
		want("silent for some time", proxied)
		r.silent = false
		r.pass(tick)
		r.silent = true
		r.pass(silentFor)
		want("silent again, after an answer", proxied)
		r.pass(3 * tick)
		want("silent for long", around)
		r.pass(time.Minute)
		want("still silent", around)
		r.silent = false
		r.pass(2 * tick)
		want("back", proxied)

		// It crashed after it had been silent: that is a crash like any other.
		r.silent = true
		r.pass(silentFor - absentAfter)
		r.silent, r.there = false, false
		r.pass(absentAfter / 2)
		want("just ended", proxied)
		r.there = true
		r.pass(2 * tick)
		want("back from a crash", proxied)
		// What is started anew each time and ends again is not there, though it lives now and then.
		r.there = false
		for began := time.Now(); time.Since(began) < 2*absentAfter; {
			r.silent = false
			r.pass(tick)
			r.silent = true
			r.pass(2 * tick)
		}
		want("ends again and again", around)
	})
}

// An agent that finds the kernel as an earlier one left it does not give services back
// to a proxy that is still absent.
func TestBypassOverARestartOfTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bypassRig(t, false)
		if _, err := r.ports.allocate("out/http/old"); err != nil {
			t.Fatal(err)
		}
		r.ports.setLive("out/http/old") // by an earlier agent
		began := time.Now()
		r.reload(t.Context())
		if took := time.Since(began); r.kinds() != around || took > 2*absentAfter {
			t.Errorf("after %v: services %s, want %s", took, r.kinds(), around)
		}
		r.there = true
		r.pass(2 * tick)
		if r.kinds() != proxied || !r.isApplied() {
			t.Errorf("Envoy is back: services %s, problems %v", r.kinds(), r.problems)
		}
	})
}

// One that hangs is known to do so before the first writing, too.
func TestBypassOfASilentEnvoyAtTheBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bypassRig(t, false)
		r.silent = true
		if _, err := r.ports.allocate("out/http/old"); err != nil {
			t.Fatal(err)
		}
		r.ports.setLive("out/http/old") // by an earlier agent
		began := time.Now()
		r.reload(t.Context())
		if took := time.Since(began); r.kinds() != around || took > ackLimit-2*adminLimit+2*tick {
			t.Errorf("after %v: services %s, want %s", took, r.kinds(), around)
		}
	})
}

func TestHoldLeavesTheKernelAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bypassRig(t, true)
		r.opts.WhenProxyAbsent = ""
		r.reload(t.Context())
		r.there = false
		r.pass(time.Minute)
		if r.kinds() != proxied {
			t.Errorf("services %s", r.kinds())
		}
	})
}

// Addresses of nobody and of pods are not the kernel's to balance.
func TestBypassed(t *testing.T) {
	r := bypassRig(t, true)
	r.write("host.yaml", theHost)
	r.reload(t.Context())
	any := 0
	for _, m := range r.services {
		if m == plan.Any {
			any++
		}
	}
	if any != 2 {
		t.Fatalf("services %v: want one of nobody for each family", r.services)
	}
	had := maps.Clone(r.services)
	r.services = map[string]plan.Mode{}
	for _, row := range bypassRows(r.rows(plan.KernelTables())) {
		(*fakeKernel)(r).note(row.Value, false, r.kernelPort)
	}
	for k, m := range r.services {
		if m != plan.Kernel || had[k] == plan.Any {
			t.Errorf("%s is %s, was %s", k, m, had[k])
		}
	}
	if r.kinds() != around {
		t.Errorf("services %s", r.kinds())
	}
}
