// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha1"
	split1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
)

var (
	virtualService = Kind{"networking.istio.io", "VirtualService"}
	routeGroup     = Kind{"specs.smi-spec.io", "HTTPRouteGroup"}
	trafficSplit   = Kind{"split.smi-spec.io", "TrafficSplit"}
)

func testRegistry() *Registry {
	return NewRegistry(
		Type{Kind: virtualService, Version: "v1", New: func() any { return new(networking.VirtualService) }, Namespaced: true},
		Type{Kind: routeGroup, Version: "v1alpha1", New: func() any { return new(specs1.HTTPRouteGroup) }, Namespaced: true},
		Type{Kind: trafficSplit, Version: "v1alpha1", New: func() any { return new(split1.TrafficSplit) }, Namespaced: true},
		Type{Kind: Kind{"example.com", "Any"}, Version: "v1", New: func() any { return new(map[string]any) }},
		Type{Kind: ServiceKind, Version: "v1", New: func() any { return new(corev1.Service) }, Namespaced: true, Lenient: true},
		Type{Kind: PodKind, Version: "v1", New: func() any { return new(corev1.Pod) }, Namespaced: true, Lenient: true},
		Type{Kind: NamespaceKind, Version: "v1", New: func() any { return new(corev1.Namespace) }, Lenient: true},
	)
}

func decode(text string) *Batch {
	return Decode(testRegistry(), Input{Name: "in.yaml", Data: []byte(text)})
}

// lines prints diagnostics as "line code field".
func lines(ds []model.Diagnostic) []string {
	var out []string
	for _, d := range ds {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%d %s %s", d.Source.Line, d.Code, d.Source.Field)))
	}
	return out
}

func wantLines(t *testing.T, ds []model.Diagnostic, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, lines(ds)); d != "" {
		t.Errorf("diagnostics (-want +got):\n%s\n%v", d, ds)
	}
}

func keys(os []*Object) []string {
	var out []string
	for _, o := range os {
		out = append(out, o.Kind.Kind+" "+o.Key())
	}
	return out
}

const webVS = `# a comment
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: web
  labels:
    app: web
    a.b/c: d
spec:
  hosts: [web]
  http:
  - match:
    - uri: {prefix: /a}
    - uri:
        exact: /b
      headers:
        x.y: {exact: "1"}
    route:
    - destination: {host: web}
      weight: 90
    timeout: 5s
`

func TestLines(t *testing.T) {
	b := decode("---\n" + webVS)
	wantLines(t, b.Diagnostics)
	o := b.Objects[0]
	for field, want := range map[string]int{
		"metadata.name":                         6,
		`metadata.labels["a.b/c"]`:              9,
		"metadata.labels.app":                   8,
		"spec.hosts[0]":                         11,
		"spec.http[0]":                          13,
		"spec.http[0].match[0].uri.prefix":      14,
		"spec.http[0].match[1].uri.exact":       16,
		`spec.http[0].match[1].headers["x.y"]`:  18,
		"spec.http[0].match[1].headers.missing": 17, // the nearest parent
		"spec.http[0].route[0].weight":          21,
		"spec.http[0].timeout":                  22,
		"spec.gateways":                         10,
		"":                                      3,
	} {
		if file, line := o.Place.Line(field); file != "in.yaml" || line != want {
			t.Errorf("%s: %s:%d, want line %d", field, file, line, want)
		}
	}
	if o.Namespace != "default" || o.Value.(*networking.VirtualService).Namespace != "default" {
		t.Errorf("namespace %q", o.Namespace)
	}
	if got := o.Value.(*networking.VirtualService).Spec.Http[0].Timeout.AsDuration(); got != 5*time.Second {
		t.Errorf("timeout %s", got)
	}
}

// Istio's decoder takes Go's durations, and its documents use them.
func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"250ms": 250 * time.Millisecond, "0.25s": 250 * time.Millisecond, "1h30m": 90 * time.Minute} {
		b := decode("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  http:\n  - timeout: " + text + "\n")
		if len(b.Objects) != 1 || len(b.Diagnostics) > 0 {
			t.Fatalf("%s: %v", text, b.Diagnostics)
		}
		if got := b.Objects[0].Value.(*networking.VirtualService).Spec.Http[0].Timeout.AsDuration(); got != want {
			t.Errorf("%s is %s", text, got)
		}
	}
}

func TestWhatATypeDoesNotTake(t *testing.T) {
	vs := "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n"
	group := "apiVersion: specs.smi-spec.io/v1alpha1\nkind: HTTPRouteGroup\nmetadata: {name: g}\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown in message":    {vs + "  http:\n  - rout: []\n", "6 unknown-field spec.http[0].rout"},
		"unknown in struct":     {group + "matches:\n- name: a\n  pathregex: /\n", "6 unknown-field matches[0].pathregex"},
		"wrong case":            {group + "Matches: []\n", "4 unknown-field Matches"},
		"unknown at top":        {group + "spec: {}\n", "4 unknown-field spec"},
		"duplicate in struct":   {group + "matches: []\nmatches: []\n", "5 duplicate-key matches"},
		"duplicate in message":  {vs + "  hosts: [a]\n  hosts: [b]\n", "6 duplicate-key spec.hosts"},
		"two spellings":         {vs + "  exportTo: [a]\n  export_to: [b]\n", "6 duplicate-key spec.exportTo"},
		"duplicate in map":      {group[:len(group)-len("metadata: {name: g}\n")] + "metadata:\n  name: g\n  labels:\n    a: b\n    a: c\n", "7 duplicate-key metadata.labels.a"},
		"list for string":       {group + "matches:\n- name: [a]\n", "5 wrong-type matches[0].name"},
		"number for string":     {group + "matches:\n- name: 1\n", "5 wrong-type matches[0].name"},
		"word for string":       {group + "matches:\n- name: yes\n", "5 wrong-type matches[0].name"},
		"string for list":       {group + "matches: all\n", "4 wrong-type matches"},
		"string for mapping":    {group + "matches: [all]\n", "4 wrong-type matches[0]"},
		"bad duration":          {vs + "  http:\n  - timeout: 5\n", "6 wrong-type spec.http[0].timeout"},
		"bad number in message": {vs + "  http:\n  - route:\n    - weight: many\n", "7 wrong-type spec.http[0].route[0].weight"},
		"bool for string":       {vs + "  hosts: [true]\n", "5 wrong-type spec.hosts[0]"},
		"null in list":          {vs + "  hosts: [null]\n", "5 wrong-type spec.hosts[0]"},
		"two of a oneof":        {vs + "  http:\n  - match:\n    - uri: {exact: a, prefix: b}\n", "7 conflicting-fields spec.http[0].match[0].uri.prefix"},
		"a key that is a list":  {group + "? [a]\n: b\n", "4 wrong-type"},
		"tag":                   {group + "matches:\n- name: !secret a\n", "5 wrong-type matches[0].name"},
		"slow quantity":         {"apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: s}\nspec:\n  backends:\n  - weight: \"1e-300000000\"\n", "6 wrong-type spec.backends[0].weight"},
		"infinite":              {group + "matches:\n- name: .inf\n", "5 wrong-type matches[0].name"},
	} {
		t.Run(name, func(t *testing.T) {
			b := decode(c.text)
			if got := lines(b.Diagnostics); len(got) == 0 || got[0] != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(b.Objects) != 1 || !b.Objects[0].Invalid {
				t.Errorf("objects %v must be one that is invalid", keys(b.Objects))
			}
			for _, d := range b.Diagnostics {
				if !d.IsError() {
					t.Errorf("%v must be an error", d)
				}
			}
		})
	}
}

func TestWhatATypeTakes(t *testing.T) {
	b := decode(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, creationTimestamp: 2026-01-02T03:04:05Z, annotations: null}
spec:
  export_to: ["*"]
  http:
  - route: [{destination: {host: a, port: {number: "80"}}}]
    fault: {delay: {percentage: {value: 1}, fixedDelay: 1.5s}}
    retries: {attempts: 3, retryRemoteLocalities: yes}
    timeout: ~
---
{"apiVersion": "split.smi-spec.io/v1alpha1",
	"kind": "TrafficSplit", "metadata": {"name": "tab\ts"},
	"spec": {"service": "a", "backends": [{"service": "b", "weight": 1}, {"service": "c", "weight": "500m"}]}}
---
apiVersion: specs.smi-spec.io/v1alpha1
kind: HTTPRouteGroup
metadata: {name: g}
x-shared: &m {name: a, methods: [GET]}
matches:
- *m
- {<<: *m, name: b}
`)
	wantLines(t, b.Diagnostics, "19 unknown-field x-shared")
	vs := b.Objects[0].Value.(*networking.VirtualService)
	if !b.Objects[0].Created.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("created %s", b.Objects[0].Created)
	}
	if h := vs.Spec.Http[0]; vs.Spec.ExportTo[0] != "*" || h.Route[0].Destination.Port.Number != 80 ||
		h.Fault.Delay.GetFixedDelay().AsDuration() != 1500*time.Millisecond || !h.Retries.RetryRemoteLocalities.Value || h.Timeout != nil {
		t.Errorf("spec %v", &vs.Spec)
	}
	if _, line := b.Objects[0].Place.Line("spec.exportTo"); line != 5 {
		t.Errorf("exportTo at line %d", line)
	}
	if w := b.Objects[1].Value.(*split1.TrafficSplit).Spec.Backends[1].Weight; w.MilliValue() != 500 {
		t.Errorf("weight %s", w)
	}
	ms := b.Objects[2].Value.(*specs1.HTTPRouteGroup).Matches
	if len(ms) != 2 || ms[0].Name != "a" || ms[1].Name != "b" || ms[1].Methods[0] != "GET" {
		t.Errorf("matches %v", ms)
	}
}

func TestBrokenDocumentLeavesTheOthers(t *testing.T) {
	const ns = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n"
	b := Decode(testRegistry(),
		Input{Name: "a.yaml", Data: fmt.Appendf(nil, ns+"---\nspec: [\nb: {\n---\n"+ns, "one", "two")},
		Input{Name: "b.yaml", Data: fmt.Appendf(nil, ns, "three")},
		Input{Name: "c.yaml", Data: []byte("just a string\n---\n# nothing\n---\nnull\n---\napiVersion: v1\nkind: Namespace\nmetadata: {}\n")},
		Input{Name: "d.yaml", Err: os.ErrPermission},
	)
	if d := cmp.Diff([]string{"Namespace one", "Namespace two", "Namespace three"}, keys(b.Objects)); d != "" {
		t.Error(d)
	}
	var got []string
	for _, d := range b.Diagnostics {
		got = append(got, fmt.Sprintf("%s:%d %s", d.Source.File, d.Source.Line, d.Code))
		if d.Effect != model.Widens { // it may have denied something
			t.Errorf("%s %s", d.Code, d.Effect)
		}
	}
	if d := cmp.Diff([]string{"a.yaml:6 broken-yaml", "c.yaml:1 not-an-object", "c.yaml:7 no-name", "d.yaml:0 unreadable-file"}, got); d != "" {
		t.Error(d)
	}
	if b.Broken["b.yaml"] || !b.Broken["a.yaml"] || !b.Broken["c.yaml"] || !b.Broken["d.yaml"] {
		t.Errorf("broken %v", b.Broken)
	}
}

func TestList(t *testing.T) {
	b := decode(`apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: a}
- apiVersion: v1
  kind: ServiceList
  items:
  - apiVersion: v1
    kind: Service
    metadata: {name: s, namespace: a}
    spec: {bogus: 1}
`)
	wantLines(t, b.Diagnostics, "13 unknown-field spec.bogus")
	if d := cmp.Diff([]string{"Namespace a", "Service a/s"}, keys(b.Objects)); d != "" {
		t.Error(d)
	}
	if b.Objects[1].Invalid {
		t.Error("a field that Kubernetes may have added must not make a service invalid")
	}
}

func TestSourceComment(t *testing.T) {
	b := decode("# fairlead:source shop/web.yaml:40\n" + webVS + "---\n# fairlead:source shop/pods.yaml:7 generated\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nbogus: 1\n")
	o := b.Objects[0]
	if file, line := o.Place.Line("spec"); file != "shop/web.yaml" || line != 48 {
		t.Errorf("spec at %s:%d", file, line)
	}
	if o.Place.First != 41 {
		t.Errorf("first line %d", o.Place.First)
	}
	if file, line := b.Objects[1].Place.Line("metadata.name"); file != "shop/pods.yaml" || line != 7 {
		t.Errorf("generated pod at %s:%d", file, line)
	}
	wantLines(t, b.Diagnostics, "7 unknown-field bogus")
}

func TestKindsThatNobodyReads(t *testing.T) {
	b := decode(`apiVersion: v1
kind: ConfigMap
metadata: {name: c}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: n}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
---
apiVersion: networking.istio.io/v2
kind: VirtualService
metadata: {name: v}
`)
	wantLines(t, b.Diagnostics, "1 ignored-kind", "5 unknown-kind kind", "9 unknown-kind kind", "13 unknown-version apiVersion")
	for i, want := range []model.Effect{model.Cosmetic, model.Widens, model.Degrades, model.Narrows} {
		if got := b.Diagnostics[i].Effect; got != want {
			t.Errorf("%v: effect %s, want %s", b.Diagnostics[i], got, want)
		}
	}
	if b.Diagnostics[0].IsError() || len(b.Broken) > 0 {
		t.Error("kinds that say nothing about traffic are no error")
	}
	if len(b.Objects) != 1 || b.Objects[0].Name != "v" || !b.Objects[0].Invalid {
		t.Errorf("an object of an unknown version has to be there, invalid: %v", b.Objects)
	}
}

func TestLastOfAName(t *testing.T) {
	const doc = "apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {n: %q}}\n---\n"
	b := decode(fmt.Sprintf(doc+doc, "1", "2"))
	if len(b.Objects) != 1 || b.Objects[0].Labels["n"] != "2" {
		t.Errorf("objects %v", keys(b.Objects))
	}
	wantLines(t, b.Diagnostics, "5 duplicate-object")
}

func TestAliasesAreBounded(t *testing.T) {
	text := "apiVersion: example.com/v1\nkind: Any\nmetadata: {name: g}\na: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'j'; c++ {
		text += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), c-1)
	}
	b := decode(text)
	if !slices.ContainsFunc(b.Diagnostics, func(d model.Diagnostic) bool { return d.Code == "too-large" }) || len(b.Diagnostics) > 2 {
		t.Errorf("not refused: %v", lines(b.Diagnostics))
	}
}

func TestFiles(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "", "a/z.yml": "", "a/x.json": "", "a/readme.md": "", ".git/c.yaml": "", "a/.hidden.yaml": "", "..data/d.yaml": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..data/d.yaml", filepath.Join(root, "d.yaml")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range Files([]string{root, filepath.Join(root, "b.yaml"), filepath.Join(root, "gone.yaml"), "-"}, strings.NewReader("x")) {
		name, _ := filepath.Rel(root, in.Name)
		if in.Name == "stdin" {
			name = in.Name
		}
		got = append(got, fmt.Sprintf("%s %t", name, in.Err == nil))
	}
	want := []string{"a/x.json true", "a/z.yml true", "b.yaml true", "d.yaml true", "gone.yaml false", "stdin true"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestBrokenYAMLHasItsLine(t *testing.T) {
	for text, want := range map[string]int{
		"a: 1\nb: [x, {y: 1]\nc: 2\n":    2,
		"a: 1\nb: 2\nc: [x\nd: 3\n":      3,
		"- a\nb: 1\n":                    2,
		"a: 1\n\tb: 2\n":                 2,
		"a: 1\nb: 'x\n":                  2,
		"kind: [broken\n":                1,
		"---\nkind: X\nspec: {a: 1\n---": 3,
	} {
		b := Decode(testRegistry(), Input{Name: "a.yaml", Data: []byte(text)})
		if len(b.Diagnostics) != 1 || b.Diagnostics[0].Code != "broken-yaml" || b.Diagnostics[0].Source.Line != want {
			t.Errorf("%q: %v, want line %d", text, b.Diagnostics, want)
		}
	}
}
