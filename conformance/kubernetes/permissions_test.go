// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// rule is one of a role.
type rule struct {
	APIGroups     []string `json:"apiGroups"`
	Resources     []string `json:"resources"`
	ResourceNames []string `json:"resourceNames,omitempty"`
	Verbs         []string `json:"verbs"`
}

// lack is what is taken from a role: a verb on a resource, or with "" all of them.
type lack struct{ group, resource, verb string }

func (l lack) String() string {
	if l.verb == "" {
		l.verb = "anything"
	}
	return strings.TrimSuffix(l.verb+" of "+l.resource+"."+l.group, ".")
}

// without are the rules less that.
func without(rules []rule, l lack) []rule {
	var out []rule
	for _, r := range rules {
		if !slices.Contains(r.APIGroups, l.group) || !slices.Contains(r.Resources, l.resource) {
			out = append(out, r)
			continue
		}
		others, verbs := r, r
		others.Resources = slices.DeleteFunc(slices.Clone(r.Resources), func(s string) bool { return s == l.resource })
		verbs.Resources = []string{l.resource}
		verbs.Verbs = slices.DeleteFunc(slices.Clone(r.Verbs), func(s string) bool { return l.verb == "" || s == l.verb })
		for _, r := range []rule{others, verbs} {
			if len(r.Resources) > 0 && len(r.Verbs) > 0 {
				out = append(out, r)
			}
		}
	}
	return out
}

// take takes from a role (clusterrole/NAME or role/NAME), and returns what gives it back.
func (f *fleet) take(t *testing.T, role string, l lack) func() {
	t.Helper()
	var all struct{ Rules []rule }
	if err := json.Unmarshal([]byte(f.c.kubectl(t, "get", "-n", namespace, role, "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	set := func(rules []rule) {
		patch, err := json.Marshal([]any{map[string]any{"op": "replace", "path": "/rules", "value": rules}})
		if err == nil {
			_, err = f.c.try(context.Background(), "", "patch", "-n", namespace, role, "--type", "json", "-p", string(patch))
		}
		if err != nil {
			t.Error(err)
		}
	}
	less := without(all.Rules, l)
	if len(less) == len(all.Rules) && fmt.Sprint(less) == fmt.Sprint(all.Rules) {
		t.Fatalf("%s has no %s", role, l)
	}
	set(less)
	return func() { set(all.Rules) }
}

// accounts are the parts of deploy/fairlead.yaml by which its programs may ask the API server.
var accounts = regexp.MustCompile(`(?m)^kind: (Namespace|ServiceAccount|ClusterRole|ClusterRoleBinding|Role|RoleBinding)$`)

// permitted gives the cluster the accounts and roles of an installation without its programs.
func (f *fleet) permitted(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		if accounts.MatchString(doc) {
			out = append(out, doc)
		}
	}
	manifest := strings.Join(out, "\n---\n")
	f.apply(t, manifest)
	t.Cleanup(func() { _, _ = f.c.try(context.Background(), manifest, "delete", "--wait=false", "-f", "-") })
}

// as is a kubeconfig of a service account of the installation.
func (f *fleet) as(t *testing.T, account string) string {
	t.Helper()
	file := filepath.Join(f.c.folder(), account+".kubeconfig")
	if err := os.WriteFile(file, []byte(f.c.kubectl(t, "config", "view", "--raw", "--flatten")), 0o600); err != nil {
		t.Fatal(err)
	}
	user := f.c.kubectl(t, "config", "view", "-o", "jsonpath={.contexts[0].context.user}")
	f.c.kubectl(t, "config", "unset", "users."+user, "--kubeconfig", file)
	f.c.kubectl(t, "config", "set-credentials", user, "--token", f.c.kubectl(t, "create", "token", "-n", namespace, account, "--duration=2h"), "--kubeconfig", file)
	return file
}

// log is what an agent has logged since some length of it.
func (f *fleet) log(t *testing.T, node string, since int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(f.c.folder(), "logs/fairlead-agent-"+node+".log"))
	if err != nil && since > 0 {
		t.Fatal(err)
	}
	return string(text[min(since, len(text)):])
}

// agentsOwner is a DaemonSet in the agents' place, which they follow.
const agentsOwner = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: fairlead-agent, namespace: fairlead-system}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: pause, image: "fairlead.local/pause:1", imagePullPolicy: Never}]}
`

// Each thing that an agent may ask of the API server, taken from it: it says which it lacks,
// goes on with what the node has, lets nobody in who may not, and takes up its work when it
// is given back. A permission without which nothing is missed would be one too many. One is
// not missed here: to list, which this API server does by watching; older ones do not.
func TestAgentPermissions(t *testing.T) {
	f := &fleet{c: main}
	f.c.up(t)
	f.build(t)
	f.permitted(t)
	f.c.kubectl(t, "apply", "-f", "testdata/istio-crds.yaml", "-f", "../../deploy/crds")
	t.Cleanup(func() {
		_, _ = f.c.try(context.Background(), "", "delete", "--ignore-not-found", "-f", "testdata/istio-crds.yaml", "-f", "../../deploy/crds", "--wait=false")
	})
	f.c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
	f.deploy(t)
	f.kubeconfig = f.as(t, "fairlead-agent")
	f.c.kubectl(t, "config", "set-cluster", f.c.kubectl(t, "config", "view", "-o", "jsonpath={.clusters[0].name}"), "--server", "https://10.240.0.254:6443", "--kubeconfig", f.kubeconfig)
	f.apply(t, agentsOwner)
	for _, n := range nodes {
		f.start(t, n)
	}
	f.expect(t, "mesh/client-1", []string{"guarded-1", "guarded-2"}, "-repeat", "20", "http://guarded/open")
	loads := map[string]*sending{
		"allowed":   f.send(t, "mesh/client-2", "-rate", "20", "-fresh", "0.3", "-url", "http://guarded/open"),
		"forbidden": f.send(t, "mesh/other-2", "-rate", "20", "-fresh", "0.3", "-forbid", "-url", "http://guarded/open", "-url", "http://api.targets/"),
	}

	read := func(kind string) []string {
		return []string{kind + ": may not be read (403); allow list and watch of it by a ClusterRole"}
	}
	guard := func(kind string) []string { return []string{read(kind)[0] + "; until then nothing new is applied"} }
	lease := []string{"is not renewed, for ", "the Lease fairlead-system/node-1 may not be written (403): allow get, create and update of leases in that namespace by a Role"}
	owner := []string{"cannot follow who runs this: it will be asked for at the end", "allow get, list and watch of it by a Role"}
	const cluster, local = "clusterrole/fairlead-agent", "role/fairlead-agent"
	for _, one := range []struct {
		role string
		lack
		want []string
	}{
		{cluster, lack{"", "namespaces", ""}, guard("Namespace")},
		{cluster, lack{"", "nodes", ""}, guard("Node")},
		{cluster, lack{"", "pods", ""}, guard("Pod")},
		{cluster, lack{"", "services", ""}, guard("Service")},
		{cluster, lack{"", "services", "watch"}, read("Service")},
		{cluster, lack{"", "nodes", "get"}, []string{"cannot see whether this node is one of those that are chosen", "allow get of nodes by a ClusterRole"}},
		{cluster, lack{"", "configmaps", ""}, guard("ConfigMap")},
		{cluster, lack{"discovery.k8s.io", "endpointslices", ""}, guard("EndpointSlice.discovery.k8s.io")},
		{cluster, lack{"apiextensions.k8s.io", "customresourcedefinitions", ""}, []string{"CustomResourceDefinition: may not be read (403); allow list and watch of them by a ClusterRole; until then kinds that come or go are seen within 30s"}},
		{cluster, lack{"networking.istio.io", "virtualservices", ""}, read("VirtualService.networking.istio.io")},
		{cluster, lack{"networking.istio.io", "destinationrules", ""}, read("DestinationRule.networking.istio.io")},
		{cluster, lack{"security.istio.io", "authorizationpolicies", ""}, guard("AuthorizationPolicy.security.istio.io")},
		// It has them, and would not hear of another: what it has checked may not count.
		{cluster, lack{"security.istio.io", "authorizationpolicies", "watch"}, append(read("AuthorizationPolicy.security.istio.io"), "is not renewed, for ")},
		{cluster, lack{"access.smi-spec.io", "traffictargets", ""}, guard("TrafficTarget.access.smi-spec.io")},
		{cluster, lack{"specs.smi-spec.io", "httproutegroups", ""}, read("HTTPRouteGroup.specs.smi-spec.io")},
		{cluster, lack{"specs.smi-spec.io", "tcproutes", ""}, read("TCPRoute.specs.smi-spec.io")},
		{cluster, lack{"specs.smi-spec.io", "udproutes", ""}, read("UDPRoute.specs.smi-spec.io")},
		{cluster, lack{"split.smi-spec.io", "trafficsplits", ""}, read("TrafficSplit.split.smi-spec.io")},
		{local, lack{"coordination.k8s.io", "leases", "get"}, lease},
		{local, lack{"coordination.k8s.io", "leases", "create"}, lease},
		{local, lack{"coordination.k8s.io", "leases", "update"}, lease},
		{local, lack{"coordination.k8s.io", "leases", "watch"}, []string{"Lease.coordination.k8s.io: may not be read (403)"}},
		{local, lack{"apps", "daemonsets", "get"}, []string{"cannot see whether this node is one of those that are chosen", "of this DaemonSet by a Role"}},
		{local, lack{"apps", "daemonsets", "list"}, owner},
		{local, lack{"apps", "daemonsets", "watch"}, owner},
	} {
		t.Run(one.lack.String(), func(t *testing.T) {
			if one.resource == "leases" && one.verb == "create" { // where there is one, it is not missed
				f.end(t, "node-1", "agent")
				f.c.kubectl(t, "delete", "lease", "-n", namespace, "node-1")
			}
			giveBack := sync.OnceFunc(f.take(t, one.role, one.lack))
			defer giveBack()
			f.end(t, "node-1", "agent")
			since := len(f.log(t, "node-1", 0))
			f.launch(t, "node-1", "agent", "--kubeconfig", f.kubeconfig, "--node", "node-1", "--uplink", "eth0", "--daemonset", namespace+"/fairlead-agent")
			said := func() string {
				out, _ := f.c.script(t.Context(), "enter.sh", "node-1", f.binary(), "status").CombinedOutput()
				return string(out) + f.log(t, "node-1", since)
			}
			eventually(t, 30*time.Second, "what is lacking is told", func() error {
				text := said()
				for _, w := range one.want {
					if !strings.Contains(text, w) {
						return fmt.Errorf("no %q in %s", w, text)
					}
				}
				return nil
			})
			f.expect(t, "mesh/client-1", []string{"guarded-1", "guarded-2"}, "-repeat", "10", "http://guarded/open")
			f.expect(t, "mesh/other-1", []string{"403"}, "-repeat", "5", "http://guarded/open")
			begun := time.Now()
			giveBack()
			eventually(t, 2*time.Minute, "all is well again", func() error {
				s, err := f.status("node-1")
				if err == nil && (s.Applied != s.Revision || s.Problem != "" || len(s.APIServer.Problems) > 0 || s.Lease.Silent != "") {
					err = fmt.Errorf("%+v", s)
				}
				return err
			})
			t.Logf("well %s after it was given back", time.Since(begun).Round(100*time.Millisecond))
		})
	}
	for what, l := range loads {
		l.noneFailed(t, what)
	}
	for _, n := range nodes {
		f.uninstall(t, n)
	}
}

// build builds what runs on the nodes.
func (f *fleet) build(t *testing.T) {
	t.Helper()
	f.cgroup = strings.TrimSpace(f.on(t, "node-1", "sh", "-c", `grep -m1 ' /sys/.* cgroup2 ' /proc/mounts | cut -d' ' -f2`))
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-o", filepath.Join(f.c.folder(), "build")+"/", "./cmd/fairlead", "./hack/attached")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
}

// told is what a process says, read while it does.
type told struct {
	mu  sync.Mutex
	out strings.Builder
}

// Write implements io.Writer.
func (s *told) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

func (s *told) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// operatorObjects are a VirtualService, which gets a status, and a TrafficSplit that means
// nothing, of which there is an Event.
const operatorObjects = `apiVersion: v1
kind: Namespace
metadata: {name: told, annotations: {fairlead.io/control-plane: smi}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: told}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: told}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
`

const ownBackend = `apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: self, namespace: told}
spec: {service: web, backends: [{service: web, weight: 1}]}
`

// Each thing that an operator may ask, but for what agents ask, too, taken from it: it says
// which it lacks, and does what it could not when it is given back.
func TestOperatorPermissions(t *testing.T) {
	f := &fleet{c: main}
	f.c.up(t)
	f.build(t)
	f.permitted(t)
	f.c.kubectl(t, "apply", "-f", "testdata/istio-crds.yaml")
	f.c.kubectl(t, "delete", "--ignore-not-found", "-f", "../../deploy/crds")
	t.Cleanup(func() {
		_, _ = f.c.try(context.Background(), "", "delete", "namespace", "told", "--wait=false")
		_, _ = f.c.try(context.Background(), "", "delete", "--ignore-not-found", "-f", "testdata/istio-crds.yaml", "-f", "../../deploy/crds", "--wait=false")
	})
	f.c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
	eventually(t, time.Minute, "objects", func() error { return f.write("", operatorObjects) })
	kubeconfig := f.as(t, "fairlead-operator")
	run := func(t *testing.T, out *told, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), f.binary(), append(append([]string{"operator"}, args...), "--kubeconfig", kubeconfig, "--namespace", namespace)...)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	has := func(what string, args ...string) func() error {
		return func() error {
			out, err := f.c.try(t.Context(), "", args...)
			if err == nil && !strings.Contains(out, what) {
				err = fmt.Errorf("no %q in %s", what, out)
			}
			return err
		}
	}
	split := func(t *testing.T) {
		eventually(t, time.Minute, "a TrafficSplit", func() error { return f.write("", ownBackend) })
	}
	events := []string{"get", "events.events.k8s.io", "-n", "told", "-o", "jsonpath={range .items[*]}{.reason} {.regarding.name} {end}."}
	const cluster, local = "clusterrole/fairlead-operator", "role/fairlead-operator"
	const lease = "allow get, create and update of leases.coordination.k8s.io in namespace fairlead-system by a Role"
	held := has("_", "get", "lease", "-n", namespace, "fairlead-operator", "-o", "jsonpath={.spec.holderIdentity}")
	for _, one := range []struct {
		role string
		lack
		before func(t *testing.T)
		want   string
		after  func() error
	}{
		{local, lack{"coordination.k8s.io", "leases", "create"}, nil, lease, held},
		{local, lack{"coordination.k8s.io", "leases", "get"}, nil, lease, held},
		{local, lack{"coordination.k8s.io", "leases", "update"}, nil, lease, held},
		{cluster, lack{"coordination.k8s.io", "leases", "list"}, nil, "allow list of leases.coordination.k8s.io by a ClusterRole", held},
		{cluster, lack{"apiextensions.k8s.io", "customresourcedefinitions", "create"}, func(t *testing.T) {
			f.c.kubectl(t, "delete", "crd", "trafficsplits.split.smi-spec.io", "--ignore-not-found")
		}, "allow get, create and update of customresourcedefinitions by a ClusterRole",
			has("trafficsplits", "get", "crd", "-o", "name")},
		{cluster, lack{"apiextensions.k8s.io", "customresourcedefinitions", "get"}, func(t *testing.T) {
			f.c.kubectl(t, "delete", "crd", "udproutes.specs.smi-spec.io")
		}, "allow get, create and update of customresourcedefinitions by a ClusterRole", has("udproutes", "get", "crd", "-o", "name")},
		{cluster, lack{"apiextensions.k8s.io", "customresourcedefinitions", "update"}, func(t *testing.T) {
			f.c.kubectl(t, "annotate", "crd", "udproutes.specs.smi-spec.io", "fairlead.io/installed-definition=other", "--overwrite")
		}, "allow get, create and update of customresourcedefinitions by a ClusterRole", nil},
		{cluster, lack{"networking.istio.io", "virtualservices/status", "patch"}, func(t *testing.T) { // without the status that it has
			f.c.kubectl(t, "delete", "virtualservice", "-n", "told", "web")
			f.apply(t, operatorObjects)
		}, "allow patch of the status subresource by a ClusterRole",
			has("Accepted", "get", "virtualservice", "-n", "told", "web", "-o", "jsonpath={.status}")},
		{cluster, lack{"events.k8s.io", "events", "create"}, split, "allow create of events.events.k8s.io by a ClusterRole", has("self", events...)},
		{cluster, lack{"events.k8s.io", "events", "watch"}, nil, "allow list and watch of events.events.k8s.io by a ClusterRole", nil},
		{cluster, lack{"events.k8s.io", "events", "delete"}, func(t *testing.T) {
			f.c.kubectl(t, "delete", "trafficsplit", "-n", "told", "self")
		}, "allow delete of events.events.k8s.io by a ClusterRole", func() error {
			out, err := f.c.try(t.Context(), "", events...)
			if err == nil && strings.Contains(out, "OwnBackend self") {
				err = fmt.Errorf("there is still %s", out)
			}
			return err
		}},
	} {
		t.Run(one.lack.String(), func(t *testing.T) {
			giveBack := sync.OnceFunc(f.take(t, one.role, one.lack))
			defer giveBack()
			if one.before != nil {
				one.before(t)
			}
			out := &told{}
			cmd := run(t, out)
			defer func() {
				_ = cmd.Process.Signal(os.Interrupt)
				_ = cmd.Wait()
			}()
			eventually(t, 30*time.Second, "what is lacking is told", func() error {
				if text := out.String(); !strings.Contains(text, one.want) {
					return fmt.Errorf("no %q in %s", one.want, text)
				}
				return nil
			})
			begun := time.Now()
			giveBack()
			if one.after != nil {
				eventually(t, 2*time.Minute, "all is well again", one.after)
				t.Logf("well %s after it was given back", time.Since(begun).Round(100*time.Millisecond))
			}
		})
	}
	for _, one := range []struct {
		role string
		lack
		want string
	}{
		{local, lack{"coordination.k8s.io", "leases", "patch"}, "patch and delete of leases in namespace fairlead-system"},
		{local, lack{"coordination.k8s.io", "leases", "delete"}, "patch and delete of leases in namespace fairlead-system"},
		{cluster, lack{"events.k8s.io", "events", "list"}, "allow list of events.events.k8s.io by a ClusterRole"},
	} {
		t.Run(one.lack.String()+", to clean up", func(t *testing.T) {
			leader := run(t, &told{})
			defer func() {
				_ = leader.Process.Signal(os.Interrupt)
				_ = leader.Wait()
			}()
			eventually(t, time.Minute, "a leader", held)
			giveBack := sync.OnceFunc(f.take(t, one.role, one.lack))
			defer giveBack()
			out := &told{}
			if err := run(t, out, "cleanup").Wait(); err == nil || !strings.Contains(out.String(), one.want) {
				t.Errorf("%v: %s", err, out)
			}
			giveBack()
			again := &told{}
			if err := run(t, again, "cleanup").Wait(); err != nil {
				t.Errorf("%v: %s", err, again)
			}
		})
	}
}
