// SPDX-License-Identifier: Apache-2.0

package swap

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/translators/objects"
)

const manifests = `# everything
apiVersion: v1
kind: Service
metadata: {name: shop,   namespace: shop}
---
# the shop
apiVersion: v1
kind: Namespace
metadata:
  name: shop # its name
  labels: {istio-injection: enabled}
--- # more
apiVersion: v1
kind: Namespace
metadata: {name: other, annotations: {fairlead.io/control-plane: istio}}
`

func TestOwnerIsWrittenAmongOthers(t *testing.T) {
	one, was, err := SetOwner([]byte(manifests), "shop", "smi")
	if err != nil || was != None {
		t.Fatalf("was %q, %v", was, err)
	}
	want := `# everything
apiVersion: v1
kind: Service
metadata: {name: shop,   namespace: shop}
---
# the shop
apiVersion: v1
kind: Namespace
metadata:
  name: shop # its name
  labels: {istio-injection: enabled}
  annotations:
    fairlead.io/control-plane: smi
    fairlead.io/previous-control-plane: none
--- # more
apiVersion: v1
kind: Namespace
metadata: {name: other, annotations: {fairlead.io/control-plane: istio}}
`
	if string(one) != want {
		t.Errorf("got\n%s", one)
	}
	if p := Previous(one, "shop"); p != None {
		t.Errorf("previous %q", p)
	}
	back, was, err := SetOwner(one, "shop", None)
	if err != nil || was != "smi" {
		t.Fatalf("was %q, %v", was, err)
	}
	if again, was, err := SetOwner(back, "shop", "istio"); err != nil || was != None {
		t.Errorf("after back: was %q, %v\n%s", was, err, again)
	}
	two, was, err := SetOwner([]byte(manifests), "other", "gateway")
	if err != nil || was != "istio" || Previous(two, "other") != "istio" {
		t.Errorf("was %q, %v", was, err)
	}
	if _, _, err := SetOwner([]byte(manifests), "nobody", "smi"); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("error %v", err)
	}
}

func files(dir string) []objects.Input { return objects.Files([]string{dir}, nil) }

func TestChangedFilesAreNamed(t *testing.T) {
	in := func(name, text string) objects.Input { return objects.Input{Name: name, Data: []byte(text)} }
	before := []objects.Input{in("a", "1"), in("b", "1"), in("c", "1")}
	if got := Changed(before, before); got != nil {
		t.Errorf("nothing has changed, but %v", got)
	}
	if got := Changed(before, []objects.Input{in("d", "1"), in("c", "2"), in("a", "1")}); !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("changed: %v", got)
	}
}

func TestFileOfNamespace(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", manifests)
	write(".hidden.yaml", manifests)
	write("notes.txt", manifests)
	file, err := File(files(dir), "shop")
	if err != nil || filepath.Base(file) != "a.yaml" {
		t.Fatalf("file %q, %v", file, err)
	}
	if err := WriteOwner(file, "shop", None, "smi"); err != nil {
		t.Fatal(err)
	}
	if err := WriteOwner(file, "shop", None, "linkerd"); err == nil || !strings.Contains(err.Error(), "is smi's meanwhile") {
		t.Errorf("somebody else's swap is overwritten: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := File(files(dir), "nobody"); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("error %v", err)
	}
	write("b.yaml", manifests)
	if _, err := File(files(dir), "shop"); err == nil {
		t.Error("two files have the namespace, and one is chosen")
	}
}

func TestOwnerIsWrittenInOtherForms(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"JSON", `{"apiVersion": "v1", "kind": "Namespace",
  "metadata": {"name": "shop", "labels": {}, "annotations": {"a": "<é\"1>", "b": ""}}, "status": {"x": [1, 2.50, null, true]}}
`, `{
  "apiVersion": "v1",
  "kind": "Namespace",
  "metadata": {
    "name": "shop",
    "labels": {},
    "annotations": {
      "a": "<é\"1>",
      "b": "",
      "fairlead.io/control-plane": "smi",
      "fairlead.io/previous-control-plane": "none"
    }
  },
  "status": {
    "x": [
      1,
      2.50,
      null,
      true
    ]
  }
}
`},
		{"a list", `apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Namespace, metadata: {name: other}}
  - {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
`, `apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Namespace, metadata: {name: other}}
  - {apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {fairlead.io/control-plane: smi, fairlead.io/previous-control-plane: none}}}
`},
		{"behind the mark of a document", "--- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n",
			"---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {fairlead.io/control-plane: smi, fairlead.io/previous-control-plane: none}}}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, was, err := SetOwner([]byte(c.text), "shop", "smi")
			if err != nil || was != None || string(got) != c.want {
				t.Fatalf("was %q, %v\n%s", was, err, got)
			}
			if p := Previous(got, "shop"); p != None {
				t.Errorf("previous %q", p)
			}
		})
	}
	twice := manifests + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
	if _, _, err := SetOwner([]byte(twice), "shop", "smi"); err == nil || errors.Is(err, ErrNoNamespace) {
		t.Errorf("the namespace stands there twice, and one is chosen: %v", err)
	}
}

func TestLinksAndModesStay(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, ".data", "a.yaml")
	link := filepath.Join(dir, "a.yaml")
	if err := errors.Join(os.Mkdir(filepath.Dir(target), 0o700), os.WriteFile(target, []byte(manifests), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	file, err := File(files(dir), "shop")
	if err != nil || file != link {
		t.Fatalf("file %q, %v", file, err)
	}
	if err := WriteOwner(file, "shop", None, "smi"); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != target {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if text, err := os.ReadFile(target); err != nil || Previous(text, "shop") != None {
		t.Errorf("the file behind the link is not written: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(target)); err != nil || len(left) != 1 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if err := os.Chmod(target, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := WriteOwner(file, "shop", "smi", "istio"); err == nil {
		t.Error("a file that is not to be written was")
	}
}

func TestWatchCountsTheNamespace(t *testing.T) {
	flows := []hubble.Flow{
		{Service: "shop/web:80", Verdict: "forwarded", HTTP: &hubble.HTTP{Status: 200}},
		{Service: "shop/web:80", Verdict: "forwarded", HTTP: &hubble.HTTP{Status: 404}},
		{Service: "shop/web:80", Verdict: "forwarded", HTTP: &hubble.HTTP{Status: 503}},
		{Service: "shop-2/web:80", Verdict: "forwarded", HTTP: &hubble.HTTP{Status: 503}},
		{Destination: hubble.Peer{Pod: "shop/web-1"}, Verdict: "dropped"},
		{Destination: hubble.Peer{Pod: "shop/web-1"}, Verdict: "redirected"},
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := Watch(ctx, "shop", func(_ context.Context, _ func(), f func(hubble.Flow)) error {
		for _, x := range flows {
			f(x)
		}
		return errors.New("gone")
	})
	w.wait.Wait()
	cancel()
	if c := w.Next(); c != (Counts{All: 4, Failed: 2}) {
		t.Errorf("counts %+v", c)
	}
	if c := w.Next(); c != (Counts{}) {
		t.Errorf("counted twice: %+v", c)
	}
	if len(w.Errors()) != 1 {
		t.Errorf("errors %v", w.Errors())
	}
	l := Limits{Rate: 0.01, Least: 5}
	for _, c := range []struct {
		before, after Counts
		worse         bool
	}{
		{Counts{100, 0}, Counts{100, 4}, false}, // few
		{Counts{100, 0}, Counts{100, 5}, true},
		{Counts{100, 5}, Counts{100, 6}, false}, // as before
		{Counts{}, Counts{10, 10}, true},
		{Counts{100, 11}, Counts{500, 70}, false}, // by chance
		{Counts{100, 11}, Counts{500, 90}, true},
	} {
		if got := l.Worse(c.before, c.after); got != c.worse {
			t.Errorf("%+v then %+v: %v", c.before, c.after, got)
		}
	}
}

// Nothing is counted before everybody is heard: of an agent that is far away, nothing would
// be.
func TestWatchBeginsWithTheLast(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	one := hubble.Flow{Service: "shop/web:80", Verdict: "forwarded", HTTP: &hubble.HTTP{Status: 200}}
	reached, more := make(chan struct{}), make(chan struct{})
	source := func(ctx context.Context, begun func(), f func(hubble.Flow)) error {
		begun()
		f(one)
		close(reached)
		<-more
		f(one)
		<-ctx.Done()
		return nil
	}
	far := make(chan struct{})
	w := Watch(ctx, "shop", source, func(ctx context.Context, begun func(), _ func(hubble.Flow)) error {
		<-far
		begun()
		<-ctx.Done()
		return nil
	}, func(context.Context, func(), func(hubble.Flow)) error { return errors.New("not there") })
	<-reached
	time.AfterFunc(50*time.Millisecond, func() { close(far) })
	w.Begin()
	select {
	case <-far:
	default:
		t.Error("it began without the last")
	}
	if c := w.Next(); c != (Counts{}) {
		t.Errorf("counted before it began: %+v", c)
	}
	close(more)
	cancel()
	w.wait.Wait()
	if c := w.Next(); c.All != 1 || len(w.Errors()) != 1 {
		t.Errorf("counted %+v, errors %v", c, w.Errors())
	}
}
