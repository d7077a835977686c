// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

const demo = "../../conformance/demo"

// result is what a run of the program leaves.
type result struct {
	code     int
	out, err string
}

func fairlead(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	c := root()
	c.SetArgs(args)
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&errs)
	code := run(t.Context(), c)
	return result{code, out.String(), errs.String()}
}

func TestWrongUsageSaysWhatToDo(t *testing.T) {
	for args, want := range map[string]string{
		"nope":                               `has no command "nope"`,
		"translat":                           `Did you mean "translate"?`,
		"translate":                          "name files or folders with -f",
		"translate extra":                    "name files with -f",
		"translate --bogus":                  `Run "fairlead translate --help"`,
		"translate -o xml":                   "want table, json or yaml",
		"translate -f . --istio-version 0.1": "want 1.",
		"translate -f . --istio-outbound-traffic-policy NONE":       "want ALLOW_ANY or REGISTRY_ONLY",
		"plan --node a -f . --istio-protocol-detection-timeout -1s": "want 0 or more",
		"translate -f . --trust-domain a/b":                         "want lower-case letters",
		"plan --node a -f . --trust-domain spiffe://a":              "want lower-case letters",
		"translate -f . --cluster-domain .local":                    "want a name of DNS",
		"plan -f .":                                                 "needs --node",
		"render -f .":                                               "needs --node",
		"plan --node a":                                             "name files or folders with -f",
		"plan --node other -f " + demoNode(t):                       "they have n1",
		"render --node other -f " + demoNode(t):                     "they have n1",
	} {
		r := fairlead(t, "", strings.Fields(args)...)
		if r.code != exitUsage || !strings.Contains(r.err, want) || r.out != "" {
			t.Errorf("%s: exit %d, out %q, says %q; want 2 and %q", args, r.code, r.out, r.err, want)
		}
	}
}

// demoNode is a file with a node, so that nothing is placed.
func demoNode(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEveryCommandHasHelp(t *testing.T) {
	var visit func(c *cobra.Command, path []string)
	visit = func(c *cobra.Command, path []string) {
		r := fairlead(t, "", append(path, "--help")...)
		if r.code != 0 || r.err != "" || c.Short == "" || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%s --help: exit %d, says %q, out %q", c.CommandPath(), r.code, r.err, r.out)
		}
		for _, sub := range c.Commands() {
			visit(sub, append(path[:len(path):len(path)], sub.Name()))
		}
	}
	visit(root(), nil)
}

func TestPathsThatAreNotThere(t *testing.T) {
	for _, args := range []string{"translate -f /no/such/path", "plan --node a -f " + demo + " -f /no/such/path", "render --node a -f /no/such/path"} {
		if r := fairlead(t, "", strings.Fields(args)...); r.code != exitFailed || r.out != "" || !strings.Contains(r.err, "/no/such/path: no such file") {
			t.Errorf("%s: exit %d, out %q, says %q", args, r.code, r.out, r.err)
		}
	}
}

func TestTranslateExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		stdin string
		code  int
		want  string
	}{
		"clean":   {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", 0, "1 object: 1 translated"},
		"nothing": {"", 0, "0 objects"},
		"refused": {"apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}\n", exitFailed, "stdin:"},
		"broken":  {"a: [\n", exitFailed, "stdin:1: error:"},
		"binary":  {"\x00\xff\xfe\x7fELF", exitFailed, "stdin:1: error:"},
	} {
		if r := fairlead(t, c.stdin, "translate", "-f", "-"); r.code != c.code || !strings.Contains(r.out, c.want) || r.err != "" {
			t.Errorf("%s: exit %d, says %q, out\n%s", name, r.code, r.err, r.out)
		}
	}
}

// JSON and YAML are the same data, and lists in them are never null.
func TestOutputs(t *testing.T) {
	for _, args := range []string{"translate", "plan --node node-1", "render --node node-1"} {
		for _, file := range []string{demo + "/app.yaml", os.DevNull} {
			in := append(strings.Fields(args), "-f", file)
			var fromJSON, fromYAML map[string]any
			j, y, table := fairlead(t, "", append(in, "-o", "json")...), fairlead(t, "", append(in, "-o", "yaml")...), fairlead(t, "", in...)
			if err := json.Unmarshal([]byte(j.out), &fromJSON); err != nil {
				t.Errorf("%q: %v", in, err)
			}
			if err := yaml.Unmarshal([]byte(y.out), &fromYAML); err != nil {
				t.Errorf("%q: %v", in, err)
			}
			if d := cmp.Diff(fromJSON, fromYAML); d != "" || len(fromJSON) == 0 || strings.Contains(j.out, "null") {
				t.Errorf("%q (-json +yaml):\n%s\n%.300s", in, d, j.out)
			}
			if j.code+y.code+table.code != 0 || !strings.HasPrefix(table.out, strings.ToUpper(table.out[:4])) {
				t.Errorf("%q: exits %d %d %d, table\n%.300s", in, j.code, y.code, table.code, table.out)
			}
		}
	}
}

func TestRenderHasEnvoysResourcesAndTheKernelsEntries(t *testing.T) {
	r := fairlead(t, "", "render", "-f", demo, "--node", "node-1", "-o", "json")
	var got struct {
		Envoy []struct {
			Type, Name, Version string
			Resource            map[string]any
		}
		Kernel []struct{ Map, Key, Value string }
		Ports  map[string]uint16
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	types, maps := map[string]bool{}, map[string]bool{}
	for _, e := range got.Envoy {
		types[e.Type] = true
		if len(e.Version) != 32 || len(e.Resource) == 0 {
			t.Errorf("%s %s: version %q, resource %v", e.Type, e.Name, e.Version, e.Resource)
		}
	}
	for _, e := range got.Kernel {
		name, _, _ := strings.Cut(e.Map, "_v") // of the layout
		maps[name] = true
	}
	for _, want := range []string{"Cluster", "ClusterLoadAssignment", "RouteConfiguration", "ScopedRouteConfiguration", "Listener"} {
		if !types[want] {
			t.Errorf("no %s among %v", want, types)
		}
	}
	for _, want := range []string{"fl_policy", "fl_addresses", "fl_pods", "fl_services", "fl_slots"} {
		if !maps[want] {
			t.Errorf("no %s among %v", want, maps)
		}
	}
	if len(got.Ports) == 0 {
		t.Error("no ports of listeners")
	}
}

// The order of objects is nobody's intent.
func TestShuffledObjectsGiveTheSameBytes(t *testing.T) {
	var docs []string
	for _, f := range []string{"app.yaml", "istio.yaml"} {
		b, err := os.ReadFile(filepath.Join(demo, f))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, strings.Split(string(b), "\n---\n")...)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, verb := range []string{"plan", "render"} {
		first := ""
		for range 5 {
			r := fairlead(t, strings.Join(docs, "\n---\n"), verb, "-f", "-", "--node", "node-1", "-o", "json")
			if r.code != 0 {
				t.Fatalf("exit %d: %s", r.code, r.err)
			}
			if first == "" {
				first = r.out
			}
			if d := cmp.Diff(strings.Split(first, "\n"), strings.Split(r.out, "\n")); d != "" {
				t.Fatalf("%s in another order:\n%.2000s", verb, d)
			}
			rng.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		}
	}
}
