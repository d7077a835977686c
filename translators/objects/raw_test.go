// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every object that is cut out decodes to what it was in its file, line by line.
func TestCutKeepsLines(t *testing.T) {
	const in = `# a comment
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a, namespace: shop}
  spec:
    ports:
    - {port: 80}

- apiVersion: example.com/v1
  kind: Widget
  metadata: {name: w}
  text: |
    one

    two
---
{"apiVersion":"v1","kind":"List","items":[
	{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"}}]}
---
kind: 3
---
a: [
`
	raws, rest, diags := Cut(Input{Name: "in.yaml", Data: []byte(in)})
	wantLines(t, diags, "28 not-an-object", "30 broken-yaml")
	if b := Decode(NewRegistry(), rest); len(b.Objects) > 0 || !b.Broken["in.yaml"] {
		t.Errorf("the rest has objects, or is not broken: %s", rest.Data)
	}
	var got []string
	for _, r := range raws {
		got = append(got, r.Kind.Kind+"/"+r.Namespace+"/"+r.Name)
	}
	if s := strings.Join(got, " "); s != "Namespace//shop Service/shop/a Widget//w Service//b" {
		t.Fatalf("cut %s", s)
	}
	for i, want := range []int{2, 10, 17, 26} {
		if raws[i].Line != want || raws[i].File != "in.yaml" {
			t.Errorf("%s at %s:%d, want line %d", got[i], raws[i].File, raws[i].Line, want)
		}
	}
	if !strings.HasSuffix(string(raws[2].Text), "text: |\n  one\n\n  two\n") {
		t.Errorf("text of the item:\n%s", raws[2].Text)
	}
	// Cut again, from a copy: the lines stay those of the first file.
	for _, r := range raws {
		again, _, diags := Cut(Input{Name: "copy.yaml", Data: r.Text})
		if len(diags) > 0 || len(again) != 1 || again[0].File != "in.yaml" || again[0].Line != r.Line {
			t.Errorf("second cut of %s: %+v %v", r.Name, again, diags)
		}
	}
	svc := decode(string(raws[1].Text)).Objects
	if len(svc) != 1 {
		t.Fatal("the service does not decode")
	}
	if file, line := svc[0].Place.Line("spec.ports[0].port"); file != "in.yaml" || line != 15 {
		t.Errorf("port at %s:%d", file, line)
	}
}

// Of what gave no object Decode says the same, and the rest of a rest is itself.
func TestCutLeavesTheRest(t *testing.T) {
	for _, in := range []string{
		"a: [\n", "# a comment\n\na: 1\nb: [\n\n---\nkind: x\n", "7\n", "\n\n---  {a: [\n---\n# nothing\n---\n- a\n",
		"# fairlead:source old.yaml:7\na: 1\nb: [\n", "# fairlead:source old.yaml:7 generated\na: 1\nb: [\n",
		"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- apiVersion: v1\n\n  kind: Pod\n- 7\n",
		`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"},` + "\n\t" + `{"apiVersion":"v1"}]}`,
		"apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop}\n",
	} {
		whole := Decode(testRegistry(), Input{Name: "in.yaml", Data: []byte(in)})
		_, rest, diags := Cut(Input{Name: "in.yaml", Data: []byte(in)})
		b := Decode(testRegistry(), rest)
		if d := cmp.Diff(diags, b.Diagnostics); d != "" || len(diags) == 0 {
			t.Errorf("%q (-cut, +decoded rest):\n%s", in, d)
		}
		if d := cmp.Diff(whole.Diagnostics, b.Diagnostics); d != "" {
			t.Errorf("%q (-decoded whole, +decoded rest):\n%s", in, d)
		}
		if d := cmp.Diff(whole.Broken, b.Broken); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
	unread := Input{Name: "in.yaml", Err: errors.New("no")}
	if _, rest, diags := Cut(unread); len(diags) != 1 || rest.Name != unread.Name || rest.Err != unread.Err {
		t.Errorf("rest of what cannot be read: %+v, %v", rest, diags)
	}
}
