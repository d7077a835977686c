// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
)

// revokeBound is how long after a change of policy an identity that lost its access may
// still get an answer.
const revokeBound = time.Second

// narrow takes the clients' permissions away, all of them.
const narrow = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: narrow, namespace: faults}
spec: {selector: {matchLabels: {app: back}}, action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/faults/sa/client]}}]}]}
`

// TestAgentKilled kills the agents of both nodes and starts them again: nothing fails.
func TestAgentKilled(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		time.Sleep(pause())
		for _, node := range w.Nodes() {
			if err := lab.Stop(ctx, w.Name, node, "agent", sig); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(pause())
		w.mend(t)
	}
	time.Sleep(pause())
	s.end().none("agents killed")
}

// TestPolicyNarrowsWithoutAnAgent: node 1 has no agent while node 2's policy narrows. Who
// lost access gets nothing from node 2 after the bound, though its own node does not know:
// not over connections that were open, and not through the proxy of its node.
func TestPolicyNarrowsWithoutAnAgent(t *testing.T) {
	w := lives(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	const ms = time.Millisecond
	pod := w.podAddress(t, "back-b", false).String()
	web := w.Address(t, "faults", "back-b", false).String()
	by := []string{"back-b"}
	client := w.Client(t, "faults/client-a", []traffic.Stream{
		{Name: "kept through the proxy", Addr: web + ":80", Host: "back-b", Method: "GET", Path: "/api/x", Keep: true, Workers: 3, Every: 10 * ms, Want: 200, By: by, Timeout: time.Second},
		{Name: "fresh through the proxy", Addr: web + ":80", Host: "back-b", Method: "GET", Path: "/api/x", Workers: 3, Every: 10 * ms, Want: 200, By: by, Timeout: time.Second},
		{Name: "long at the pod", Kind: traffic.TCP, Addr: pod + ":9000", Keep: true, Workers: 3, Every: 10 * ms, Timeout: time.Second},
		{Name: "fresh at the pod", Kind: traffic.TCP, Addr: pod + ":9000", Workers: 3, Every: 10 * ms, Timeout: time.Second},
	})
	time.Sleep(pause())
	if err := lab.Stop(ctx, w.Name, "node-1", "agent", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	dead := time.Now()
	if *fullFlag {
		time.Sleep(50 * time.Second)
	}
	began := time.Now()
	w.applyWithout(t, "node-1", narrow)
	applied := time.Now()
	t.Logf("node 2 has the change %v after it was written", applied.Sub(began).Round(ms))
	time.Sleep(pause())
	denied := w.Client(t, "faults/client-a", []traffic.Stream{
		{Name: "forbidden kept", Addr: web + ":80", Host: "back-b", Method: "GET", Path: "/api/x", Keep: true, Workers: 2, Every: 10 * ms, Timeout: 300 * ms, Forbid: true},
		{Name: "forbidden fresh", Addr: web + ":80", Host: "back-b", Method: "GET", Path: "/api/x", Workers: 2, Every: 10 * ms, Timeout: 300 * ms, Forbid: true},
		{Name: "forbidden at the pod", Kind: traffic.TCP, Addr: pod + ":9000", Workers: 2, Every: 10 * ms, Timeout: 300 * ms, Forbid: true},
	})
	if *fullFlag {
		time.Sleep(time.Until(dead.Add(time.Minute)))
	}
	time.Sleep(pause())
	r, d := client(), denied()
	if len(d.Violations) > 0 {
		t.Errorf("%d came through after %v, such as %v", len(d.Violations), pause(), d.Violations[0])
	}
	first, last := map[string]time.Time{}, r.Last
	for _, f := range r.Failures {
		if f.Began.Before(began) {
			t.Errorf("before the change: %v", f)
			continue
		}
		if first[f.Stream].IsZero() || f.Ended.Before(first[f.Stream]) {
			first[f.Stream] = f.Ended
		}
	}
	for _, name := range []string{"kept through the proxy", "fresh through the proxy", "long at the pod", "fresh at the pod"} {
		if first[name].IsZero() {
			t.Errorf("%s: goes on with what was taken away", name)
			continue
		}
		t.Logf("%s: first refused %v after the change was written, answered last after %v", name, first[name].Sub(began).Round(ms), max(0, last[name].Sub(began)).Round(ms))
		if l := last[name].Sub(applied); l > revokeBound {
			t.Errorf("%s: answered %v after node 2 had the change", name, l)
		}
		if l := first[name].Sub(applied); l > revokeBound+time.Second { // its own timeout is no answer
			t.Errorf("%s: first refused %v after node 2 had the change", name, l)
		}
	}
	t.Logf("%d requests, %d forbidden ones: %v", total(r.Sent), total(d.Sent), d.Sent)
	w.mend(t)
	w.Change(t, lab.Delete, narrow)
	w.answered(t, "faults/client-a", "web", 80, twonodes.Patience)
}

func total(sent map[string]int) (n int) {
	for _, m := range sent {
		n += m
	}
	return n
}

// applyWithout applies manifests though a node has no agent, and waits for the others.
func (w *world) applyWithout(t *testing.T, dead, manifests string) {
	t.Helper()
	file := w.write(t, manifests)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := lab.Apply(ctx, lab.Change{Name: w.Name, Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	w.Status = st
	if err := w.AppliedBut(ctx, dead); err != nil {
		t.Fatal(err)
	}
}
