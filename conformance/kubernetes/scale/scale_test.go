// SPDX-License-Identifier: Apache-2.0

// Package scale measures what a big cluster costs a node's agent: 2,000 services with
// 10,000 endpoints and 2,000 policies in a real API server, whose pods are on nodes that do
// not exist. hack/kubernetes.sh scale runs it; the figures are in docs/performance.md.
package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

const (
	services = 2000
	perEach  = 5 // endpoints of a service
	policies = 2000
	absent   = 40 // nodes that do not exist
	changes  = 30 // of one object each
	idleTime = 60 * time.Second
)

type m = map[string]any

func BenchmarkCluster(b *testing.B) {
	if b.N > 1 {
		b.Skip("one run says it: -benchtime 1x")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		b.Fatal(err)
	}
	c := testcluster.Cluster{Name: "fairlead-scale", Root: root}
	c.Up(b)
	if os.Getenv("KEEP") == "" {
		b.Cleanup(func() {
			if err := c.Down(); err != nil {
				b.Error(err)
			}
		})
	}
	definitions, err := os.ReadFile("../testdata/reader.yaml")
	if err != nil {
		b.Fatal(err)
	}
	c.Apply(b, string(definitions))
	c.Kubectl(b, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	testcluster.Start(b, c)
	w := &world{b: b, c: c, api: newAPI(b, c), ctx: b.Context()}
	w.find()
	w.idle("before")
	w.fill()
	w.idle("after")
	w.change()
}

// world is the cluster with the agent of its first node.
type world struct {
	b     *testing.B
	c     testcluster.Cluster
	api   *api
	ctx   context.Context
	agent *http.Client
}

// find reaches the agent's socket through the node's own files.
func (w *world) find() {
	pid := strings.Fields(w.c.On(w.b, "node-1", "cat", "/run/fairlead-agent.pid"))[0]
	// The number is the node's; here the process has another.
	here := ""
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		w.b.Fatal(err)
	}
	inner := regexp.MustCompile(`(?m)^NSpid:.*\t` + pid + `$`)
	for _, file := range all {
		text, err := os.ReadFile(file)
		cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err == nil && inner.Match(text) && strings.Contains(string(cmd), w.c.Folder()+"/build/fairlead\x00agent\x00--node\x00node-1") {
			here = filepath.Dir(file)
		}
	}
	if here == "" {
		w.b.Fatal("the agent of node-1 is not found")
	}
	socket := here + "/root/run/fairlead/agent.sock"
	w.agent = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	w.b.Cleanup(w.agent.CloseIdleConnections)
}

type status struct {
	Revision, Applied string
	Objects           int
}

func (w *world) status() status {
	resp, err := w.agent.Get("http://agent/status")
	if err != nil {
		w.b.Fatal(err)
	}
	defer resp.Body.Close()
	var s status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		w.b.Fatal(err)
	}
	return s
}

// usage is what the agent has used so far.
type usage struct {
	cpu      time.Duration
	memory   int // kB that it has of its own
	received int // bytes from the API server
}

func (w *world) usage() usage {
	out := w.c.On(w.b, "node-1", "sh", "-c", `p=$(cat /run/fairlead-agent.pid)
		cut -d' ' -f14,15 /proc/$p/stat; grep RssAnon /proc/$p/status; ss -Htinp "dport = :6443" | grep -A1 "pid=$p," | grep -o 'bytes_received:[0-9]*'; :`)
	var u usage
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ':' })
		at := func(k int) int {
			n, err := strconv.Atoi(f[k])
			if err != nil {
				w.b.Fatalf("usage: %q: %v", out, err)
			}
			return n
		}
		switch {
		case i == 0:
			u.cpu = time.Duration(at(0)+at(1)) * 10 * time.Millisecond
		case f[0] == "RssAnon":
			u.memory = at(1)
		default:
			u.received += at(1)
		}
	}
	return u
}

// idle measures what it costs when nothing changes but what a cluster changes by itself.
func (w *world) idle(when string) {
	before := w.usage()
	time.Sleep(idleTime)
	after := w.usage()
	w.report("idle-"+when+"-cpu-%", 100*(after.cpu-before.cpu).Seconds()/idleTime.Seconds())
	w.report("idle-"+when+"-received-B/s", float64(after.received-before.received)/idleTime.Seconds())
	w.report("idle-"+when+"-MB", float64(after.memory)/1024)
}

// report is a figure of the run.
func (w *world) report(unit string, value float64) {
	w.b.ReportMetric(value, unit)
	w.b.Logf("%-28s %.3g", unit, value)
}

// fill writes everything, and waits until the agent has applied it.
func (w *world) fill() {
	before, begun := w.usage(), time.Now()
	must := func(err error) {
		w.b.Helper()
		if err != nil {
			w.b.Fatal(err)
		}
	}
	must(w.api.create(w.ctx, "/api/v1/namespaces", m{"metadata": m{"name": "scale", "labels": m{"istio-injection": "enabled"}}}))
	each(w.b, absent, func(i int) error {
		return w.api.create(w.ctx, "/api/v1/nodes", m{"metadata": m{"name": fmt.Sprintf("absent-%d", i), "annotations": m{"fairlead.io/agent": "true"}},
			"status": m{"addresses": []m{{"type": "InternalIP", "address": fmt.Sprintf("10.241.0.%d", i+1)}}}})
	})
	w.c.Kubectl(w.b, "wait", "-n", "scale", "--for=create", "serviceaccount/default", "--timeout=60s")
	each(w.b, services, func(i int) error {
		return w.api.create(w.ctx, "/api/v1/namespaces/scale/services", m{"metadata": m{"name": fmt.Sprintf("s-%d", i)},
			"spec": m{"selector": m{"app": fmt.Sprintf("s-%d", i)}, "ports": []m{{"name": "http", "port": 80, "targetPort": 8080}}}})
	})
	each(w.b, policies, func(i int) error {
		return w.api.create(w.ctx, "/apis/security.istio.io/v1/namespaces/scale/authorizationpolicies", m{
			"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": m{"name": fmt.Sprintf("s-%d", i)},
			"spec": m{"selector": m{"matchLabels": m{"app": fmt.Sprintf("s-%d", i%services)}}, "rules": []m{{"to": []m{{"operation": m{"methods": []string{"GET"}}}}}}}})
	})
	each(w.b, services*perEach, func(i int) error {
		name := fmt.Sprintf("p-%d", i)
		pod := "/api/v1/namespaces/scale/pods"
		err := w.api.create(w.ctx, pod, m{"metadata": m{"name": name, "labels": m{"app": fmt.Sprintf("s-%d", i%services)}},
			"spec": m{"nodeName": fmt.Sprintf("absent-%d", i%absent), "tolerations": []m{{"operator": "Exists"}}, "automountServiceAccountToken": false,
				"containers": []m{{"name": "main", "image": "none"}}}})
		if err != nil {
			return err
		}
		ip := fmt.Sprintf("10.242.%d.%d", i/250, i%250+1)
		return w.api.patch(w.ctx, pod+"/"+name+"/status", m{"status": m{"phase": "Running", "podIP": ip, "podIPs": []m{{"ip": ip}},
			"conditions": []m{{"type": "Ready", "status": "True"}}}})
	})
	written := time.Now()
	want := services + policies + services*perEach + services // and an EndpointSlice each
	last := status{}
	testcluster.Eventually(w.b, 10*time.Minute, "the agent", func() error {
		last = w.status()
		ready := strings.Count(w.c.Kubectl(w.b, "get", "endpointslices", "-n", "scale", "-o", `jsonpath={range .items[*]}{range .endpoints[*]}{.conditions.ready}{"\n"}{end}{end}`), "true")
		if ready < services*perEach || last.Objects < want || last.Applied != last.Revision {
			return fmt.Errorf("it has %d of %d objects, %d endpoints are ready, applied: %v", last.Objects, want, ready, last.Applied == last.Revision)
		}
		return nil
	})
	after := w.usage()
	w.report("fill-written-s", written.Sub(begun).Seconds())
	w.report("fill-applied-after-s", time.Since(written).Seconds())
	w.report("fill-cpu-s", (after.cpu - before.cpu).Seconds())
	w.report("fill-received-MB", float64(after.received-before.received)/1e6)
	w.report("objects", float64(last.Objects))
}

// change writes one object at a time, and measures until kernel and Envoy have it. The
// client of a service keeps its routes in Envoy.
func (w *world) change() {
	for what, write := range map[string]func(i int) error{
		"policy": func(i int) error {
			return w.api.patch(w.ctx, fmt.Sprintf("/apis/security.istio.io/v1/namespaces/scale/authorizationpolicies/s-%d", i),
				m{"spec": m{"rules": []m{{"to": []m{{"operation": m{"methods": []string{"GET", "HEAD"}}}}}}}})
		},
		"endpoint": func(i int) error {
			return w.api.patch(w.ctx, fmt.Sprintf("/api/v1/namespaces/scale/pods/p-%d/status", i),
				m{"status": m{"conditions": []m{{"type": "Ready", "status": "False"}}}})
		},
	} {
		var took []time.Duration
		before := w.usage()
		for i := range changes {
			was := w.status()
			begun := time.Now()
			if err := write(i); err != nil {
				w.b.Fatal(err)
			}
			for s := was; s.Revision == was.Revision || s.Applied != s.Revision; s = w.status() {
				if time.Since(begun) > time.Minute {
					w.b.Fatalf("%s %d was not applied", what, i)
				}
				time.Sleep(time.Millisecond)
			}
			took = append(took, time.Since(begun))
		}
		after := w.usage()
		slices.Sort(took)
		w.report(what+"-median-ms", float64(took[len(took)/2].Microseconds())/1000)
		w.report(what+"-max-ms", float64(took[len(took)-1].Microseconds())/1000)
		w.report(what+"-received-B", float64(after.received-before.received)/changes)
	}
}
