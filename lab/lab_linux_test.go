// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab/echo"
)

// The test plays the program that the lab starts in its places.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code, handled := Helper(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if !handled {
		code, handled = fakeDaemon(ctx, os.Args[1:])
	}
	stop()
	if !handled {
		code = m.Run()
	}
	os.Exit(code)
}

const shop = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      serviceAccountName: client
      containers:
      - {name: main, image: fairlead/load, env: [{name: COLOUR, value: green}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: fairlead/echo
        ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 5353, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: each, namespace: shop}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}]
`

func manifest(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "app.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// labName is a name that no other run of these tests has.
func labName(s string) string { return testPrefix() + s }

func testPrefix() string { return "t" + strconv.FormatInt(int64(os.Getpid()), 36) + "-" }

// testLab puts up a lab without agents, and checks at the end of the test that
// nothing of it remains.
func testLab(t *testing.T, name, text string) *Status {
	t.Helper()
	before := left(t)
	t.Cleanup(func() {
		if err := Down(context.Background(), name); err != nil && !errors.Is(err, ErrNoLab) {
			t.Error(err)
		}
		wantSame(t, before)
	})
	st, err := Up(t.Context(), Options{Name: name, Files: []string{manifest(t, text)}, NoAgent: true, Out: testWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// left lists what labs of tests leave on a machine when they are not taken down.
func left(t *testing.T) []string {
	t.Helper()
	var out []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, Root) {
			out = append(out, "mount "+strings.Fields(line)[4])
		}
	}
	files, err := filepath.Glob(Root + "/*" + testPrefix() + "*")
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, files...)
	dir, err := cgroupOf("x")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := filepath.Glob(filepath.Dir(dir) + "/fairlead-lab-*")
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, groups...)
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		ns, err := os.Readlink(p + "/ns/net")
		if err != nil {
			continue
		}
		if own, err := os.Readlink("/proc/self/ns/net"); err == nil && ns != own {
			cmd, _ := os.ReadFile(p + "/cmdline")
			if strings.Contains(string(cmd), "lab-") {
				out = append(out, "process "+strings.ReplaceAll(string(cmd), "\x00", " "))
			}
		}
	}
	out = slices.DeleteFunc(out, func(s string) bool { // labs that others have up meanwhile
		return !strings.Contains(s, testPrefix()) && !strings.Contains(s, os.Args[0])
	})
	slices.Sort(out)
	return out
}

func wantSame(t *testing.T, before []string) {
	t.Helper()
	if after := left(t); !slices.Equal(before, after) {
		t.Errorf("before: %q\nafter: %q", before, after)
	}
}

func run(t *testing.T, name, target string, command ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code, err := Exec(t.Context(), name, target, command, Stdio{Out: &b, Err: &b})
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return code, strings.TrimSpace(b.String())
}

// get asks a URL from a pod by curl and returns the echo server's answer.
func get(t *testing.T, name, from, url string) (a echo.Answer, err error) {
	t.Helper()
	code, out := run(t, name, from, "curl", "-sS", "-g", "--max-time", "5", url)
	if code != 0 {
		return a, fmt.Errorf("%s from %s: exit %d: %s", url, from, code, out)
	}
	return a, json.Unmarshal([]byte(out), &a)
}

func host(a fmt.Stringer) string {
	if s := a.String(); strings.Contains(s, ":") {
		return "[" + s + "]"
	}
	return a.String()
}

func TestLab(t *testing.T) {
	need.Root(t)
	need.Command(t, "curl")
	start := time.Now()
	st := testLab(t, labName("net"), shop)
	t.Logf("up after %s", time.Since(start))
	pods := map[string]PodStatus{}
	for _, p := range st.Pods {
		if !p.Ready {
			t.Errorf("%s: %s", p.Name, p.State)
		}
		pods[p.Name] = p
	}
	if len(pods) != 6 {
		t.Fatalf("pods: %v", st.Pods)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("6 pods took %s", took)
	}
	var froms []PodStatus
	for _, p := range pods {
		if p.Workload == "client" {
			froms = append(froms, p)
		}
	}
	if froms[0].Node == froms[1].Node {
		t.Errorf("both clients are on %s", froms[0].Node)
	}
	t.Run("reach", func(t *testing.T) {
		across, same := 0, 0
		for _, from := range froms {
			for _, to := range pods {
				if to.Workload != "web" {
					continue
				}
				for i, a := range to.Addresses {
					got, err := get(t, labName("net"), from.Namespace+"/"+from.Name, "http://"+host(a)+":8080/x?y=z")
					if err != nil {
						t.Error(err)
						continue
					}
					if got.Pod != to.Name || got.Node != to.Node || !strings.HasPrefix(got.Peer, host(from.Addresses[i])+":") {
						t.Errorf("%s got %+v", from.Name, got)
					}
				}
				if from.Node == to.Node {
					same++
				} else {
					across++
				}
			}
		}
		if same == 0 || across == 0 {
			t.Errorf("%d on the same node, %d across", same, across)
		}
	})
	t.Run("names", func(t *testing.T) {
		for _, h := range []string{"each", "each.shop", "each.shop.svc.cluster.local", "each.shop.svc.cluster.local."} {
			for _, family := range []string{"-4", "-6"} {
				code, out := run(t, labName("net"), "client", "curl", family, "-sS", "--max-time", "5", "http://"+h+":8080/")
				if code != 0 || !strings.Contains(out, `"deployment":"web"`) {
					t.Errorf("%s %s: %d %s", family, h, code, out)
				}
			}
		}
		var want []string
		for _, s := range st.Services {
			for _, a := range s.Addresses {
				want = append(want, a.String())
			}
		}
		code, out := run(t, labName("net"), "client", "getent", "ahosts", "web")
		for _, a := range want {
			if code != 0 || !strings.Contains(out, a) {
				t.Errorf("addresses of web: %s, want %s", out, a)
			}
		}
		if code, out := run(t, labName("net"), "client", "getent", "hosts", "nothing.of.the.kind"); code == 0 {
			t.Errorf("an unknown name is %s", out)
		}
	})
	t.Run("exec", func(t *testing.T) {
		if code, _ := run(t, labName("net"), "client", "sh", "-c", "exit 7"); code != 7 {
			t.Errorf("exit code %d", code)
		}
		if code, _ := run(t, labName("net"), "client", "sh", "-c", "kill -9 $$"); code != 137 {
			t.Errorf("exit code %d of one that was killed", code)
		}
		if code, out := run(t, labName("net"), froms[0].Name, "sh", "-c", "echo $COLOUR $HOSTNAME; cat /proc/self/cgroup"); code != 0 ||
			!strings.HasPrefix(out, "green "+froms[0].Name) || !strings.Contains(out, "/"+froms[0].Node+"/pods/shop_"+froms[0].Name) {
			t.Errorf("%d %s", code, out)
		}
		if code, out := run(t, labName("net"), "node/node-1", "cat", "/proc/sys/net/ipv4/ip_forward"); code != 0 || out != "1" {
			t.Errorf("node: %d %s", code, out)
		}
		for _, p := range pods {
			if p.Workload != "web" {
				continue
			}
			for _, from := range []string{"outside", "node/node-1", "node/node-2"} {
				for _, a := range p.Addresses {
					if _, err := get(t, labName("net"), from, "http://"+host(a)+":8080/"); err != nil {
						t.Error(err)
					}
				}
			}
		}
		var b bytes.Buffer
		if code, err := Exec(t.Context(), labName("net"), "client", []string{"sh", "-c", "cat; type load request call fairlead"},
			Stdio{In: strings.NewReader("through"), Out: &b, Err: &b}); err != nil || code != 0 || !strings.HasPrefix(b.String(), "through") {
			t.Errorf("%d %v %s", code, err, b.String())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if code, err := Exec(ctx, labName("net"), "client", []string{"sleep", "100"}, Stdio{}); code != 143 {
			t.Errorf("a command that was cut short: %d %v", code, err)
		}
		if _, err := Exec(t.Context(), labName("net"), "nobody", []string{"true"}, Stdio{}); err == nil || !strings.Contains(err.Error(), "shop/") {
			t.Errorf("error for an unknown pod: %v", err)
		}
	})
	t.Run("logs", func(t *testing.T) {
		var b bytes.Buffer
		if err := Logs(t.Context(), labName("net"), "web", false, &b); err != nil || !strings.Contains(b.String(), "8080") {
			t.Errorf("%q %v", b.String(), err)
		}
	})
}

func TestDirtyRemains(t *testing.T) {
	need.Root(t)
	before := left(t)
	st := testLab(t, labName("dirty"), shop)
	// As after a crash that took the records with it and some of the processes.
	if err := os.Remove(pathsOf(labName("dirty")).record()); err != nil {
		t.Fatal(err)
	}
	r, err := exec.Command("sh", "-c", "cat /proc/self/mountinfo | grep -c "+st.Run).Output()
	if err != nil {
		t.Fatalf("no mounts: %s %v", r, err)
	}
	if _, err := Up(t.Context(), Options{Name: labName("dirty"), Files: []string{manifest(t, shop)}, NoAgent: true}); err != nil {
		t.Fatal(err)
	}
	if code, out := run(t, labName("dirty"), "client", "getent", "hosts", "each"); code != 0 {
		t.Errorf("%s", out)
	}
	if err := Down(t.Context(), labName("dirty")); err != nil {
		t.Fatal(err)
	}
	wantSame(t, before)
	if err := Down(t.Context(), labName("dirty")); !errors.Is(err, ErrNoLab) {
		t.Errorf("second down: %v", err)
	}
}
