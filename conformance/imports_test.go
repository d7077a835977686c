// SPDX-License-Identifier: Apache-2.0

// Package conformance holds what must be true of the whole.
package conformance

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "fairlead.io/fairlead/"

// rules say what packages may not depend on, directly or by way of others. Packages
// are named without the module's path; one name stands for those below it too.
var rules = []struct {
	of    string
	never []string
}{
	{of: "bpf", never: append(without("bpf"), kubernetes...)},
	{of: "datapath", never: append(without("bpf", "datapath", "model"), kubernetes...)},
	{of: "xds", never: append(without("xds", "model"), kubernetes...)},
	{of: "proxy", never: append(without("proxy", "xds", "model"), kubernetes...)},
	{of: "cni", never: append(without("cni"), kubernetes...)},
	{of: "cmd/fairlead-cni", never: append(append(without("cni", "cmd"), "cni/install"), kubernetes...)},
	{of: "hubble", never: append(without("hubble", "model"), kubernetes...)},
	{of: "translators", never: append(without("translators", "model"), clients...)},
	{of: "kube", never: append(without("kube", "translators", "model"), istioAPI, smiAPI)},
	{of: "agent", never: []string{"lab", "cmd", "conformance", "operator"}},
	{of: "operator", never: []string{"lab", "cmd", "conformance", "bpf", "datapath", "xds", "proxy", "hubble"}},
	{of: "lab", never: []string{"cmd", "conformance"}},
	// What several planes need lies beside them; they do not know each other.
	// Istio's waypoints route as the Gateway API says: istio reads where its routes lead.
	{of: "translators/istio", never: []string{"translators/smi", "translators/linkerd", "translators/gateway", "translators/kubernetes", "translators/host", smiAPI}},
	{of: "translators/smi", never: []string{"translators/istio", "translators/linkerd", "translators/gateway", "translators/kubernetes", "translators/host", istioAPI, gatewayAPI}},
	{of: "translators/linkerd", never: []string{"translators/istio", "translators/smi", "translators/gateway", "translators/kubernetes", "translators/host", istioAPI, smiAPI}},
	{of: "translators/gateway", never: []string{"translators/istio", "translators/smi", "translators/linkerd", "translators/kubernetes", "translators/host", istioAPI, smiAPI}},
	{of: "translators/gatewayapi", never: []string{"translators/istio", "translators/smi", "translators/linkerd", "translators/gateway", "translators/kubernetes", "translators/host", istioAPI, smiAPI}},
	{of: "translators/kubernetes", never: []string{"translators/istio", "translators/smi", "translators/linkerd", "translators/gateway", "translators/host", istioAPI, smiAPI}},
	{of: "translators/objects", never: []string{"translators/istio", "translators/smi", "translators/linkerd", "translators/gateway", "translators/kubernetes", "translators/host", istioAPI, smiAPI}},
}

const (
	istioAPI   = "istio.io"
	smiAPI     = "github.com/servicemeshinterface"
	gatewayAPI = "sigs.k8s.io/gateway-api"
)

// kubernetes are the modules of Kubernetes and of the planes' types.
var kubernetes = []string{"k8s.io", "sigs.k8s.io", istioAPI, smiAPI}

// clients are the modules that speak to an API server.
var clients = []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"}

// parts of the project, each a folder of packages.
var parts = []string{"agent", "bpf", "cmd", "cni", "conformance", "datapath", "hubble", "kube", "lab", "model", "operator", "proxy", "translators", "xds"}

func without(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return slices.Contains(names, p) })
}

type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", module+"...")
	cmd.Env = append(cmd.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("list packages: %v: %s", err, exit.Stderr)
		}
		t.Fatalf("list packages: %v", err)
	}
	all := map[string]goPackage{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// within reports whether a package is that of a name or below it.
func within(pkg, name string) bool { return pkg == name || strings.HasPrefix(pkg, name+"/") }

func TestImportsGoOneWay(t *testing.T) {
	all := packages(t)
	used := map[string]bool{}
	for path, p := range all {
		name, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		if within(name, "model") {
			for _, dep := range p.Deps {
				if !all[dep].Standard && !strings.HasPrefix(dep, module+"model") {
					t.Errorf("%s depends on %s: model has the standard library alone", name, dep)
				}
			}
			used["model"] = true
		}
		for _, r := range rules {
			if !within(name, r.of) || strings.HasSuffix(name, "test") {
				continue
			}
			used[r.of] = true
			for _, dep := range p.Deps {
				short := strings.TrimPrefix(dep, module)
				if i := slices.IndexFunc(r.never, func(n string) bool { return within(short, n) }); i >= 0 {
					t.Errorf("%s depends on %s", name, short)
				}
			}
		}
	}
	for path, p := range all {
		name, ours := strings.CutPrefix(path, module)
		if !ours || within(name, "kube") {
			continue
		}
		for _, dep := range p.Imports {
			if slices.ContainsFunc(clients, func(c string) bool { return within(dep, c) }) {
				t.Errorf("%s imports %s: kube alone has a client", name, dep)
			}
		}
	}
	for _, r := range rules {
		if !used[r.of] {
			t.Errorf("no package is within %s: the rule is about nothing", r.of)
		}
	}
}
