// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the results into the cases")

// ours is the plugin's part in these tests.
var ours = []byte(`{"type":"fairlead-cni","failClosed":"governed"}`)

// Each case has an input (in.conflist or in.conf), and the output or the error.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want := a.Files[0], a.Files[1]
			var got []byte
			if in.Name == "in.conf" {
				got, err = Chain(in.Data, ours)
			} else {
				got, err = Add(in.Data, ours)
			}
			name := "out"
			if err != nil {
				name, got = "error", []byte(err.Error()+"\n")
			}
			if *update {
				a.Files[1] = txtar.File{Name: name, Data: got}
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want.Name != name || !bytes.Equal(want.Data, got) {
				t.Errorf("%s:\n%s\nwant %s:\n%s", name, got, want.Name, want.Data)
			}
			if name == "out" {
				roundTrip(t, in.Name, in.Data, got)
			}
		})
	}
}

// roundTrip checks what must be true of every output.
func roundTrip(t *testing.T, name string, in, out []byte) {
	t.Helper()
	if !json.Valid(out) {
		t.Errorf("it is no JSON: %s", out)
	}
	l, err := parseList(out)
	if err != nil {
		t.Fatal(err)
	}
	if i := l.find(); i != len(l.plugins)-1 {
		t.Errorf("the plugin is number %d of %d", i, len(l.plugins))
	}
	if again, err := Add(out, ours); err != nil || !bytes.Equal(again, out) {
		t.Errorf("put in again it is %s, %v", again, err)
	}
	bare, err := Remove(in)
	if name == "in.conf" || err != nil {
		return
	}
	if back, err := Remove(out); err != nil || !bytes.Equal(back, bare) {
		t.Errorf("without it it is %s, %v, and was %s", back, err, bare)
	}
}

func TestRemoveLeavesOthersAlone(t *testing.T) {
	for in, want := range map[string]string{
		`{"plugins":[{"type":"a"},{"type":"fairlead-cni"},{"type":"b"}]}`:                     `{"plugins":[{"type":"a"},{"type":"b"}]}`,
		`{"plugins":[{"type":"fairlead-cni"}, {"type":"b"}]}`:                                 `{"plugins":[{"type":"b"}]}`,
		`{"plugins":[{"type":"fairlead-cni"},{"type":"a"}, {"type":"fairlead-cni","x":[1]}]}`: `{"plugins":[{"type":"a"}]}`,
		`{"plugins":[ {"type":"fairlead-cni"} ]}`:                                             `{"plugins":[  ]}`,
		`{"plugins":[{"type":"a","x":"fairlead-cni"}]}`:                                       `{"plugins":[{"type":"a","x":"fairlead-cni"}]}`,
	} {
		if got, err := Remove([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%s is %s, %v, want %s", in, got, err, want)
		}
	}
}

func FuzzEdit(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		if a, err := txtar.ParseFile(file); err == nil {
			f.Add(a.Files[0].Data)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if out, err := Add(in, ours); err == nil {
			roundTrip(t, "in.conflist", in, out)
			// Nothing else is read in another way.
			var before, after map[string]any
			bare, err := Remove(in)
			if err != nil {
				t.Fatal(err)
			}
			if json.Unmarshal(bare, &before) != nil || json.Unmarshal(out, &after) != nil {
				t.Fatalf("it was JSON, and is none: %s", out)
			}
			plugins := after["plugins"].([]any)
			after["plugins"] = plugins[:len(plugins)-1]
			a, _ := json.Marshal(after)
			b, _ := json.Marshal(before)
			if !bytes.Equal(a, b) {
				t.Fatalf("%s is %s", b, a)
			}
		}
		if out, err := Chain(in, ours); err == nil {
			roundTrip(t, "in.conf", in, out)
		}
	})
}
