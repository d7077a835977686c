// SPDX-License-Identifier: Apache-2.0

package input

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// TestLinkThatBreaks keeps objects in a folder that a link leads to. When it leads nowhere,
// that is told, and the last version of them stands.
func TestLinkThatBreaks(t *testing.T) {
	source, shared := t.TempDir(), filepath.Join(t.TempDir(), "mesh")
	common, err := os.ReadFile("../cross/testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const denied = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: shop}
spec: {action: DENY, rules: [{}]}
`
	link := filepath.Join(source, "mesh")
	err = errors.Join(os.Mkdir(shared, 0o700), os.WriteFile(filepath.Join(source, "base.yaml"), common, 0o600),
		os.WriteFile(filepath.Join(shared, "deny.yaml"), []byte(denied), 0o600), os.Symlink(shared, link))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.New(pipeline.Options{Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	p.Load(objects.Files([]string{filepath.Join(source, "base.yaml")}, nil)...)
	open := rows(p)
	p.Load(objects.Files([]string{source}, nil)...)
	before := rows(p)
	if cmp.Equal(open, before) {
		t.Fatal("what the link leads to is not read")
	}
	if err := os.Rename(shared, shared+".gone"); err != nil {
		t.Fatal(err)
	}
	p.Load(objects.Files([]string{source}, nil)...)
	if d := cmp.Diff(before, rows(p)); d != "" {
		t.Errorf("the plan changed:\n%s", d)
	}
	told := func(d model.Diagnostic) bool {
		return d.Source.File == link && d.Code == "unreadable-file" && d.Advice != ""
	}
	if got := p.Diagnostics(); !slices.ContainsFunc(got, told) {
		t.Errorf("that the link leads nowhere is not told: %v", tell(got))
	}
}
