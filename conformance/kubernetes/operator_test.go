// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// operators run fairlead operator as a service account with the role of testdata/operator.yaml.
type operators struct{ binary, kubeconfig string }

func newOperators(t *testing.T, c cluster) operators {
	t.Helper()
	c.up(t)
	forget := func(args ...string) {
		t.Cleanup(func() {
			if _, err := c.try(context.Background(), "", append([]string{"delete", "--ignore-not-found", "--timeout=60s"}, args...)...); err != nil {
				t.Error(err)
			}
		})
	}
	for _, module := range []string{"istio.io/api", "sigs.k8s.io/gateway-api"} {
		list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
		list.Dir = "../.."
		dir, err := list.Output()
		if err != nil {
			t.Fatalf("find %s: %v", module, err)
		}
		crds := filepath.Join(strings.TrimSpace(string(dir)), map[string]string{"istio.io/api": "kubernetes/customresourcedefinitions.gen.yaml", "sigs.k8s.io/gateway-api": "config/crd/standard"}[module])
		eventually(t, 60*time.Second, "apply definitions of "+module, func() error {
			_, err := c.try(t.Context(), "", "apply", "--server-side", "--force-conflicts", "-f", crds)
			return err
		})
		forget("-f", crds)
	}
	forget("crd", "-l", "app.kubernetes.io/managed-by=fairlead")
	c.kubectl(t, "apply", "-f", "testdata/operator.yaml")
	forget("-f", "testdata/operator.yaml")
	c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	eventually(t, 60*time.Second, "apply objects", func() error {
		_, err := c.try(t.Context(), "", "apply", "-f", "testdata/operator-objects.yaml")
		return err
	})
	forget("-f", "testdata/operator-objects.yaml")
	o := operators{filepath.Join(c.folder(), "build/fairlead"), filepath.Join(t.TempDir(), "kubeconfig")}
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-o", o.binary, "./cmd/fairlead")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	if err := os.WriteFile(o.kubeconfig, []byte(c.kubectl(t, "config", "view", "--raw", "--flatten")), 0o600); err != nil {
		t.Fatal(err)
	}
	user := c.kubectl(t, "config", "view", "-o", "jsonpath={.contexts[0].context.user}")
	token := c.kubectl(t, "create", "token", "-n", "operator", "fairlead-operator", "--duration=1h")
	c.kubectl(t, "config", "unset", "users."+user, "--kubeconfig", o.kubeconfig)
	c.kubectl(t, "config", "set-credentials", user, "--token", token, "--kubeconfig", o.kubeconfig)
	return o
}

// start runs one; what it says is shown if the test fails.
func (o operators) start(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), o.binary, "operator", "--kubeconfig", o.kubeconfig, "--namespace", "operator")
	log := &bytes.Buffer{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", name, log)
		}
	})
	return cmd
}

// conditions are an object's: "type=status/reason@generation", sorted.
func conditions(c cluster, kind, name string) ([]string, error) {
	out, err := c.try(context.Background(), "", "get", "-n", "operator-shop", kind, name, "-o", "json")
	if err != nil {
		return nil, err
	}
	type condition struct {
		Type, Status, Reason string
		ObservedGeneration   int
	}
	var o struct {
		Status struct {
			Conditions []condition
			Parents    []struct {
				ControllerName string
				Conditions     []condition
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		return nil, err
	}
	all := o.Status.Conditions
	for _, p := range o.Status.Parents {
		if p.ControllerName == "fairlead.io/mesh-controller" {
			all = append(all, p.Conditions...)
		}
	}
	var list []string
	for _, x := range all {
		list = append(list, fmt.Sprintf("%s=%s/%s@%d", x.Type, x.Status, x.Reason, x.ObservedGeneration))
	}
	slices.Sort(list)
	return list, nil
}

func awaitConditions(t *testing.T, c cluster, within time.Duration, kind, name string, want ...string) {
	t.Helper()
	eventually(t, within, kind+" "+name, func() error {
		got, err := conditions(c, kind, name)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		return err
	})
}

// Two operators with the least privileges: what they say of objects, who takes over when the
// leader is killed, that nothing is written when nothing changes, and that cleanup takes
// everything back.
func TestOperator(t *testing.T) {
	o := newOperators(t, main)
	one := o.start(t, "the first")
	awaitConditions(t, main, 60*time.Second, "virtualservice", "good", "fairlead.io/Accepted=True/Accepted@1", "fairlead.io/Serving=True/Serving@1")
	two := o.start(t, "the second")
	awaitConditions(t, main, 30*time.Second, "virtualservice", "bad", "fairlead.io/Accepted=False/Invalid@1")
	awaitConditions(t, main, 30*time.Second, "authorizationpolicy", "allow", "fairlead.io/Accepted=True/Approximated@1")
	eventually(t, 30*time.Second, "the route's parent", func() error {
		got, err := conditions(main, "httproute", "web")
		if err == nil && !slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, "ResolvedRefs=False/BackendNotFound") }) {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
	eventually(t, 60*time.Second, "SMI is installed, and its objects have Events", func() error {
		_, err := main.try(t.Context(), `
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: self, namespace: operator-shop}
spec: {service: web, backends: [{service: web, weight: 1}]}
`, "apply", "-f", "-")
		if err != nil {
			return err
		}
		out, err := main.try(t.Context(), "", "get", "events", "-n", "operator-shop", "-o", "jsonpath={range .items[*]}{.reason} {.involvedObject.name}{\"\\n\"}{end}")
		if err == nil && !strings.Contains(out, "OwnBackend self") {
			err = errors.New(out)
		}
		return err
	})

	versions := func() string {
		return main.kubectl(t, "get", "virtualservices,destinationrules,authorizationpolicies,httproutes,trafficsplits,events", "-n", "operator-shop", "-o",
			"jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}")
	}
	time.Sleep(3 * time.Second) // what is under way is done
	before := versions()
	time.Sleep(10 * time.Second)
	if after := versions(); after != before {
		t.Errorf("idle, and objects change:\n%s\n%s", before, after)
	}

	holder := func() string {
		return main.kubectl(t, "get", "lease", "-n", "operator", "fairlead-operator", "-o", "jsonpath={.spec.holderIdentity}")
	}
	first := holder()
	if err := one.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	_ = one.Wait() // killed
	main.kubectl(t, "patch", "virtualservice", "-n", "operator-shop", "good", "--type=merge", "-p", `{"spec":{"hosts":["web.operator-shop.svc.cluster.local"]}}`)
	awaitConditions(t, main, 60*time.Second, "virtualservice", "good", "fairlead.io/Accepted=True/Accepted@2", "fairlead.io/Serving=True/Serving@2")
	if second := holder(); second == first {
		t.Error("the Lease is still that of the first")
	}
	t.Logf("the second wrote %s after the first was killed", time.Since(killed).Round(100*time.Millisecond))

	main.kubectl(t, "patch", "virtualservice", "-n", "operator-shop", "good", "--subresource=status", "--type=json",
		"-p", `[{"op": "add", "path": "/status/conditions/0", "value": {"type": "Reconciled", "status": "True"}}]`)
	cleanup := exec.CommandContext(t.Context(), o.binary, "operator", "cleanup", "--kubeconfig", o.kubeconfig, "--namespace", "operator")
	if out, err := cleanup.CombinedOutput(); err != nil {
		t.Fatalf("cleanup: %v\n%s", err, out)
	}
	main.kubectl(t, "patch", "virtualservice", "-n", "operator-shop", "bad", "--type=merge", "-p", `{"spec":{"hosts":["another"]}}`)
	time.Sleep(5 * time.Second) // in which the second could write
	awaitConditions(t, main, time.Second, "virtualservice", "good", "Reconciled=True/@0")
	for _, kind := range []string{"virtualservice/bad", "destinationrule/web", "authorizationpolicy/allow", "httproute/web"} {
		if status := main.kubectl(t, "get", "-n", "operator-shop", kind, "-o", "jsonpath={.status}"); status != "" {
			t.Errorf("%s has still %s", kind, status)
		}
	}
	if left := main.kubectl(t, "get", "events.events.k8s.io", "-A", "-l", "app.kubernetes.io/managed-by=fairlead", "-o", "name"); left != "" {
		t.Errorf("Events are left: %s", left)
	}
	if left := main.kubectl(t, "get", "lease", "-n", "operator", "--ignore-not-found", "fairlead-operator", "-o", "name"); left != "" {
		t.Errorf("the Lease is left: %s", left)
	}
	if got := main.kubectl(t, "get", "crd", "trafficsplits.split.smi-spec.io", "-o", "name"); got == "" {
		t.Error("the definition is gone, and users' objects with it")
	}
	if err := two.Process.Signal(os.Interrupt); err != nil {
		t.Errorf("the second has ended by itself: %v", err)
	}
}
