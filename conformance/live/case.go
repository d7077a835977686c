// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
)

// Case is one file of conformance/cases, or of a decision table beside it.
type Case struct {
	Name string // of the file, and of the case's namespace
	// Common manifests are there throughout; Variants are applied one after the
	// other on top of them, each with the requests that belong to it.
	Common   []txtar.File
	Variants []Variant
	// Errors are the codes of what is wrong with the manifests, on purpose; sorted.
	Errors []string
}

// Variant is what one control plane adds.
type Variant struct {
	Plane string // first part of its files' names; "" if all manifests are common
	Files []txtar.File
	Lines []Line
}

// planes are the names that make a manifest part of a variant.
var planes = []string{"istio", "smi", "linkerd", "gateway"}

// ReadCase reads a case and what it uses from cases/base, which lies beside its folder.
func ReadCase(path string) (*Case, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, fmt.Errorf("read case: %w", err)
	}
	c := &Case{Name: strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".txtar"), "_", "-")}
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		if codes, ok := strings.CutPrefix(line, "errors: "); ok {
			c.Errors = strings.Fields(codes)
			slices.Sort(c.Errors)
		}
		if name, ok := strings.CutPrefix(line, "use: "); ok {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(path), "../cases/base", name+".yaml"))
			if err != nil {
				return nil, fmt.Errorf("read case: %w", err)
			}
			c.Common = append(c.Common, txtar.File{Name: name + ".yaml", Data: c.fill(b)})
		}
	}
	requests := map[string][]Line{} // by plane, "" for all
	manifests := map[string][]txtar.File{}
	for _, f := range a.Files {
		plane := planeOf(f.Name)
		if strings.HasSuffix(f.Name, ".yaml") {
			manifests[plane] = append(manifests[plane], txtar.File{Name: f.Name, Data: c.fill(f.Data)})
			continue
		}
		if f.Name != "requests" && f.Name != plane+".requests" {
			return nil, fmt.Errorf("%s: section %q: want NAME.yaml, requests or PLANE.requests", path, f.Name)
		}
		lines, err := ParseLines(string(c.fill(f.Data)))
		if err != nil {
			return nil, fmt.Errorf("%s: section %s: %w", path, f.Name, err)
		}
		requests[plane] = append(requests[plane], lines...)
	}
	c.Common = append(c.Common, manifests[""]...)
	for _, p := range planes {
		if len(manifests[p]) > 0 {
			c.Variants = append(c.Variants, Variant{p, manifests[p], append(requests[""][:len(requests[""]):len(requests[""])], requests[p]...)})
		} else if len(requests[p]) > 0 {
			return nil, fmt.Errorf("%s: section %s.requests, but no manifest of that plane", path, p)
		}
	}
	if len(c.Variants) == 0 {
		c.Variants = []Variant{{Lines: requests[""]}}
	}
	for _, v := range c.Variants {
		if len(v.Lines) == 0 {
			return nil, fmt.Errorf("%s: no requests", path)
		}
	}
	return c, nil
}

func planeOf(name string) string {
	for _, p := range planes {
		if rest, ok := strings.CutPrefix(name, p); ok && (rest[0] == '.' || rest[0] == '-') {
			return p
		}
	}
	return ""
}

// fill puts the case's namespace where the text says $ns.
func (c *Case) fill(text []byte) []byte {
	return []byte(strings.ReplaceAll(string(text), "$ns", c.Name))
}

// Namespace is the case's own, captured. A manifest of the case may say otherwise.
func (c *Case) Namespace() txtar.File {
	return txtar.File{Name: "namespace.yaml", Data: fmt.Appendf(nil,
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {fairlead.io/capture: enabled}}\n", c.Name)}
}
