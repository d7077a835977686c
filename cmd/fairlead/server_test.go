// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.io/fairlead/kube/kubetest"
)

// kubeconfig names a server in a file.
func kubeconfig(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n" +
		"clusters: [{name: a, cluster: {server: \"" + url + "\"}}]\nusers: [{name: a, user: {}}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const cluster1 = `apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: n1, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{timeout: 5s, route: [{destination: {host: web}}]}]
`

func TestReadACluster(t *testing.T) {
	s := kubetest.New(t)
	s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
	s.Apply(cluster1)
	path := kubeconfig(t, s.TCP())
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"translate", "--kubeconfig", path}, 0, []string{"VirtualService  shop/web     translated  -", "5 objects: 5 translated"}},
		{[]string{"explain", "shop/web:80", "--kubeconfig", path}, 0, []string{"VirtualService shop/web spec.http[0]"}},
		{[]string{"plan", "--node", "n1", "--kubeconfig", path}, 0, []string{"plan/routetable"}},
		{[]string{"diff", "--from", "istio", "--to", "gateway", "--kubeconfig", path}, 1, []string{"shop/web:80", "timeout: 5s"}},
	} {
		r := fairlead(t, "", c.args...)
		for _, w := range c.want {
			if r.code != c.code || !strings.Contains(r.out, w) {
				t.Errorf("%v: exit %d, want %q in\n%s%s", c.args, r.code, w, r.out, r.err)
			}
		}
	}
	if r := fairlead(t, "", "translate", "--kubeconfig", path, "-f", "."); r.code != exitUsage || !strings.Contains(r.err, "not both") {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	if r := fairlead(t, "", "translate", "--kubeconfig", path, "--context", "b"); r.code != exitFailed || !strings.Contains(r.err, `context "b" does not exist`) {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	gone := kubeconfig(t, "http://127.0.0.1:1")
	if r := fairlead(t, "", "translate", "--kubeconfig", gone); r.code != exitFailed || !strings.Contains(r.err, "read the objects of http://127.0.0.1:1: the API server does not answer: dial 127.0.0.1:1: connect: connection refused") {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
}

// What kubectl apply would change of a cluster, told before it is done.
func TestDiffWithACluster(t *testing.T) {
	s := kubetest.New(t)
	s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
	s.Apply(cluster1)
	path := kubeconfig(t, s.TCP())
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	for _, c := range []struct {
		what, text string
		args       []string
		want       []string
		code       int
	}{
		{"the same, and a service without what the cluster adds", `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{timeout: 5s, route: [{destination: {host: web}}]}]
`, nil, []string{"Nothing would change"}, 0},
		{"another timeout", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{timeout: 7s, route: [{destination: {host: web}}]}]
`, nil, []string{"shop/web:80", "timeout: 5s -> 7s", "+ " + file + ":"}, 1},
		{"a newer one beside it does not count", `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: another, namespace: shop}
spec:
  hosts: [web]
  http: [{timeout: 9s, route: [{destination: {host: web}}]}]
`, nil, []string{"Nothing would change"}, 0},
		{"without what the files lack", `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
`, []string{"--prune"}, []string{"timeout: 5s -> none"}, 1},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := fairlead(t, "", append([]string{"diff", "--kubeconfig", path, file}, c.args...)...)
		for _, w := range c.want {
			if !strings.Contains(r.out, w) || r.code != c.code {
				t.Errorf("%s: ended with %d\n%s%s", c.what, r.code, r.out, r.err)
			}
		}
	}
}

// Without a flag the cluster is the one that kubectl would speak to, for whatever command
// means a cluster.
func TestUsualKubeconfig(t *testing.T) {
	s := kubetest.New(t)
	s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
	s.Add(&kubetest.Resource{Group: "apps", Kind: "DaemonSet", Plural: "daemonsets", Versions: []string{"v1"}})
	s.Apply(cluster1)
	file := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := s.TCP()
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"check":                           {0, "shop"},
		"preflight":                       {0, "nodes"},
		"diff " + file:                    {0, "Nothing would change"},
		"diff --from istio --to gateway":  {1, "timeout: 5s"},
		"swap shop --to istio --dry-run":  {0, "in the cluster that kubectl speaks to: " + at},
		"translate --context a":           {0, "VirtualService"},
		"explain shop/web:80 --context a": {0, "VirtualService shop/web"},
	} {
		t.Setenv("KUBECONFIG", kubeconfig(t, at))
		if r := fairlead(t, "", strings.Fields(args)...); r.code != want.code || !strings.Contains(r.out+r.err, want.says) {
			t.Errorf("fairlead %s: ended with %d, want %d and %q\n%s%s", args, r.code, want.code, want.says, r.out, r.err)
		}
		if strings.Contains(args, "--context") {
			continue
		}
		t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
		if r := fairlead(t, "", strings.Fields(args)...); r.code == 0 || !strings.Contains(r.err, "name a kubeconfig by --kubeconfig") {
			t.Errorf("fairlead %s without a kubeconfig: ended with %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
}

// What a namespace's file lacks since it was applied last is taken away by applying it.
func TestDiffOfANamespacesMarks(t *testing.T) {
	const deny = "fairlead.io/default-deny: istio"
	for what, c := range map[string]struct {
		annotations, file, want string
		code                    int
	}{
		"applied, and taken out": {deny + `, kubectl.kubernetes.io/last-applied-configuration: '{"metadata": {"annotations": {"fairlead.io/default-deny": "istio"}}}'`, "{}", "WIDENED", 1},
		"applied, and kept":      {deny + `, kubectl.kubernetes.io/last-applied-configuration: '{"metadata": {"annotations": {"fairlead.io/default-deny": "istio"}}}'`, "{" + deny + "}", "Nothing would change", 0},
		"another's":              {deny + `, kubectl.kubernetes.io/last-applied-configuration: '{"metadata": {"annotations": {}}}'`, "{}", "Nothing would change", 0},
		"put in":                 {"", "{" + deny + "}", "NARROWED", 1},
	} {
		t.Run(what, func(t *testing.T) {
			s := kubetest.New(t)
			s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
			s.Apply(cluster1 + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}, annotations: {" + c.annotations + "}}\n")
			file := filepath.Join(t.TempDir(), "ns.yaml")
			if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: "+c.file+"}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := fairlead(t, "", "diff", "--kubeconfig", kubeconfig(t, s.TCP()), file)
			if r.code != c.code || !strings.Contains(r.out, c.want) {
				t.Errorf("ended with %d, want %d and %q\n%s%s", r.code, c.code, c.want, r.out, r.err)
			}
		})
	}
}

func TestCheckACluster(t *testing.T) {
	s := kubetest.New(t)
	s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
	s.Define("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", "v1")
	s.Apply(cluster1 + `---
apiVersion: v1
kind: Pod
metadata: {name: old, namespace: shop, labels: {sidecar.istio.io/inject: "false"}}
spec: {nodeName: n1, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {}
---
apiVersion: v1
kind: Namespace
metadata: {name: open}
---
apiVersion: v1
kind: Pod
metadata: {name: free, namespace: open}
spec: {nodeName: n1, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.0.3, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: some, namespace: open, labels: {app: some}}
spec: {nodeName: n1, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.0.4, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-shop, namespace: open}
spec: {action: DENY, selector: {matchLabels: {app: some}}, rules: [{from: [{source: {namespaces: [shop]}}]}]}
`)
	path := kubeconfig(t, s.TCP())
	r := fairlead(t, "", "check", "--kubeconfig", path, "--all")
	for _, w := range []string{
		"shop       istio  2     1         2        1",
		"open       -      2     0         1        0", "open/free    n1    nobody: everything may come in", "open/some    n1    AuthorizationPolicy open/not-shop",
		"captured      1     the namespace's mark says so", "not captured  1     the pod's mark says so",
		"shop/old     n1    AuthorizationPolicy shop/closed",
		"shop/web:80  istio", "timeout: none -> 5s", "NARROWED shop/client, shop/old",
	} {
		if !strings.Contains(r.out, w) {
			t.Errorf("lacks %q:\n%s%s", w, r.out, r.err)
		}
	}
	if r := fairlead(t, "", "check", "--kubeconfig", path, "-n", "nowhere"); r.code != exitUsage || !strings.Contains(r.err, `no namespace "nowhere"`) {
		t.Errorf("ended with %d: %s", r.code, r.err)
	}
	if r := fairlead(t, "", "check", "--kubeconfig", path, "-o", "json"); strings.Contains(r.out+r.err, "definitions") {
		t.Errorf("of definitions that are not there: %s%s", r.out, r.err)
	}
	s.Define("specs.smi-spec.io", "UDPRoute", "udproutes", "v1alpha4")
	s.Apply(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: udproutes.specs.smi-spec.io}
spec: {group: specs.smi-spec.io, versions: [{name: v1alpha4, served: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object}}}}}]}`)
	const drops = "udproutes.specs.smi-spec.io: of objects written or read as v1alpha4 it drops spec.matches; what these fields restrict"
	if r := fairlead(t, "", "check", "--kubeconfig", path); !strings.Contains(r.out, drops) || !strings.Contains(r.out, "kubectl apply -f deploy/crds") {
		t.Errorf("of another's definition: %s%s", r.out, r.err)
	}
	if r := fairlead(t, "", "preflight", "--kubeconfig", path); !strings.Contains(r.out, strings.Replace(drops, ":", ", of another:", 1)) || !strings.Contains(r.out, "kubectl apply -f deploy/crds") {
		t.Errorf("of another's definition: %s%s", r.out, r.err)
	}
	t.Setenv("KUBECONFIG", path)
	if r := fairlead(t, "", "check", "-o", "json"); !strings.Contains(r.out, `"captured": 1`) {
		t.Errorf("as kubectl has it: %s%s", r.out, r.err)
	}
}

// What is judged is judged by what the agents were told, unless a flag says otherwise.
func TestSettingsAreTheInstallations(t *testing.T) {
	s := kubetest.New(t)
	s.Add(&kubetest.Resource{Group: "apps", Kind: "DaemonSet", Plural: "daemonsets", Versions: []string{"v1"}})
	s.Define("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", "v1")
	s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
	s.Apply(cluster1 + `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: mine, namespace: shop}
spec: {rules: [{from: [{source: {principals: [example.org/ns/shop/sa/default]}}]}]}
`)
	path := kubeconfig(t, s.TCP())
	const without = "nothing is installed in this cluster"
	for _, args := range [][]string{{"check"}, {"swap", "shop", "--to", "gateway", "--dry-run"}, {"diff", "--from", "istio", "--to", "gateway"}} {
		if r := fairlead(t, "", append(args, "--kubeconfig", path)...); !strings.Contains(r.err, without) {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	s.Apply(`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: fairlead-agent, namespace: mesh, labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: agent}}
spec: {template: {spec: {containers: [{name: agent, args: [agent, --node=$(NODE_NAME), --in-cluster, --trust-domain=example.org, --default-mode=observe, --linkerd-cluster-networks=10.0.0.0/8]}]}}}
`)
	const with = "the installation in namespace mesh: --default-mode=observe --linkerd-cluster-networks=10.0.0.0/8 --trust-domain=example.org\n"
	for _, args := range [][]string{{"check"}, {"swap", "shop", "--to", "gateway", "--dry-run"}, {"diff", "--from", "istio", "--to", "gateway"}} {
		if r := fairlead(t, "", append(args, "--kubeconfig", path)...); !strings.Contains(r.err, with) || strings.Count(r.err, "judged by") != 1 {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	r := fairlead(t, "", "check", "--kubeconfig", path, "-o", "json")
	if !strings.Contains(r.out, `"installation": "mesh"`) || !strings.Contains(r.out, `"trust-domain": "example.org"`) {
		t.Errorf("%s%s", r.out, r.err)
	}
	// The settings are used, not only told: what is observed has no effect, and pods of
	// this cluster have the identities that the policy means.
	r = fairlead(t, "", "explain", "shop/client", "--kubeconfig", path)
	if !strings.Contains(r.out, "spiffe://example.org/ns/shop/sa/default") {
		t.Errorf("%s%s", r.out, r.err)
	}
	r = fairlead(t, "", "explain", "shop/client", "--kubeconfig", path, "--trust-domain", "cluster.local", "--default-mode", "observe")
	if !strings.Contains(r.out, "spiffe://cluster.local/ns/shop/sa/default") || !strings.Contains(r.err, "warning: not as the installation has it: --trust-domain=cluster.local (there: example.org)") {
		t.Errorf("%s%s", r.out, r.err)
	}
	r = fairlead(t, "", "check", "--kubeconfig", path, "--default-mode", "enforce")
	if !strings.Contains(r.err, "--default-mode=enforce (there: observe)") {
		t.Errorf("%s%s", r.out, r.err)
	}
}
