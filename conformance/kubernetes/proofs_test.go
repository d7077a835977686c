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
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Fairlead as Helm installs it, while what it stands on changes or fails: who serves a
// namespace, the API server, a node.
func TestProofs(t *testing.T) {
	f := newInstalled(t, main)
	f.deployShop(t)
	f.helmInstall(t)
	f.c.kubectl(t, "wait", "--for=condition=Established", "-f", "../../deploy/crds", "--timeout=60s")
	f.plane(t, "istio", "apply")
	for _, n := range nodes {
		f.settled(t, n)
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fleet)
	}{
		{"swap", swapped},
		{"a namespace's own Envoy", ownProxy},
		{"API server stopped", serverStopped},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
	f.helmUninstall(t)
}

var nodes = []string{"node-1", "node-2"}

// deployShop makes clients, servers of two versions, and services; on each node all of it.
func (f *fleet) deployShop(t *testing.T) {
	t.Helper()
	f.c.kubectl(t, "apply", "-f", "testdata/shop.yaml")
	t.Cleanup(func() {
		if _, err := f.c.try(context.Background(), "", "delete", "namespace", "shop", "istio-system", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	all := slices.Concat(onBoth("shop", "frontend", "frontend"), onBoth("shop", "batch", "batch"))
	for _, version := range []string{"v1", "v2"} {
		for _, p := range onBoth("shop", "reviews-"+version, "reviews") {
			p.App, p.Version = "reviews", version
			all = append(all, p)
		}
	}
	f.apply(t, unhurried(t, all))
	f.c.kubectl(t, "wait", "-n", "shop", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
}

// probed are lines of a pod's manifest that have it killed, and taken out of its services,
// by a kubelet without time.
var probed = regexp.MustCompile(`(?m)^    (startup|readiness|liveness)Probe: .*\n`)

// unhurried are pods that are ready when they serve, and stay so whatever a kubelet without
// time finds.
func unhurried(t *testing.T, pods []served) string {
	t.Helper()
	return strings.ReplaceAll(probed.ReplaceAllString(manifest(t, pods), ""), "    imagePullPolicy: Never\n",
		"    imagePullPolicy: Never\n    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 100}\n")
}

// plane applies or deletes the shop's objects of a control plane, as its users would.
func (f *fleet) plane(t *testing.T, name, verb string) {
	t.Helper()
	eventually(t, time.Minute, verb+" the objects of "+name, func() error { // their definitions may be new
		_, err := f.c.try(t.Context(), "", verb, "-f", filepath.Join("../demo", name+".yaml"))
		return err
	})
}

// loads counts those that there were: each needs a name of its own on its node.
var loads atomic.Int64

// sendWithout sends requests as send does, without the API server.
func (f *fleet) sendWithout(t *testing.T, from string, args ...string) *sending {
	t.Helper()
	namespace, pod, _ := strings.Cut(from, "/")
	at := strings.Fields(f.c.kubectl(t, "get", "pod", "-n", namespace, pod, "-o", "jsonpath={.spec.nodeName} {.status.containerStatuses[0].containerID}"))
	if len(at) != 2 {
		t.Fatalf("pod %s is on %q", from, at)
	}
	return sendBy(t, f.c.script(context.Background(), "enter.sh", append([]string{at[0], "ctr", "-n", "k8s.io", "tasks", "exec",
		"--exec-id", fmt.Sprintf("load-%d-%d", os.Getpid(), loads.Add(1)), strings.TrimPrefix(at[1], "containerd://"), "sh", "-c", untilEnded, "load"}, args...)...))
}

// shopAt are the shop's URLs of a path, by its addresses: the DNS is not what is tried.
func (f *fleet) shopAt(t *testing.T) func(path string) []string {
	t.Helper()
	four, six := f.c.addresses(t, "shop", "service", "reviews", ".spec.clusterIPs[*]")
	return func(path string) []string {
		return []string{"-host", "reviews", "-url", "http://" + four + path, "-url", "http://[" + six + "]" + path}
	}
}

// storm is requests of the shop that must all be answered, and others that must all be
// refused, from each node and to each.
func (f *fleet) storm(t *testing.T, from ...string) map[string]*sending {
	t.Helper()
	out := map[string]*sending{}
	for _, node := range from {
		n := strings.TrimPrefix(node, "node-")
		at := f.shopAt(t)
		direct := []string{"-forbid"}
		for _, server := range []string{"reviews-v1-" + n, "reviews-v2-" + n} {
			four, six := f.c.addresses(t, "shop", "pod", server, ".status.podIPs[*].ip")
			direct = append(direct, "-url", "http://"+four+":8080/api/1", "-url", "http://["+six+"]:8080/api/1")
		}
		for what, l := range map[string]struct {
			pod  string
			args []string
		}{
			"allowed":                   {"frontend-" + n, append(at("/api/1"), at("/api/2")...)},
			"forbidden to who asks":     {"batch-" + n, append(at("/api/1"), "-forbid")},
			"forbidden as it is asked":  {"frontend-" + n, append(at("/admin"), "-forbid")},
			"forbidden, to the address": {"batch-" + n, direct},
		} {
			out[what+" from "+node] = f.sendWithout(t, "shop/"+l.pod, append(l.args, "-rate", "20", "-connections", "4", "-fresh", "0.3", "-timeout", "20s")...)
		}
	}
	time.Sleep(3 * time.Second)
	return out
}

func calm(t *testing.T, storm map[string]*sending) {
	t.Helper()
	for what, s := range storm {
		s.noneFailed(t, what)
	}
}

// owned waits until a plane routes the shop's requests on all nodes, by what each agent
// says of who stands by; "" if nobody does.
func (f *fleet) owned(t *testing.T, owner, standby string) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, time.Minute, owner+" serves on "+n, func() error {
			text, err := f.c.script(t.Context(), "enter.sh", n, f.binary(), "status", "-o", "json").Output()
			if err != nil {
				return err
			}
			var all []struct {
				Applied, Revision string
				Standby           []struct{ Frontend, Owner, Plane string }
			}
			if err := json.Unmarshal(text, &all); err != nil || len(all) != 1 {
				return fmt.Errorf("%w: %s", err, text)
			}
			s := all[0]
			if s.Applied != s.Revision {
				return errors.New("it is not applied yet")
			}
			for _, b := range s.Standby {
				if strings.HasPrefix(b.Frontend, "shop/") && b.Owner == owner && b.Plane == standby {
					return nil
				}
			}
			if standby == "" && len(s.Standby) == 0 {
				return nil
			}
			return fmt.Errorf("there stand by %v", s.Standby)
		})
	}
}

// fairlead runs the command as a person does who has a kubeconfig and no node.
func (f *fleet) fairlead(t *testing.T, args ...string) (out, said string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), f.binary(), append(args, "--kubeconfig", filepath.Join(f.c.folder(), "kubeconfig"))...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// fairleadAtEnd takes away what a test that has failed has left.
func (f *fleet) fairleadAtEnd(args ...string) {
	_ = exec.Command(f.binary(), append(args, "--kubeconfig", filepath.Join(f.c.folder(), "kubeconfig"))...).Run()
}

// Who serves a namespace changes under load, in each way that there is: by the command, by
// the annotation, and by applying the next plane's objects before the last one's are
// deleted. No request is lost, and none let through that both forbid.
func swapped(t *testing.T, f *fleet) {
	f.plane(t, "smi", "apply")
	f.owned(t, "istio", "smi")
	annotate := func(word string) {
		f.c.kubectl(t, "annotate", "namespace", "shop", "--overwrite", "fairlead.io/control-plane"+word)
	}
	swap := func(from, to string, args ...string) {
		out, said, code := f.fairlead(t, append([]string{"swap", "shop", "--baseline", "3s", "--watch", "6s", "--max-failures", "20", "-o", "json"}, args...)...)
		var got struct {
			From, To           string
			Written, TakenBack bool
			Before, After      *struct{ All, Failed int }
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || got.From != from || got.To != to || !got.Written || got.TakenBack {
			t.Errorf("fairlead swap shop %v: %d, %v: %+v\n%s\n%s", args, code, err, got, out, said)
			return
		}
		if got.Before == nil || got.Before.All == 0 || got.After == nil || got.After.All == 0 {
			t.Errorf("fairlead swap shop %v watched no requests: %s", args, out)
		}
	}
	storm := f.storm(t, nodes...)
	for _, step := range []func(){
		func() { swap("none", "smi", "--to", "smi"); f.owned(t, "smi", "istio") },
		func() { swap("smi", "none", "--back"); f.owned(t, "istio", "smi") },
		func() { annotate("=smi"); f.owned(t, "smi", "istio") },
		func() { annotate("=istio"); f.owned(t, "istio", "smi") },
		func() { annotate("-") },
		func() { f.plane(t, "istio", "delete"); f.owned(t, "smi", "") },
		func() { f.plane(t, "istio", "apply"); f.owned(t, "istio", "smi") },
		func() { f.plane(t, "smi", "delete"); f.owned(t, "istio", "") },
		func() { f.plane(t, "smi", "apply"); f.owned(t, "istio", "smi") },
	} {
		step()
		time.Sleep(3 * time.Second)
	}
	calm(t, storm)
	f.plane(t, "smi", "delete")
}

// A namespace gets an Envoy of its own, keeps it while proxies and agents are replaced, and
// shares the node's again, under load.
func ownProxy(t *testing.T, f *fleet) {
	storm := f.storm(t, nodes...)
	f.c.kubectl(t, "annotate", "namespace", "shop", "fairlead.io/proxy=own", "fairlead.io/proxy-memory=512Mi")
	f.hasOwn(t, true)
	f.rollout(t, "daemonset/fairlead-proxy")
	f.hasOwn(t, true)
	f.rollout(t, "daemonset/fairlead-agent")
	f.hasOwn(t, true)
	f.c.kubectl(t, "annotate", "namespace", "shop", "fairlead.io/proxy-", "fairlead.io/proxy-memory-")
	f.hasOwn(t, false)
	calm(t, storm)
}

// hasOwn waits until the shop has an Envoy of its own on all nodes that does all that it is to
// do, or none that it still asks for.
func (f *fleet) hasOwn(t *testing.T, want bool) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, 2*time.Minute, fmt.Sprintf("an Envoy of the shop's own on %s: %t", n, want), func() error {
			text, err := f.c.script(t.Context(), "enter.sh", n, f.binary(), "status", "-o", "json").Output()
			if err != nil {
				return err
			}
			var all []struct {
				Applied, Revision string
				Own               []struct {
					Namespace, Problem string
					Proxy              *struct{ Envoy struct{ Connected bool } }
				}
			}
			if err := json.Unmarshal(text, &all); err != nil || len(all) != 1 {
				return fmt.Errorf("%w: %s", err, text)
			}
			s := all[0]
			if s.Applied != s.Revision {
				return errors.New("it is not applied yet")
			}
			has := false
			for _, o := range s.Own {
				if o.Namespace != "shop" {
					continue
				}
				if o.Problem != "" || o.Proxy == nil || !o.Proxy.Envoy.Connected {
					return fmt.Errorf("it is not as it should be: %s", text)
				}
				has = true
			}
			if has != want {
				return fmt.Errorf("there are %+v", s.Own)
			}
			return nil
		})
	}
}

// The API server is away for a minute: everything goes on as it was, and says so. What is
// written afterwards holds.
func serverStopped(t *testing.T, f *fleet) {
	storm := f.storm(t, nodes...)
	f.c.run(t, "kill.sh", "kube-apiserver")
	begun := time.Now()
	back := false
	t.Cleanup(func() {
		if !back {
			f.upAgain(t)
		}
	})
	for _, n := range nodes {
		eventually(t, 50*time.Second, n+" says so", func() error {
			out, err := f.c.script(t.Context(), "enter.sh", n, f.binary(), "status").CombinedOutput()
			if text := string(out); err != nil || !strings.Contains(text, "API server    for ") || !strings.Contains(text, "what was read before stays in use") {
				return fmt.Errorf("%w: %s", err, text)
			}
			return nil
		})
	}
	t.Logf("both nodes say so after %s", time.Since(begun).Round(time.Second))
	time.Sleep(time.Until(begun.Add(time.Minute)))
	f.c.up(t)
	back = true
	t.Logf("it answers again after %s", time.Since(begun).Round(time.Second))
	for _, n := range nodes {
		f.settled(t, n)
	}
	at := time.Now()
	f.apply(t, shut)
	for _, n := range []string{"1", "2"} {
		f.expect(t, "shop/frontend-"+n, []string{"403"}, "-repeat", "20", "http://reviews/api/shut")
	}
	t.Logf("what was written then held after %s", time.Since(at).Round(time.Second))
	time.Sleep(30 * time.Second) // what comes in the wake of it
	calm(t, storm)
	f.c.kubectl(t, "delete", "-n", "shop", "authorizationpolicy", "shut")
}

// upAgain brings back what a test that has failed has killed.
func (f *fleet) upAgain(t *testing.T) {
	if out, err := f.c.script(context.Background(), "up.sh").CombinedOutput(); err != nil {
		t.Errorf("up.sh: %v\n%s", err, out)
	}
}

const shut = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shut, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/api/shut"]}}]}]
`
