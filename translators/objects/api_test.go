// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// served decodes a manifest as one that an API server gave, of an object with a uid.
func served(t *testing.T, r *Registry, uid, text string) Edit {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(b, &body); err != nil {
		t.Fatal(err)
	}
	group, version, _ := strings.Cut(body["apiVersion"].(string), "/")
	typ, ok := r.Served(Kind{group, body["kind"].(string)}, []string{version, "v9"})
	if !ok {
		t.Fatalf("%s is not read", body["kind"])
	}
	e := DecodeAPI(typ, body)
	e.New.SetUID(uid)
	return e
}

func TestApplyKeepsLastGoodOfTheSameObject(t *testing.T) {
	r := testRegistry()
	s := NewSet(noCalls)
	ref := Ref{Kind{"specs.smi-spec.io", "HTTPRouteGroup"}, "default", "a"}
	typo := testGroup("a", "z") + "typo: 1\n"
	for _, step := range []struct {
		name    string
		edits   []Edit
		want    []string
		changes int
		said    []string
	}{
		{"never valid", []Edit{served(t, r, "1", typo)}, []string{"a z true"}, 1, []string{"unknown-field typo"}},
		{"valid", []Edit{served(t, r, "1", testGroup("a", "x"))}, []string{"a x false"}, 1, nil},
		{"as it was", []Edit{served(t, r, "1", testGroup("a", "x"))}, []string{"a x false"}, 0, nil},
		{"does not decode", []Edit{served(t, r, "1", typo)}, []string{"a x false"}, 0, []string{"last-good-kept ", "unknown-field typo"}},
		{"does not validate", []Edit{served(t, r, "1", testGroup("a", "bad"))}, []string{"a x false"}, 0, []string{"last-good-kept ", "bad matches[0].name"}},
		{"another of its name", []Edit{served(t, r, "2", typo)}, []string{"a z true"}, 1, []string{"unknown-field typo"}},
		{"two at once", []Edit{served(t, r, "2", testGroup("a", "w")), served(t, r, "2", typo)}, []string{"a w false"}, 1, []string{"last-good-kept ", "unknown-field typo"}},
		{"gone", []Edit{{Ref: ref}}, nil, 1, nil},
		{"gone already", []Edit{{Ref: ref}}, nil, 0, nil},
	} {
		changes, said := s.Apply(step.edits)
		var texts []string
		for _, d := range said[ref] {
			if d.Source.File != "" || d.Source.Line != 0 {
				t.Errorf("%s: source %s", step.name, d.Source)
			}
			texts = append(texts, d.Code+" "+d.Source.Field)
		}
		if got := inUse(s); !slices.Equal(got, step.want) || len(changes) != step.changes || !slices.Equal(texts, step.said) {
			t.Errorf("%s: in use %q, %d changes, said %q; want %q, %d, %q", step.name, got, len(changes), texts, step.want, step.changes, step.said)
		}
	}
}

func TestServedVersions(t *testing.T) {
	r := NewRegistry(Type{Kind: PodKind, Version: "v1beta1"}, Type{Kind: PodKind, Version: "v1"}, Type{Kind: PodKind, Version: "v2alpha1"})
	for _, c := range []struct{ served, want string }{{"v1 v1beta1 v2alpha1", "v1"}, {"v2alpha1 v1beta1 v9", "v1beta1"}, {"v2alpha1", "v2alpha1"}, {"v9", ""}, {"", ""}} {
		if got, ok := r.Served(PodKind, strings.Fields(c.served)); got.Version != c.want || ok != (c.want != "") {
			t.Errorf("of %q: %q, want %q", c.served, got.Version, c.want)
		}
	}
}

func TestKindsThatGuard(t *testing.T) {
	for k, want := range map[Kind]bool{NamespaceKind: true, PodKind: true, {"security.istio.io", "AuthorizationPolicy"}: true,
		{"access.smi-spec.io", "TrafficTarget"}: true, {"policy.linkerd.io", "Server"}: true, {"networking.istio.io", "VirtualService"}: false,
		{"split.smi-spec.io", "TrafficSplit"}: false} {
		if Guards(k) != want {
			t.Errorf("%s: %t", k, !want)
		}
	}
}

func TestDigestsTellVersionsApart(t *testing.T) {
	r := testRegistry()
	seen := map[[16]byte]string{}
	for _, c := range []struct{ uid, text string }{{"1", testGroup("a", "x")}, {"2", testGroup("a", "x")}, {"1", testGroup("a", "w")}, {"1", testGroup("b", "x")}, {"1", testGroup("a", "x") + "typo: 1\n"}} {
		d := served(t, r, c.uid, c.text).Digest()
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have one digest", other, fmt.Sprint(c))
		}
		seen[d] = fmt.Sprint(c)
		if served(t, r, c.uid, c.text).Digest() != d {
			t.Errorf("%s has two digests", fmt.Sprint(c))
		}
	}
}
