// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// written is a body of a kind, and the versions that it is written in.
type written struct{ group, plural, kind, versions, body string }

// bodies say all that each version can say, in each shape that it has.
var bodies = []written{
	{"access.smi-spec.io", "traffictargets", "TrafficTarget", "v1alpha1", `{"destination": {"kind": "ServiceAccount", "name": "api", "namespace": "versions", "port": 8080},
		"sources": [{"kind": "ServiceAccount", "name": "client", "namespace": "versions", "port": 1}],
		"specs": [{"kind": "HTTPRouteGroup", "name": "r", "matches": ["a"]}, {"kind": "TCPRoute", "name": "t"}]}`},
	{"access.smi-spec.io", "traffictargets", "TrafficTarget", "v1alpha2 v1alpha3", `{"spec": {"destination": {"kind": "ServiceAccount", "name": "api", "namespace": "versions", "port": 8080},
		"sources": [{"kind": "ServiceAccount", "name": "client", "namespace": "versions", "port": 1}],
		"rules": [{"kind": "HTTPRouteGroup", "name": "r", "matches": ["a"]}, {"kind": "UDPRoute", "name": "t"}]}}`},
	{"access.smi-spec.io", "traffictargets", "TrafficTarget", "v1alpha3", `{"spec": {"destination": {"kind": "ServiceAccount", "name": "api", "port": "9091"}, "rules": [], "misspelt": {"a": [1, "b", null]}}}`},
	{"specs.smi-spec.io", "httproutegroups", "HTTPRouteGroup", "v1alpha1 v1alpha2", `{"matches": [{"name": "a", "pathRegex": "/a", "methods": ["GET", "*"], "headers": [{"x": "y"}, {"z": ".*"}]}, {"name": "b", "headers": {"x": "y"}}]}`},
	{"specs.smi-spec.io", "httproutegroups", "HTTPRouteGroup", "v1alpha3 v1alpha4", `{"spec": {"matches": [{"name": "a", "pathRegex": "/a", "methods": ["GET"], "headers": {"x": "y", "z": ".*"}}, {"name": "b", "headers": [{"x": "y"}], "paths": ["/c"]}]}}`},
	{"specs.smi-spec.io", "tcproutes", "TCPRoute", "v1alpha1 v1alpha2", `{}`},
	{"specs.smi-spec.io", "tcproutes", "TCPRoute", "v1alpha3", `{"spec": {}}`},
	{"specs.smi-spec.io", "tcproutes", "TCPRoute", "v1alpha1 v1alpha2 v1alpha3 v1alpha4", `{"spec": {"matches": {"name": "m", "ports": [8080, 9090]}}}`},
	{"specs.smi-spec.io", "udproutes", "UDPRoute", "v1alpha4", `{"spec": {"matches": {"name": "m", "ports": [53], "port": 54}}}`},
	{"split.smi-spec.io", "trafficsplits", "TrafficSplit", "v1alpha1", `{"spec": {"service": "web", "backends": [{"service": "a", "weight": "500m"}, {"service": "b", "weight": "1.5"}, {"service": "c", "weight": 2}, {"service": "d", "weight": "1k"}, {"service": "e"}]}}`},
	{"split.smi-spec.io", "trafficsplits", "TrafficSplit", "v1alpha2", `{"spec": {"service": "web", "backends": [{"service": "a", "weight": 4294967295}, {"service": "b", "weight": 0}]}}`},
	{"split.smi-spec.io", "trafficsplits", "TrafficSplit", "v1alpha3 v1alpha4", `{"spec": {"service": "web", "backends": [{"service": "a", "weight": 1}], "matches": [{"kind": "HTTPRouteGroup", "name": "r", "apiGroup": "specs.smi-spec.io"}]}}`},
}

// What is written in a version comes back in every other as it was written, byte by byte,
// and stays so when somebody changes the object by way of another version.
func TestVersions(t *testing.T) {
	cluster.Up(t)
	define(t)
	namespace(t, "versions")
	served := map[string][]string{}
	for _, w := range bodies {
		if served[w.plural] == nil {
			served[w.plural] = strings.Fields(cluster.Kubectl(t, "get", "crd", w.plural+"."+w.group, "-o", "jsonpath={.spec.versions[*].name}"))
		}
	}
	reads := 0
	for i, w := range bodies {
		for version := range strings.FieldsSeq(w.versions) {
			t.Run(fmt.Sprintf("%s %s %d", w.kind, version, i), func(t *testing.T) {
				object := map[string]any{}
				if err := json.Unmarshal([]byte(w.body), &object); err != nil {
					t.Fatal(err)
				}
				want := canonical(t, object)
				name := fmt.Sprintf("%s-%d", version, i)
				object["apiVersion"], object["kind"] = w.group+"/"+version, w.kind
				object["metadata"] = map[string]any{"name": name}
				path := func(version string) string {
					return fmt.Sprintf("/apis/%s/%s/namespaces/versions/%s", w.group, version, w.plural)
				}
				if _, err := cluster.Try(t.Context(), canonical(t, object), "create", "--raw", path(version), "-f", "-"); err != nil {
					t.Fatal(err)
				}
				check := func(after string) {
					for _, out := range served[w.plural] {
						got := map[string]any{}
						if err := json.Unmarshal([]byte(cluster.Kubectl(t, "get", "--raw", path(out)+"/"+name)), &got); err != nil {
							t.Fatal(err)
						}
						if got["apiVersion"] != w.group+"/"+out {
							t.Errorf("asked for %s, got %v", out, got["apiVersion"])
						}
						delete(got, "apiVersion")
						delete(got, "kind")
						delete(got, "metadata")
						reads++
						if text := canonical(t, got); text != want {
							t.Errorf("written in %s, read in %s%s:\n%s\nwant\n%s", version, out, after, text, want)
						}
					}
				}
				check("")
				for _, by := range served[w.plural] {
					cluster.Kubectl(t, "annotate", "-n", "versions", w.plural+"."+by+"."+w.group+"/"+name, "by="+by, "--overwrite")
				}
				check(", after changes in all versions")
			})
		}
	}
	t.Logf("%d reads", reads)
}

func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What means nothing in any version is refused by the server, with words.
func TestRefusedByTheServer(t *testing.T) {
	cluster.Up(t)
	define(t)
	namespace(t, "refused")
	for name, c := range map[string]struct{ kind, body, want string }{
		"two places of a target": {"access.smi-spec.io/v1alpha3 TrafficTarget", `"spec": {"destination": {"kind": "ServiceAccount", "name": "a"}, "rules": []}, "sources": []`, "destination, sources and specs are v1alpha1's: write them, or spec, not both"},
		"nothing of a target":    {"access.smi-spec.io/v1alpha1 TrafficTarget", `"sources": []`, "spec is missing (v1alpha1: destination and specs)"},
		"rule of another kind":   {"access.smi-spec.io/v1alpha2 TrafficTarget", `"spec": {"destination": {"kind": "ServiceAccount", "name": "a"}, "rules": [{"kind": "Route", "name": "r"}]}`, `Unsupported value: "Route"`},
		"two places of matches":  {"specs.smi-spec.io/v1alpha4 HTTPRouteGroup", `"spec": {"matches": []}, "matches": []`, "matches is v1alpha1's and v1alpha2's: write it, or spec.matches, not both"},
		"no matches":             {"specs.smi-spec.io/v1alpha2 HTTPRouteGroup", `"spec": {}`, "spec.matches is missing (v1alpha1, v1alpha2: matches)"},
		"two matches of a name":  {"specs.smi-spec.io/v1alpha4 HTTPRouteGroup", `"spec": {"matches": [{"name": "a"}, {"name": "a"}]}`, "Duplicate value"},
		"method":                 {"specs.smi-spec.io/v1alpha1 HTTPRouteGroup", `"matches": [{"name": "a", "methods": ["get"]}]`, `Unsupported value: "get"`},
		"ports at the top":       {"specs.smi-spec.io/v1alpha4 TCPRoute", `"matches": {"ports": [1]}`, "no version has matches here: write spec.matches"},
		"port":                   {"specs.smi-spec.io/v1alpha4 UDPRoute", `"spec": {"matches": {"ports": [0]}}`, "should be greater than or equal to 1"},
		"weight":                 {"split.smi-spec.io/v1alpha4 TrafficSplit", `"spec": {"service": "a", "backends": [{"service": "b", "weight": "much"}]}`, "spec.backends[0].weight"},
	} {
		version, kind, _ := strings.Cut(c.kind, " ")
		_, err := cluster.Try(t.Context(), fmt.Sprintf(`{"apiVersion": %q, "kind": %q, "metadata": {"name": "x"}, %s}`, version, kind, c.body), "create", "-n", "refused", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
}

// A cluster's own definitions stay: what was written through them is read rightly as far as
// they keep it, whatever version it is in, and what they have dropped is told of.
func TestAdopted(t *testing.T) {
	cluster.Up(t)
	t.Cleanup(func() { undefine(t) })
	buildBinary(t)
	for _, c := range []struct {
		name string
		want map[string]string // by object: codes of its diagnostics
	}{
		{"sdk", map[string]string{
			"TrafficTarget three":         "",
			"TrafficTarget port":          "", // the port was dropped by the server
			"TrafficTarget old":           "no-destination unsupported-kind",
			"HTTPRouteGroup good":         "",
			"HTTPRouteGroup old":          "",
			"TrafficTarget of-old":        "empty-group",
			"TCPRoute some":               "",
			"TrafficSplit split":          "",
			"TrafficSplit with-matches":   "unknown-service",
			"TrafficTarget without-group": "unknown-route",
		}},
		{"osm", map[string]string{
			"TrafficTarget three":  "",
			"HTTPRouteGroup good":  "",
			"TCPRoute some":        "",
			"UDPRoute some":        "",
			"TrafficSplit split":   "",
			"TrafficSplit strings": "other-version unknown-service",
		}},
		{"open", map[string]string{ // keeps all, serves and stores v1alpha1 alone, as adopters of old did
			"TrafficTarget old":    "unknown-route",
			"TrafficTarget new":    "other-version unknown-route",
			"TrafficTarget both":   "unknown-field",
			"HTTPRouteGroup old":   "",
			"HTTPRouteGroup new":   "other-version",
			"TCPRoute ports":       "other-version",
			"TrafficSplit strings": "unknown-service",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			undefine(t)
			cluster.Kubectl(t, "apply", "-f", "testdata/"+c.name+"-crds.yaml")
			cluster.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
			name := "adopted-" + c.name
			namespace(t, name)
			text, err := os.ReadFile("testdata/" + c.name + "-objects.yaml")
			if err != nil {
				t.Fatal(err)
			}
			// Not kubectl's own strictness: other clients have none.
			testcluster.Eventually(t, 20*time.Second, "write objects", func() error {
				_, err := cluster.Try(t.Context(), strings.ReplaceAll(string(text), "$ns", name), "apply", "--validate=false", "-n", name, "-f", "-")
				return err
			})
			testcluster.Eventually(t, 20*time.Second, "they are read", func() error {
				got, err := read(t.Context(), name)
				if err == nil && !reflect.DeepEqual(got, c.want) {
					err = fmt.Errorf("got\n%s\nwant\n%s", said(got), said(c.want))
				}
				return err
			})
		})
	}
}

func said(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "  %s: %s\n", k, m[k])
	}
	return b.String()
}

// undefine takes all definitions away, and the objects with them.
func undefine(t *testing.T) {
	names, err := cluster.Try(context.Background(), "", "get", "crd", "-o", "name")
	if err != nil {
		t.Error(err)
		return
	}
	for _, n := range lines(names) {
		if strings.HasSuffix(n, ".smi-spec.io") {
			if _, err := cluster.Try(context.Background(), "", "delete", n, "--wait"); err != nil {
				t.Error(err)
			}
		}
	}
}

// read is what Fairlead says of a namespace's SMI objects.
func read(ctx context.Context, namespace string) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, binary(), "translate", "-o", "json", "--kubeconfig", cluster.Kubeconfig())
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	var all struct {
		Objects []struct {
			Kind, Namespace, Name string
			Diagnostics           []struct{ Code string }
		}
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	got := map[string]string{}
	for _, o := range all.Objects {
		if o.Namespace != namespace || !slices.Contains([]string{"TrafficTarget", "HTTPRouteGroup", "TCPRoute", "UDPRoute", "TrafficSplit"}, o.Kind) {
			continue
		}
		var codes []string
		for _, d := range o.Diagnostics {
			codes = append(codes, d.Code)
		}
		slices.Sort(codes)
		got[o.Kind+" "+o.Name] = strings.Join(slices.Compact(codes), " ")
	}
	return got, nil
}
