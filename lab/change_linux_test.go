// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
)

func apply(t *testing.T, name, text string) *Status {
	t.Helper()
	st, err := Apply(t.Context(), Change{Name: name, Files: []string{manifest(t, text)}, Out: testWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// podsOf lists the pods of a workload as "name node".
func podsOf(st *Status, workload string) []string {
	var out []string
	for _, p := range st.Pods {
		if p.Workload == workload {
			out = append(out, p.Name+" "+p.Node)
		}
	}
	return out
}

func slicesOf(t *testing.T, st *Status, prefix string) string {
	t.Helper()
	files, err := filepath.Glob(st.Run + "/source/" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out += string(b)
	}
	return out
}

func TestApplyAndDelete(t *testing.T) {
	need.Root(t)
	need.Command(t, "curl")
	st := testLab(t, labName("apply"), shop)
	first := podsOf(st, "web")

	// More replicas: those that are there stay.
	st = apply(t, labName("apply"), strings.Replace(shop, "replicas: 4", "replicas: 5", 1))
	if got := podsOf(st, "web"); len(got) != 5 || !slices.Equal(got[:4], first) {
		t.Errorf("pods %v, before %v", got, first)
	}

	// Another template: all of them are replaced, and somebody answers all the while.
	stop := hammer(t, labName("apply"), "each:8080")
	st = apply(t, labName("apply"), strings.Replace(shop, "{app: web}}\n    spec:", "{app: web, version: v2}}\n    spec:", 1))
	stop()
	got := podsOf(st, "web")
	if len(got) != 4 || slices.ContainsFunc(got, func(p string) bool { return slices.Contains(first, p) }) {
		t.Errorf("pods %v, before %v", got, first)
	}
	if s := slicesOf(t, st, "z.endpointslice.shop.web-ipv4"); strings.Count(s, "ready: true") != 4 || strings.Contains(s, "ready: false") {
		t.Errorf("endpoints:\n%s", s)
	}

	// A pod that died is started again.
	r, err := loadRecord(labName("apply"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Pods {
		for _, x := range p.Processes {
			if err := x.signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := poll(t.Context(), 5*time.Second, time.Millisecond, func() (bool, error) { return !x.alive(), nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st, err = StatusOf(labName("apply")); err != nil || st.Pods[0].Ready {
		t.Errorf("dead pod: %+v %v", st.Pods[0], err)
	}
	st = apply(t, labName("apply"), "")
	for _, p := range st.Pods {
		if !p.Ready {
			t.Errorf("%s: %s", p.Name, p.State)
		}
	}

	// A broken document is named, the others are taken.
	_, err = Apply(t.Context(), Change{Name: labName("apply"), Files: []string{manifest(t, "a: [\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: more}\n")}})
	if err == nil || !strings.Contains(err.Error(), "app.yaml:") {
		t.Errorf("error for broken YAML: %v", err)
	}
	if s := slicesOf(t, st, "u"); !strings.Contains(s, "name: more") {
		t.Error("the document beside the broken one is missing")
	}

	st, err = Delete(t.Context(), Change{Name: labName("apply"), Files: []string{manifest(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")}})
	if err != nil || len(st.Pods) != 0 || len(st.Services) != 0 {
		t.Errorf("after the namespace went: %+v %v", st, err)
	}
	if files, err := filepath.Glob(st.Run + "/netns/*_*"); err != nil || len(files) > 0 {
		t.Errorf("namespaces of pods remain: %v %v", files, err)
	}
}

const twins = `apiVersion: v1
kind: Pod
metadata: {name: twins}
spec:
  containers:
  - {name: a, image: fairlead/echo, ports: [{containerPort: 8001}]}
  - {name: b, image: fairlead/echo, ports: [{containerPort: 8002}]}
`

// A container that dies takes its pod with it, and both come back.
func TestContainerDies(t *testing.T) {
	need.Root(t)
	testLab(t, labName("twins"), twins)
	r, err := loadRecord(labName("twins"))
	if err != nil {
		t.Fatal(err)
	}
	p := r.Pods[0].Processes[1]
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := poll(t.Context(), 5*time.Second, time.Millisecond, func() (bool, error) { return !p.alive(), nil }); err != nil {
		t.Fatal(err)
	}
	if st := apply(t, labName("twins"), ""); !st.Pods[0].Ready {
		t.Errorf("%+v", st.Pods[0])
	}
	if r.Pods[0].Processes[0].alive() {
		t.Error("the other container was left")
	}
}

// hammer asks a host from the client again and again; what it returns ends that
// and fails the test if a request failed.
func hammer(t *testing.T, name, host string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	n, failed := 0, ""
	wg.Go(func() {
		for ctx.Err() == nil {
			var b bytes.Buffer
			code, err := Exec(context.WithoutCancel(ctx), name, "client", []string{"curl", "-sS", "--max-time", "5", "http://" + host + "/"}, Stdio{Out: &b, Err: &b})
			if err != nil || code != 0 {
				failed += fmt.Sprintf("%d %v %s\n", code, err, b.String())
			}
			n++
		}
	})
	return func() {
		cancel()
		wg.Wait()
		if failed != "" || n == 0 {
			t.Errorf("of %d requests failed: %s", n, failed)
		}
	}
}

const kinds = `apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: alone}}
spec:
  nodeName: node-2
  containers:
  - {name: a, image: docker.io/istio/examples-bookinfo-details-v1, ports: [{containerPort: 9080}]}
  - {name: b, image: example.com/nothing:v1}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  nodeSelector: {kubernetes.io/hostname: node-2}
  containers: [{name: a, image: fairlead/echo, ports: [{name: http, containerPort: 7070}, {name: dns, containerPort: 7071, protocol: UDP}]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: a, image: mine, args: ["$(WHO)"], env: [{name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 6000}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec: {containers: [{name: a, image: fairlead/load}]}
`

func TestKinds(t *testing.T) {
	need.Root(t)
	need.Command(t, "curl")
	before := left(t)
	t.Cleanup(func() {
		if err := Down(context.Background(), labName("kinds")); err != nil {
			t.Error(err)
		}
		wantSame(t, before)
	})
	var said bytes.Buffer
	st, err := Up(t.Context(), Options{Name: labName("kinds"), Files: []string{manifest(t, kinds)}, NoAgent: true, Out: &said,
		Images: map[string]string{"mine": "sh -c 'echo I am $0 >&2; exec " + os.Args[0] + " lab-echo --port 6000=tcp'"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"app.yaml:1: Pod default/alone: image docker.io/istio/examples-bookinfo-details-v1: not run", "echo server on 9080", "example.com/nothing:v1: not run"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not said:\n%s", want, said.String())
		}
	}
	at := map[string]PodStatus{}
	for _, p := range st.Pods {
		at[p.Name] = p
	}
	if at["alone"].Node != "node-2" || len(at["alone"].Notes) != 2 || at["host"].Node != "node-2" || at["host"].Addresses[0].String() != "10.240.0.2" {
		t.Errorf("%+v", at)
	}
	if d := podsOf(st, "each"); len(d) != 2 || strings.Fields(d[0])[1] == strings.Fields(d[1])[1] {
		t.Errorf("daemon set: %v", d)
	}
	from := strings.Fields(podsOf(st, "each")[0])[0]
	for _, url := range []string{"http://10.240.0.2:7070/", "http://[fd40::2]:7070/"} {
		if a, err := get(t, labName("kinds"), from, url); err != nil || a.Pod != "host" {
			t.Errorf("%s: %+v %v", url, a, err)
		}
	}
	if code, out := run(t, labName("kinds"), "host", "sh", "-c", "cat /proc/self/cgroup; ls /sys/class/net >/dev/null; cat /etc/resolv.conf"); code != 0 ||
		!strings.Contains(out, "/node-2/pods/default_host") || !strings.Contains(out, "169.254.20.10") {
		t.Errorf("%s", out)
	}
	var b bytes.Buffer
	err = poll(t.Context(), 5*time.Second, 10*time.Millisecond, func() (bool, error) {
		b.Reset()
		err := Logs(t.Context(), labName("kinds"), "db-1", false, &b)
		return strings.Contains(b.String(), "I am db-1"), err
	})
	if err != nil {
		t.Errorf("logs %q %v", b.String(), err)
	}
	if code, out := run(t, labName("kinds"), from, "getent", "ahosts", "db-1.db"); code != 0 || !strings.Contains(out, at["db-1"].Addresses[0].String()) {
		t.Errorf("%s, want %s", out, at["db-1"].Addresses)
	}
	if code, out := run(t, labName("kinds"), "node/node-2", "cat", "/proc/self/cgroup"); code != 0 || !strings.Contains(out, "/node-2/system") {
		t.Errorf("%s", out)
	}
}

func TestTwoLabs(t *testing.T) {
	need.Root(t)
	need.Command(t, "curl")
	before := left(t)
	small := strings.Replace(shop, "replicas: 4", "replicas: 1", 1)
	var wg sync.WaitGroup
	names := []string{labName("one"), labName("two")}
	for _, name := range names {
		file := manifest(t, small)
		wg.Go(func() {
			if _, err := Up(t.Context(), Options{Name: name, Nodes: 3, Files: []string{file}, NoAgent: true}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	got, err := List()
	got = slices.DeleteFunc(got, func(n string) bool { return !strings.HasPrefix(n, testPrefix()) })
	if err != nil || !slices.Equal(got, names) {
		t.Errorf("labs %v %v", got, err)
	}
	for _, name := range names {
		if a, err := get(t, name, "client", "http://each:8080/"); err != nil || a.Deployment != "web" {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
	if err := Down(t.Context(), labName("one")); err != nil {
		t.Error(err)
	}
	if a, err := get(t, labName("two"), "client", "http://each:8080/"); err != nil || a.Deployment != "web" {
		t.Errorf("after the other went: %+v %v", a, err)
	}
	if err := Down(t.Context(), labName("two")); err != nil {
		t.Error(err)
	}
	wantSame(t, before)
}

func TestStopAndStart(t *testing.T) {
	need.Root(t)
	testLab(t, labName("stop"), strings.Replace(shop, "replicas: 4", "replicas: 1", 1))
	if err := Stop(t.Context(), labName("stop"), "node-1", "dns", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st := apply(t, labName("stop"), "")
	if got := st.Nodes[0].Processes["dns"]; got != "stopped" {
		t.Errorf("dns is %s", got)
	}
	if err := Start(t.Context(), labName("stop"), "node-1", "dns"); err != nil {
		t.Fatal(err)
	}
	if st, err := StatusOf(labName("stop")); err != nil || st.Nodes[0].Processes["dns"] != running {
		t.Errorf("%+v %v", st, err)
	}
	if err := Stop(t.Context(), labName("stop"), "node-1", "agent", syscall.SIGKILL); err == nil {
		t.Error("a process that is not there was stopped")
	}
}

// What ends a lab before it is up, or its program's death, leaves nothing that the
// next one stumbles over.
func TestUpThatFails(t *testing.T) {
	need.Root(t)
	before := left(t)
	for name, o := range map[string]Options{
		"no program":  {Files: []string{manifest(t, shop)}, Binary: "/no/such/program"},
		"not a place": {Files: []string{manifest(t, shop)}, Binary: "/bin/false"},
		"no file":     {Files: []string{"/no/such/file"}},
		"broken":      {Files: []string{manifest(t, "a: [\n")}},
		"nodes":       {Nodes: 99},
		"name":        {Name: "Not A Name"},
	} {
		o.NoAgent = true
		if o.Name == "" {
			o.Name = labName("fails")
		}
		if _, err := Up(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
		wantSame(t, before)
	}
	for _, after := range []time.Duration{time.Millisecond, 30 * time.Millisecond, 150 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := Up(ctx, Options{Name: labName("fails"), Files: []string{manifest(t, shop)}, NoAgent: true})
		cancel()
		if err == nil {
			if err := Down(t.Context(), labName("fails")); err != nil {
				t.Error(err)
			}
		}
		wantSame(t, before)
	}
}

// TestKilled kills the program in the middle of Up, at different moments.
func TestKilled(t *testing.T) {
	need.Root(t)
	before := left(t)
	file := manifest(t, shop)
	for _, after := range []time.Duration{20, 60, 120, 250} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUpAlone$")
		cmd.Env = append(os.Environ(), "FAIRLEAD_LAB_UP="+file, "FAIRLEAD_LAB_NAME="+labName("killed"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if err := Down(t.Context(), labName("killed")); err != nil && !errors.Is(err, ErrNoLab) {
			t.Errorf("after %d ms: %v", after, err)
		}
		if after := left(t); !slices.Equal(before, after) {
			t.Errorf("before: %q\nafter: %q", before, after)
		}
	}
}

// TestUpAlone is TestKilled's victim.
func TestUpAlone(t *testing.T) {
	file := os.Getenv("FAIRLEAD_LAB_UP")
	if file == "" {
		t.Skip("runs as a part of TestKilled")
	}
	if _, err := Up(t.Context(), Options{Name: os.Getenv("FAIRLEAD_LAB_NAME"), Files: []string{file}, NoAgent: true}); err != nil {
		t.Fatal(err)
	}
}
