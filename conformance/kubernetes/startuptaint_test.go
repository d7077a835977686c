// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"maps"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Who takes the startup taint off tolerates it, and may; without the setting nobody may write nodes.
func TestStartupTaintInChart(t *testing.T) {
	path, err := exec.CommandContext(t.Context(), "../../hack/helm.sh").Output()
	if err != nil {
		t.Fatalf("hack/helm.sh: %v", err)
	}
	const key = "fairlead.io/agent-not-ready"
	render := func(args ...string) (string, error) {
		args = append([]string{"template", "fairlead", "../../deploy/chart", "--namespace", "fairlead-system"}, args...)
		out, err := exec.CommandContext(t.Context(), strings.TrimSpace(string(path)), args...).CombinedOutput()
		return string(out), err
	}
	if out, err := render("--set", "agent.startupTaint="+key, "--set", "agent.cni.enabled=false"); err == nil || !strings.Contains(out, "agent.startupTaint: ") {
		t.Errorf("without the plugin: %v: %s", err, out)
	}
	for _, on := range []bool{false, true} {
		var args []string
		if on {
			args = []string{"--set", "agent.startupTaint=" + key, "--set", "agent.tolerations=null"}
		}
		out, err := render(args...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		tolerate, says, writes := map[string]bool{}, false, false
		for text := range strings.SplitSeq(out, "\n---\n") {
			name := regexp.MustCompile(`(?m)^  name: (\S+)$`).FindStringSubmatch(text)
			if strings.Contains(text, "- key: "+key+"\n          operator: Exists\n") {
				tolerate[name[1]] = true
			}
			says = says || name != nil && name[1] == "fairlead-operator" && strings.Contains(text, "        - \"--startup-taint="+key+"\"\n")
			writes = writes || regexp.MustCompile(`resources: \[nodes[^\]]*\]\n  verbs: \[[^\]]*patch`).MatchString(text)
		}
		want := map[string]bool{}
		if on {
			want = map[string]bool{"fairlead-agent": true, "fairlead-proxy": true, "fairlead-operator": true, "fairlead-cleanup": true}
		}
		if !maps.Equal(tolerate, want) || says != on || writes != on {
			t.Errorf("on: %v; %v tolerate it, the operator is told %v and may write nodes %v", on, tolerate, says, writes)
		}
	}
}
