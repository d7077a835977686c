// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/deploy"
	"fairlead.io/fairlead/kube/kubetest"
)

// access is what somebody may ask of an API server, and what was asked.
type access struct {
	rules []rbacv1.PolicyRule

	mu      sync.Mutex
	refused []string
	used    map[string]bool
}

// rolesIn are the rules of the roles of a text, by kind and name.
func rolesIn(t *testing.T, text string) map[string][]rbacv1.PolicyRule {
	t.Helper()
	out := map[string][]rbacv1.PolicyRule{}
	for doc := range strings.SplitSeq(text, "---\n") {
		var r rbacv1.ClusterRole // a Role is no different
		if err := yaml.Unmarshal([]byte(doc), &r); err != nil {
			t.Fatalf("%v: %s", err, doc)
		}
		if r.Kind == "ClusterRole" || r.Kind == "Role" {
			out[r.Kind+" "+r.Name] = r.Rules
		}
	}
	return out
}

var objectPath = regexp.MustCompile(`^/(?:api|apis/([^/]+))/[^/]+/(?:namespaces/([^/]+)/)?([a-z]+)(?:/([^/]+)(?:/([a-z]+))?)?$`)

// decide is what an API server says of a request: 403, or nothing against it. What is found in
// no namespace, as discovery, is everybody's.
func (a *access) decide(r *http.Request) (code int, hang bool) {
	m := objectPath.FindStringSubmatch(r.URL.Path)
	if m == nil {
		return 0, false
	}
	group, resource, name := m[1], m[3], m[4]
	if m[5] != "" {
		resource += "/" + m[5]
	}
	q := r.URL.Query()
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPatch: "patch", http.MethodPut: "update", http.MethodDelete: "delete"}[r.Method]
	if verb == "get" && name == "" {
		verb = "list"
		if q.Get("watch") != "" {
			verb = "watch"
		}
		for part := range strings.SplitSeq(q.Get("fieldSelector"), ",") {
			if n, ok := strings.CutPrefix(part, "metadata.name="); ok {
				name = n
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, rule := range a.rules {
		if slices.Contains(rule.APIGroups, group) && slices.Contains(rule.Resources, resource) && slices.Contains(rule.Verbs, verb) &&
			(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, name)) {
			a.used[fmt.Sprint(i, verb)] = true
			if m[5] == "exec" {
				return http.StatusServiceUnavailable, false // there is no kubelet
			}
			return 0, false
		}
	}
	a.refused = append(a.refused, verb+" "+resource+"."+group+" "+name)
	return http.StatusForbidden, false
}

// What deploy/README.md has people be given is what the commands ask for: with less something
// is missing, and there is nothing that they do not use.
func TestDocumentedRolesSuffice(t *testing.T) {
	text, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]rbacv1.PolicyRule{}
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		for name, rules := range rolesIn(t, string(m[1])) {
			documented[name] = rules
		}
	}
	agent := rolesIn(t, string(bytes.TrimPrefix(deploy.Manifests, []byte("---\n"))))["ClusterRole fairlead-agent"]
	observe := slices.Concat(documented["ClusterRole fairlead-observe"], documented["Role fairlead-observe"])
	check, swap := documented["ClusterRole fairlead-check"], documented["ClusterRole fairlead-swap"]
	if len(documented) != 4 || len(agent) == 0 || len(observe) == 0 || len(check) == 0 || len(swap) == 0 {
		t.Fatalf("roles are not where they are expected: %v", documented)
	}
	read := slices.Concat(agent, observe)
	for what, c := range map[string]struct {
		of, with []rbacv1.PolicyRule // of: each of them is used
		args     [][]string
	}{
		"observe": {observe, nil, [][]string{{"status"}, {"observe", "--last", "1"}, {"explain", "shop/web:80", "--live"}}},
		"read":    {check, read, [][]string{{"check"}, {"explain", "shop/web:80"}, {"translate"}, {"diff", "--from", "istio", "--to", "gateway"}}},
		"swap":    {swap, slices.Concat(check, read), [][]string{{"swap", "shop", "--to", "gateway", "--watch", "0", "--allow-widening"}}},
	} {
		t.Run(what, func(t *testing.T) {
			s := kubetest.New(t)
			s.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
			s.Add(&kubetest.Resource{Group: "apps", Versions: []string{"v1"}, Kind: "DaemonSet", Plural: "daemonsets"})
			s.Apply(cluster1)
			s.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: agent-x, namespace: fairlead-system, labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: agent}}\n" +
				"spec: {nodeName: n1, containers: [{name: agent}]}\nstatus: {phase: Running, containerStatuses: [{name: agent, state: {running: {}}}]}\n")
			a := &access{rules: slices.Concat(c.of, c.with), used: map[string]bool{}}
			s.Interrupt(a.decide)
			path := kubeconfig(t, s.TCP())
			for _, args := range c.args {
				r := fairlead(t, "", append(args, "--kubeconfig", path)...)
				if len(a.refused) > 0 {
					t.Errorf("%v: refused %v: %s%s", args, a.refused, r.out, r.err)
					a.refused = nil
				}
				if r.code == exitUsage || what == "swap" && r.code != 0 {
					t.Errorf("%v: exit %d: %s%s", args, r.code, r.out, r.err)
				}
			}
			if what == "observe" { // status, where agents answer, and where none is there
				if _, err := (&target{server: &server{kubeconfig: path, usual: true}, chosen: func() bool { return false }}).operators(t.Context()); err != nil {
					t.Error(err)
				}
				s.Remove("", "pods", "fairlead-system/agent-x")
				fairlead(t, "", "status", "--kubeconfig", path)
			}
			for i, rule := range c.of {
				for _, verb := range rule.Verbs {
					if !a.used[fmt.Sprint(i, verb)] {
						t.Errorf("nobody has asked to %s %v", verb, rule.Resources)
					}
				}
			}
		})
	}
}
