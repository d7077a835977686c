// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// table is one of README.md: the cells of its rows, below a head that begins with some words.
func table(t *testing.T, head string) [][]string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n| "+head)
	if !ok {
		t.Fatalf("README.md has no table %q", head)
	}
	var out [][]string
	for line := range strings.Lines(rest) {
		line, ok = strings.CutPrefix(strings.TrimSpace(line), "| ")
		if ok {
			out = append(out, strings.Split(strings.TrimSuffix(line, " |"), " | "))
		} else if len(out) > 0 {
			return out
		}
	}
	return out
}

// documented are the privileges in the first column of a table.
func documented(t *testing.T, component string) []string {
	var out []string
	for _, row := range table(t, component+" | why |") {
		names, mode := row[0], ""
		for _, m := range []string{", read only", ", read and write"} {
			if rest, ok := strings.CutSuffix(names, m); ok {
				names, mode = rest, m
			}
		}
		for name := range strings.SplitSeq(names, ", ") {
			out = append(out, strings.Trim(name, "`")+mode)
		}
	}
	slices.Sort(out)
	return out
}

// rendered are the privileges of a DaemonSet's pods.
func rendered(t *testing.T, component string) []string {
	for text := range strings.SplitSeq(string(Manifests), "\n---\n") {
		var ds appsv1.DaemonSet
		if err := yaml.Unmarshal([]byte(text), &ds); err != nil || ds.Kind != "DaemonSet" || ds.Name != "fairlead-"+component {
			continue
		}
		var out []string
		pod := ds.Spec.Template.Spec
		for name, has := range map[string]bool{
			"hostPID": pod.HostPID, "hostNetwork": pod.HostNetwork, "hostIPC": pod.HostIPC,
			"AppArmor unconfined":       pod.SecurityContext.AppArmorProfile != nil && pod.SecurityContext.AppArmorProfile.Type == corev1.AppArmorProfileTypeUnconfined,
			"no seccomp of the runtime": pod.SecurityContext.SeccompProfile == nil || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault,
			"a second container":        len(pod.Containers)+len(pod.InitContainers) != 1,
		} {
			if has {
				out = append(out, name)
			}
		}
		c := pod.Containers[0]
		for _, cap := range c.SecurityContext.Capabilities.Add {
			out = append(out, string(cap))
		}
		if !slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			out = append(out, "capabilities of the runtime")
		}
		if p := c.SecurityContext.Privileged; p != nil && *p {
			out = append(out, "privileged")
		}
		if p := c.SecurityContext.ReadOnlyRootFilesystem; p == nil || !*p {
			out = append(out, "its root file system")
		}
		for _, v := range pod.Volumes {
			if v.HostPath == nil {
				continue
			}
			at := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
			mode := ", read and write"
			if at >= 0 && c.VolumeMounts[at].ReadOnly {
				mode = ", read only"
			}
			out = append(out, v.HostPath.Path+mode)
		}
		slices.Sort(out)
		return out
	}
	t.Fatalf("fairlead.yaml has no DaemonSet fairlead-%s", component)
	return nil
}

// What kubectl applies is not said to be Helm's, which would neither upgrade nor delete it.
func TestManifestsAreKubectls(t *testing.T) {
	all := 0
	for text := range strings.SplitSeq(string(Manifests), "\n---\n") {
		var o struct {
			Kind     string
			Metadata struct {
				Name   string
				Labels map[string]string
			}
		}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if o.Kind == "" || o.Kind == "Namespace" {
			continue
		}
		all++
		if by := o.Metadata.Labels["app.kubernetes.io/managed-by"]; by != "kubectl" {
			t.Errorf("%s %s is managed by %q", o.Kind, o.Metadata.Name, by)
		}
	}
	if all < 10 {
		t.Errorf("%d objects", all)
	}
}

// What README.md says that pods may do on a node is what the chart gives them.
func TestReadmeHasThePrivileges(t *testing.T) {
	for _, component := range []string{"agent", "proxy"} {
		if says, has := documented(t, component), rendered(t, component); !slices.Equal(says, has) {
			t.Errorf("%s: README.md says\n%q\nthe chart gives\n%q", component, says, has)
		}
	}
}

// What README.md says that programs may ask of the API server, beyond what is read, is what the
// roles have.
func TestReadmeHasTheRules(t *testing.T) {
	says, has := map[string]bool{}, map[string]bool{}
	for _, row := range table(t, "who | may | of | why |") {
		says[strings.Join(row[:3], " | ")] = true
	}
	quoted := func(all []string) string { return "`" + strings.Join(all, "`, `") + "`" }
	for name, r := range roles(t) {
		for _, rule := range r.Rules {
			if slices.Equal(rule.Verbs, []string{"list", "watch"}) {
				continue // see TestRolesReadWhatIsRead
			}
			of := quoted(rule.Resources)
			if !slices.ContainsFunc(rule.Resources, func(s string) bool { return !strings.HasSuffix(s, "/status") }) {
				of = "the `/status` of what is read"
			}
			if len(rule.ResourceNames) > 0 {
				of += " named " + quoted(rule.ResourceNames)
			}
			if strings.HasPrefix(name, "Role ") {
				of += ", in its namespace"
			}
			_, component, _ := strings.Cut(name, "fairlead-")
			has[fmt.Sprintf("%s | %s | %s", component, strings.Join(rule.Verbs, ", "), of)] = true
		}
	}
	for row := range says {
		if !has[row] {
			t.Errorf("README.md has what no role has: %s", row)
		}
	}
	for row := range has {
		if !says[row] {
			t.Errorf("README.md does not have: %s", row)
		}
	}
}
