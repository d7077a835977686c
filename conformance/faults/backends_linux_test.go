// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
)

// all is a service of three pods, whose requests are tried again as its policy says.
const all = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: pool, namespace: faults}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: pool}}
  template:
    metadata: {labels: {app: pool}}
    spec: {serviceAccountName: back, containers: [{name: main, image: fairlead/echo, ports: [{name: http, containerPort: 8080}, {name: tcp, containerPort: 9000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: pool, namespace: faults}
spec: {clusterIP: 10.96.70.1, clusterIPs: [10.96.70.1, "fd96::70:1"], ipFamilies: [IPv4, IPv6], selector: {app: pool}, ports: [{name: http, port: 80, targetPort: http}, {name: tcp, port: 9000, targetPort: tcp}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pool, namespace: faults}
spec:
  hosts: [pool]
  http:
  - match: [{port: 80}]
    retries: {attempts: 4, perTryTimeout: 2s, retryOn: "connect-failure,refused-stream,reset,unavailable"}
    route: [{destination: {host: pool}}]
`

func pool(replicas int) string { return strings.ReplaceAll(all, "REPLICAS", fmt.Sprint(replicas)) }

// TestBackends adds backends, takes some away, kills one, and takes the whole service
// away and back. A request that its policy allows to be tried again never fails while
// there is a backend, nor does a new connection, unless to one that was just killed.
func TestBackends(t *testing.T) {
	w := lives(t)
	t.Cleanup(func() { w.Change(t, lab.Delete, pool(3)) })
	w.Change(t, lab.Apply, pool(3))
	w.answered(t, "faults/client-a", "web", 80, twonodes.Patience)
	const ms, limit = time.Millisecond, 2 * time.Second
	clients := map[string]func() traffic.Result{}
	for i, on := range []string{"a", "b"} {
		at := func(port int) string {
			return netip.AddrPortFrom(w.Address(t, "faults", "pool", i == 1), uint16(port)).String()
		}
		clients[on] = w.Client(t, "faults/client-"+on, []traffic.Stream{
			{Name: "proxy kept", Addr: at(80), Host: "pool", Method: "GET", Path: "/api/x", Keep: true, Workers: 6, Every: 15 * ms, Timeout: limit, Want: 200, By: []string{"pool"}},
			{Name: "proxy fresh", Addr: at(80), Host: "pool", Method: "GET", Path: "/api/x", Workers: 3, Every: 30 * ms, Timeout: limit, Want: 200, By: []string{"pool"}},
			{Name: "kernel fresh", Kind: traffic.TCP, Addr: at(9000), Workers: 3, Every: 30 * ms, Timeout: limit},
			{Name: "kernel long", Kind: traffic.TCP, Addr: at(9000), Keep: true, Workers: 3, Every: 30 * ms, Timeout: limit},
		})
	}
	type phase struct {
		what       string
		began, end time.Time
	}
	var phases []phase
	do := func(what string, f func()) {
		began := time.Now()
		f()
		time.Sleep(pause())
		phases = append(phases, phase{what, began, time.Now()})
	}
	do("three", func() {})
	do("two added", func() { w.Change(t, lab.Apply, pool(5)) })
	do("three drained", func() { w.Change(t, lab.Apply, pool(2)) })
	do("one added", func() { w.Change(t, lab.Apply, pool(3)) })
	var killed time.Time
	do("one killed", func() {
		killed = time.Now()
		w.killPod(t, "pool-1")
	})
	var mended time.Time
	do("it is back", func() {
		w.Change(t, lab.Apply, pool(3)) // as kubelet, and who looks at readiness, would
		mended = time.Now()
	})
	service := all[strings.Index(all, "apiVersion: v1\nkind: Service"):]
	service = service[:strings.Index(service, "---")]
	do("the service gone", func() { w.Change(t, lab.Delete, service) })
	var back time.Duration
	do("the service back", func() {
		w.Change(t, lab.Apply, pool(3))
		back = w.answeredBy(t, "faults/client-a", "pool", 80, twonodes.Patience, "pool")
	})
	t.Logf("the service answers %v after it is back", back.Round(ms))
	in := func(f traffic.Failure) string {
		for _, p := range phases {
			if !f.Began.Before(p.began) && f.Began.Before(p.end) {
				return p.what
			}
		}
		return "?"
	}
	sent, failed, bad := 0, map[string]int{}, 0
	for _, end := range clients {
		r := end()
		for _, n := range r.Sent {
			sent += n
		}
		for _, f := range r.Failures {
			what := in(f)
			failed[what+": "+f.Stream]++
			long := f.Stream == "kernel long" // its pod is gone, and with it the connection
			gone := what == "the service gone" || what == "the service back" && f.Began.Before(phases[len(phases)-1].began.Add(back+time.Second))
			// Until somebody notices, new connections are given to the dead one, too.
			lost := strings.HasPrefix(f.Stream, "kernel") && f.Began.After(killed) && f.Began.Before(mended)
			if long && what != "three" || gone || lost {
				continue
			}
			if bad++; bad <= 10 {
				t.Errorf("%s: %v", what, f)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d failed that must not", bad)
	}
	t.Logf("%d requests; failed: %v", sent, failed)
}

// killPod kills the processes of a pod, as a crash does.
func (w *world) killPod(t *testing.T, pod string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.Status.Run, "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Pods []struct {
			Namespace, Name string
			Processes       []struct{ PID int }
		}
	}
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	for _, p := range record.Pods {
		if p.Namespace != "faults" || p.Name != pod {
			continue
		}
		for _, process := range p.Processes {
			if err := syscall.Kill(process.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	t.Fatalf("there is no %s", pod)
}
