// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/operator/conditions"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

var update = flag.Bool("update", false, "rewrite the expected statuses of the cases")

// more is in messages that have no room for everything.
const more = " more: see fairlead check"

// statusPart says what is expected.
const statusPart = "status"

// load runs the manifests of a case through a pipeline. Files whose names begin with
// "then" are loaded in place of the others, after them.
func load(t *testing.T, ar *txtar.Archive) *conditions.View {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: "n1", GatewayRequireGrants: strings.Contains(string(ar.Comment), "--gateway-require-grants")})
	if err != nil {
		t.Fatal(err)
	}
	var first, then []objects.Input
	for _, f := range ar.Files {
		switch in := (objects.Input{Name: f.Name, Data: f.Data}); {
		case !strings.HasSuffix(f.Name, ".yaml"):
		case strings.HasPrefix(f.Name, "then"):
			then = append(then, objects.Input{Name: "in.yaml", Data: f.Data})
		default:
			first = append(first, in)
		}
	}
	p.Load(first...)
	if len(then) > 0 {
		p.Load(then...)
	}
	return conditions.NewView(p)
}

// routes are all routes that are in use.
func routes(v *conditions.View) []*objects.Object {
	return append(v.Objects(gatewayapi.HTTPRouteKind), v.Objects(gatewayapi.GRPCRouteKind)...)
}

// lines prints what routes have in their status.
func lines(t *testing.T, v *conditions.View) string {
	t.Helper()
	var b strings.Builder
	for _, o := range routes(v) {
		fmt.Fprintf(&b, "%s %s\n", o.Kind.Kind, o.Key())
		s := Judge{}.Judge(v, o)
		if s == nil {
			b.WriteString("  nothing\n")
			continue
		}
		if len(s.Conditions) > 0 {
			t.Errorf("%s: conditions beside those of parents: %v", o.Key(), s.Conditions)
		}
		for _, p := range s.Parents {
			ref, err := json.Marshal(p.Ref)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "  %s\n", ref)
			for _, c := range p.Conditions {
				fmt.Fprintf(&b, "    %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
			}
		}
	}
	return b.String()
}

// The cases of testdata.
func TestStatus(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(bytes.TrimSpace(ar.Comment)) == 0 {
				t.Error("the case does not say what it is for")
			}
			got := lines(t, load(t, ar))
			i := slices.IndexFunc(ar.Files, func(f txtar.File) bool { return f.Name == statusPart })
			if i < 0 {
				i = len(ar.Files)
				ar.Files = append(ar.Files, txtar.File{Name: statusPart})
			}
			if want := string(ar.Files[i].Data); want != got {
				if !*update {
					t.Fatalf("status (-want +got):\n%s", cmp.Diff(want, got))
				}
				ar.Files[i].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Whatever the translators' own cases say: what is refused is in the status of a parent
// that is a Service, and where nothing is, all is well; every reason is one that metav1
// takes, and references go as they are written.
func TestNothingIsJudgedTwice(t *testing.T) {
	seen := map[string]bool{}
	for _, folder := range []string{"gateway", "linkerd"} {
		files, err := filepath.Glob(filepath.Join("../../translators", folder, "testdata/*.txtar"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no cases of %s: %v", folder, err)
		}
		for _, file := range files {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			v := load(t, ar)
			for _, o := range routes(v) {
				route, ok := gatewayapi.Of(o)
				if !ok || !slices.ContainsFunc(route.Parents, gatewayapi.Parent.IsService) {
					continue
				}
				s := Judge{}.Judge(v, o)
				told, bad := "", false
				for _, p := range s.Parents {
					for _, c := range p.Conditions {
						told += c.Message + "\n"
						bad = bad || c.Status != conditions.True || c.Type == "PartiallyInvalid"
						seen[fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason)] = true
						if strings.Trim(c.Reason, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" || c.Reason == "" {
							t.Errorf("%s: reason %q", file, c.Reason)
						}
					}
				}
				for _, d := range v.Diagnostics(o.Ref()) {
					if d.Outcome == model.Refused && !strings.Contains(told, d.Message) && !strings.Contains(told, more) && !elsewhere(route, s, d) {
						t.Errorf("%s: %s has nothing of: %s %s", file, o.Key(), d.Code, conditions.One(d))
					}
				}
				if len(conditions.Worth(v.Diagnostics(o.Ref()))) == 0 && bad && !standby(s) {
					t.Errorf("%s: nothing is said about %s, and the status says\n%s", file, o.Key(), told)
				}
			}
		}
	}
	for _, want := range []string{"Accepted=True Accepted", "Accepted=False NoMatchingParent", "Accepted=False UnsupportedValue",
		"ResolvedRefs=False BackendNotFound", "ResolvedRefs=False InvalidKind", "ResolvedRefs=True ResolvedRefs", "PartiallyInvalid=True UnsupportedValue"} {
		if !seen[want] {
			t.Errorf("no case has %s", want)
		}
	}
}

// elsewhere tells what need not be in the status of a parent: what is about parents of
// other kinds, and what the spec says where no parent is served by who says it.
func elsewhere(r gatewayapi.Route, s *conditions.Status, d model.Diagnostic) bool {
	for _, p := range r.Parents {
		if within(d.Source.Field, p.Field) && !meantForMesh(p) {
			return true
		}
	}
	return d.Source.Field == "spec.useDefaultGateways" || standby(s)
}

// standby tells whether no parent is served.
func standby(s *conditions.Status) bool {
	return !slices.ContainsFunc(s.Parents, func(p conditions.Parent) bool {
		return p.Conditions[0].Status == conditions.True || p.Conditions[0].Reason != reasonStandby
	})
}
