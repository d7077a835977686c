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
	Name string // of the file, and of the case's namespace unless it says another
	// Home is the case's namespace. Cases of a table that say "in: HOME" have one
	// together, with the manifests that they use in it.
	Home string
	// Used is the number of the first of Common that are manifests of base.
	Used int
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
	c.Home = c.Name
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		if home, ok := strings.CutPrefix(line, "in: "); ok { // before what it uses
			c.Home = home
		}
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
			c.Used++
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

// Shared reports whether the case shares its namespace with others.
func (c *Case) Shared() bool { return c.Home != c.Name }

// fill puts the case's namespace where the text says $ns.
func (c *Case) fill(text []byte) []byte {
	return []byte(strings.ReplaceAll(string(text), "$ns", c.Home))
}

// Namespace is the case's own, captured. A manifest of the case may say otherwise.
func (c *Case) Namespace() txtar.File {
	return txtar.File{Name: "namespace.yaml", Data: fmt.Appendf(nil,
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {fairlead.io/capture: enabled}}\n", c.Home)}
}
