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
