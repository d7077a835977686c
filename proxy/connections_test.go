// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// atOnce is much less than a connection waits for a cluster that nobody answers for,
// and enough on a busy machine.
const atOnce = 2 * time.Second

// wantGreeting expects a connection to be answered like this, "" if it is closed; at
// once in either case.
func (r *rig) wantGreeting(what, from, to, want string) {
	r.t.Helper()
	t, ok := r.t.(*testing.T)
	if !ok {
		r.t.Fatal("not in a test")
	}
	began := time.Now()
	c := connect(t, from, to)
	defer c.Close()
	if got := line(t, c); got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
	if d := time.Since(began); d > atOnce {
		t.Errorf("%s: after %v", what, d)
	}
}

func tlsTo(pattern, class, dst string, backends ...string) []any {
	return clusterOf(plan.Cluster{Name: plan.ServerNameCluster(pattern, class, netip.MustParseAddrPort(dst)), App: model.AppTCP}, backends...)
}

// Where the plan does not tell clients apart, all classes get what there is for
// everybody; where it begins or ceases to, the next connection goes by that.
func TestConnectionsOfAllClasses(t *testing.T) {
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	tcpServer(t, tcpB, greeting("b"))
	r.push(rows(connectionsTo("", opaqueVIP(1), tcpA), modeListeners())...)
	for range 2 {
		r.wantGreeting("alpha", alpha, opaqueVIP(1), "a "+alpha)
		r.wantGreeting("beta, same endpoints", beta, opaqueVIP(1), "a "+beta)
	}
	open := connect(t, alpha, opaqueVIP(1))
	line(t, open)

	r.push(rows(connectionsTo("alpha", opaqueVIP(1), tcpB))...)
	r.wantGreeting("alpha on its own", alpha, opaqueVIP(1), "b "+alpha)
	r.wantGreeting("beta as before", beta, opaqueVIP(1), "a "+beta)
	r.remove(resources(t, connectionsTo("alpha", opaqueVIP(1))...)...)
	r.wantGreeting("alpha as all", alpha, opaqueVIP(1), "a "+alpha)
	r.push(rows(connectionsTo("", opaqueVIP(1), tcpB))...)
	r.wantGreeting("endpoints changed", alpha, opaqueVIP(1), "b "+alpha)
	r.wantGreeting("endpoints changed", beta, opaqueVIP(1), "b "+beta)
	pings(t, "after the changes", open)
}

// A service that goes closes what comes, at once, and takes the first connection when
// it is back. What it had stays.
func TestConnectionsToWhatComesAndGoes(t *testing.T) {
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	r.push(modeListeners()...)
	r.wantGreeting("never there", alpha, opaqueVIP(1), "")
	var open []io.ReadWriter
	for i := range 3 {
		r.push(rows(connectionsTo("", opaqueVIP(1), tcpA))...)
		r.wantGreeting(fmt.Sprint("there ", i), alpha, opaqueVIP(1), "a "+alpha)
		c := connect(t, alpha, opaqueVIP(1))
		line(t, c)
		open = append(open, c)
		r.remove(resources(t, connectionsTo("", opaqueVIP(1))...)...)
		r.wantGreeting(fmt.Sprint("gone ", i), alpha, opaqueVIP(1), "")
		r.wantGreeting(fmt.Sprint("gone, again ", i), alpha, opaqueVIP(1), "")
	}
	for i, c := range open {
		io.WriteString(c, "x\n")
		if got := line(t, c); got != "x" {
			t.Errorf("connection %d: %q", i, got)
		}
	}
}

// The most specific pattern that the plan has for a destination serves, whatever
// patterns others have.
func TestServerNamesByCandidates(t *testing.T) {
	r := newRig(t)
	tlsServer(t, "a", tlsA)
	tlsServer(t, "b", tlsB)
	r.push(rows(
		tlsTo("a.example.com", "", tlsVIP(1, 443), tlsA),
		tlsTo("*.example.com", "", tlsVIP(2, 443), tlsB),
		tlsTo("", "", tlsVIP(3, 443), tlsA),
		tlsTo("", "alpha", tlsVIP(4, 443), tlsB), tlsTo("*.com", "", tlsVIP(4, 443), tlsA),
		modeListeners("*.com", "*.example.com", "a.example.com"))...)
	for _, c := range []struct {
		i          int
		name, want string
	}{
		{1, "a.example.com", "a " + alpha}, {1, "b.example.com", ""}, {1, "", ""},
		{2, "a.example.com", "b " + alpha}, {2, "x.y.example.com", "b " + alpha}, {2, "other.com", ""},
		{3, "a.example.com", "a " + alpha}, {3, "other.com", "a " + alpha}, {3, "", "a " + alpha},
		{4, "a.example.com", "a " + alpha}, {4, "other.com", "a " + alpha}, {4, "other.org", "b " + alpha},
	} {
		began := time.Now()
		conn := tls.Client(connect(t, alpha, tlsVIP(c.i, 443)), &tls.Config{ServerName: c.name, InsecureSkipVerify: true})
		got, err := bufio.NewReader(conn).ReadString('\n')
		if got = strings.TrimSpace(got); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q at %d: %q, want %q (%v)", c.name, c.i, got, c.want, err)
		}
		if d := time.Since(began); d > atOnce {
			t.Errorf("%q at %d: after %v", c.name, c.i, d)
		}
	}
}

// What Envoy asked for works on over restarts of the node proxy and of Envoy, though
// Envoy asks once for each name, and what changes meanwhile is caught up with.
func TestConnectionsOverRestarts(t *testing.T) {
	r := newRigWith(t, flipping(t))
	tcpServer(t, tcpA, greeting("a"))
	tcpServer(t, tcpB, greeting("b"))
	r.push(rows(connectionsTo("", opaqueVIP(1), tcpA), connectionsTo("", opaqueVIP(2), tcpA), modeListeners())...)
	want := func(when string, first, second, third string) {
		t.Helper()
		for i, w := range []string{first, second, third} {
			if w != "" {
				w += " " + alpha
			}
			r.wantGreeting(fmt.Sprint(when, ": ", i+1), alpha, opaqueVIP(i+1), w)
		}
	}
	want("at first", "a", "a", "")
	r.stop()
	helper := r.startHelper(need.Envoy(t), helperFlip+"=")
	first := r.alone()
	want("another proxy and Envoy", "a", "a", "")
	open := connect(t, alpha, opaqueVIP(2))
	line(t, open)

	helper.Process.Kill()
	helper.Wait()
	r.push(rows(connectionsTo("", opaqueVIP(1), tcpB), connectionsTo("alpha", opaqueVIP(1), tcpB), connectionsTo("", opaqueVIP(3), tcpB))...)
	r.remove(resources(t, connectionsTo("", opaqueVIP(2))...)...)
	want("without a proxy", "a", "a", "")
	r.startProxy(need.Envoy(t))
	if g := r.alone(); g.PID != first.PID {
		t.Fatalf("first %+v, then %+v", first, g)
	}
	r.waitFor("what went meanwhile to go", func() bool {
		c := connect(t, alpha, opaqueVIP(2))
		defer c.Close()
		return line(t, c) == ""
	})
	want("changed meanwhile", "b", "", "b")
	pings(t, "its destination went", open)
	r.push(rows(connectionsTo("", opaqueVIP(2), tcpB))...)
	r.remove(resources(t, connectionsTo("alpha", opaqueVIP(1))...)...)
	want("changed again", "b", "b", "b")
}

// An Envoy that has no listeners with routes never asks for scopes; its listeners are
// settled anyway.
func TestOnlyConnections(t *testing.T) {
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	began := time.Now()
	r.push(rows(connectionsTo("", opaqueVIP(1), tcpA), []any{
		&plan.Listener{Name: "out/opaque/alpha", Mode: plan.Opaque, Identity: alphaID, Selects: []string{"p1"}, Class: "alpha"},
	})...)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("settled after %v", d)
	}
	r.wantGreeting("opaque", alpha, opaqueVIP(1), "a "+alpha)
	if n := r.agent.Status().Counters.Nacks; n > 0 {
		t.Errorf("%d rejections", n)
	}
}
