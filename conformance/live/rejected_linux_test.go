// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
)

// strictEnvoy makes an Envoy that rejects what the agents take for good. The user that
// Envoys run as can read it.
func strictEnvoy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	from, err := os.Open(need.Envoy(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "envoy"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	strict := filepath.Join(dir, "strict")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.envoy="+to.Name(), "-o", strict, "./testdata/strict").CombinedOutput(); err != nil {
		t.Fatalf("build strict: %v\n%s", err, out)
	}
	return strict
}

// restartProxies has the proxies start with other arguments, and waits until their
// Envoys are those that they would start.
func (w *world) restartProxies(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	for _, node := range w.nodes() {
		if err := lab.Stop(ctx, labName, node, "proxy", syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if err := lab.Start(ctx, labName, node, "proxy", args...); err != nil {
			t.Error(err)
		}
	}
	for _, node := range w.nodes() {
		for {
			s, err := w.agents[node].Status(ctx)
			if err == nil && s.Proxy != nil && s.Proxy.Envoy.Connected && !s.Proxy.Envoy.Adopted {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: Envoy was not replaced: %v, %+v", node, err, s)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if err := w.applied(ctx); err != nil {
		t.Error(err)
	}
}

// One expression has some 120 instructions, the other a few.
const (
	longRegex  = "/(a{40}|b{40}|c{40})"
	shortRegex = "/[abc]+"
)

func rejectedRoutes(host, regex, version string) txtar.File {
	return txtar.File{Name: host + ".yaml", Data: fmt.Appendf(nil, `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: absent}
spec:
  hosts: [%[1]s]
  http:
  - match: [{uri: {prefix: /x}}]
    headers: {request: {set: {x-route: "%[3]s"}}}
    route: [{destination: {host: web-v1}}]
  - match: [{uri: {regex: "%[2]s"}}]
    headers: {request: {set: {x-asked: %[1]s}}}
    route: [{destination: {host: web-v2}}]
  - headers: {request: {set: {x-route: "%[3]s"}}}
    route: [{destination: {host: web-v1}}]
`, host, regex, version)}
}

var freshService = txtar.File{Name: "service.yaml", Data: []byte(`apiVersion: v1
kind: Service
metadata: {name: fresh, namespace: absent}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
`)}

// rejectedPolicy allows less than what else there is.
var rejectedPolicy = txtar.File{Name: "target.yaml", Data: []byte(`apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: closed, namespace: absent}
spec: {matches: [{name: closed, pathRegex: "` + longRegex + `"}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: closed, namespace: absent}
spec:
  destination: {kind: ServiceAccount, name: default, namespace: absent}
  sources: [{kind: ServiceAccount, name: client, namespace: absent}]
  rules: [{kind: HTTPRouteGroup, name: closed}]
`)}

// TestRejectedByEnvoy has Envoys reject what the agents take for good: everything else
// of the same change is served, what was good before stays, what never was answers
// 500, and the nodes name the object and the field.
func TestRejectedByEnvoy(t *testing.T) {
	w := lives(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	app := absence(t)
	web, v1, fresh := rejectedRoutes("web", shortRegex, "one"), rejectedRoutes("web-v1", shortRegex, "one"), rejectedRoutes("fresh", shortRegex, "one")
	strict := strictEnvoy(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		w.delete(t, fresh, v1, app)
		w.restartProxies(ctx, t)
		w.nothingLeft(t)
	})
	w.apply(t, app, web, v1)
	w.restartProxies(ctx, t, "--envoy="+strict)
	w.runText(t, "absent", `
		client GET http://web/ *4 -> 200 v1 header.x-route=one
		other GET http://web/abc *4 v6 -> 200 v2
		client GET http://web-v1/ *4 -> 200 v1 header.x-route=one`)

	// One that was good, one that is new, and one beside them that is good.
	w.apply(t, rejectedRoutes("web", longRegex, "two"), rejectedRoutes("web-v1", shortRegex, "two"), freshService, rejectedRoutes("fresh", longRegex, "two"))
	w.runText(t, "absent", `
		client GET http://web/ *4 -> 200 v1 header.x-route=one
		other GET http://web/abc *4 v6 -> 200 v2
		client GET http://web-v1/ *4 eventually -> 200 v1 header.x-route=two
		client GET http://fresh/ *4 -> 500
		other GET http://fresh/x *4 v6 -> 500
		client GET http://closed/ *4 -> 200
		client POST http://closed/ -> 403`)
	w.rejected(t, "node-1", map[string]agent.Serving{"absent/web:80": agent.LastGood, "absent/fresh:80": agent.Answer500})
	out, err := exec.Command(filepath.Join(w.dir, "fairlead"), "status", "--run", filepath.Join(w.run, "node-1")).CombinedOutput()
	for _, want := range []string{"REJECTED", "absent/web:80", "last good", "absent/fresh:80", "VirtualService absent/web ", "VirtualService absent/fresh ", "spec.http[1].match[0].uri.regex", longRegex} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("status, %v, has no %q:\n%s", err, want, out)
		}
	}

	// A policy that no Envoy takes: who was forbidden to stays so.
	w.apply(t, rejectedPolicy)
	w.runText(t, "absent", `
		client POST http://closed/ *4 -> 403|5xx
		other GET http://closed/ *4 v6 -> 403|5xx
		outside GET http://{closed-1}:8080/ -> 403|5xx
		client POST http://{closed-2}:8080/ -> 403|5xx
		client GET http://web-v1/ *4 -> 200 v1 header.x-route=two`)
	w.delete(t, rejectedPolicy)
	w.runText(t, "absent", `
		client GET http://closed/ *4 -> 200
		client POST http://closed/ -> 403
		other GET http://closed/ -> 403`)

	// Another change of what was rejected: nothing is stuck.
	w.apply(t, rejectedRoutes("web", shortRegex, "three"), rejectedRoutes("fresh", shortRegex, "three"))
	w.runText(t, "absent", `
		client GET http://web/ *4 -> 200 v1 header.x-route=three
		other GET http://web/abc *4 v6 -> 200 v2
		client GET http://fresh/x *4 -> 200 v1 header.x-route=three
		other GET http://fresh/abc *4 v6 -> 200 v2`)
	w.rejected(t, "node-1", nil)
	w.rejected(t, "node-2", nil)
}

// rejected expects a node to tell of the route tables that its Envoy does not take, and
// of what it serves in their place. Those of the other family may be among them.
func (w *world) rejected(t *testing.T, node string, want map[string]agent.Serving) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		s, err := w.agents[node].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wrong := ""
		for name, serving := range want {
			if !slices.ContainsFunc(s.Rejected, func(r agent.Rejected) bool { return r.Name == name && r.Serving == serving }) {
				wrong += fmt.Sprintf("nothing of %s that serves %s; ", name, serving)
			}
		}
		for _, r := range s.Rejected {
			if _, known := want[strings.TrimSuffix(r.Name, "@6")]; !known {
				wrong += "unexpected: " + r.Name + "; "
			}
		}
		if wrong == "" {
			return
		}
		if time.Since(begin) > patience {
			t.Errorf("%s: rejected: %s in %+v", node, wrong, s.Rejected)
			return
		}
	}
}
