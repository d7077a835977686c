// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func recordOf(container string, at int64) Record {
	return Record{ID: ID{container, "eth0"}, Namespace: "shop", Pod: "web", UID: "u", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Link: Link{Index: 3, Name: "veth1", Cookie: 7}, At: time.Unix(at, 0).UTC()}
}

func TestRecords(t *testing.T) {
	run := t.TempDir()
	if got, err := ReadAll(run); got != nil || err != nil {
		t.Errorf("of none: %v, %v", got, err)
	}
	b, a := recordOf("b", 1), recordOf("a", 2)
	for _, r := range []Record{a, b} {
		if err := Write(run, r); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Read(run, a.ID); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%+v, %v, want %+v", got, err, a)
	}
	if got, err := ReadAll(run); err != nil || !reflect.DeepEqual(got, []Record{b, a}) {
		t.Errorf("%+v, %v: want the older one first", got, err)
	}
	// What somebody else leaves there costs nobody else anything, and is told of.
	for name, text := range map[string]string{".fairlead-1": "x", "other.json": "{", "none.json": "{}"} {
		if err := os.WriteFile(filepath.Join(run, Folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadAll(run)
	if len(got) != 2 || err == nil || !strings.Contains(err.Error(), "other.json") || !strings.Contains(err.Error(), "none.json") || strings.Contains(err.Error(), "fairlead-1") {
		t.Errorf("%v, %v", got, err)
	}
	if err := Keep(run, []ID{a.ID, {"c", "eth0"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadAll(run); err != nil || !reflect.DeepEqual(got, []Record{a}) {
		t.Errorf("%v, %v: want the valid one alone", got, err)
	}
	for range 2 {
		if err := Remove(run, a.ID); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if _, err := Read(run, a.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read what is gone: %v", err)
	}
}

func TestBadRecords(t *testing.T) {
	run := t.TempDir()
	for what, change := range map[string]func(*Record){
		"a path":       func(r *Record) { r.Container = "../../etc/x" },
		"no container": func(r *Record) { r.Container = "" },
		"no interface": func(r *Record) { r.IfName = "" },
		"a path's end": func(r *Record) { r.IfName = "a/b" },
		"no pod":       func(r *Record) { r.Pod = "" },
		"no addresses": func(r *Record) { r.Addresses = nil },
		"no address":   func(r *Record) { r.Addresses = []netip.Addr{{}} },
	} {
		r := recordOf("a", 1)
		if change(&r); Write(run, r) == nil {
			t.Errorf("%s is written", what)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"container": "a", "ifName": "eth0", "namespace": "n", "pod": "p", "addresses": ["10.0.0.1", "fd00::1"], "link": {"index": 3}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		run := t.TempDir()
		if err := Write(run, r); err != nil && len(r.ID.file()) < 255 {
			t.Fatalf("write what was read: %v", err)
		}
	})
}

func TestClosed(t *testing.T) {
	state := t.TempDir()
	c := func(f FailClosed) *Config {
		return &Config{FailClosed: f, Exempt: []string{"kube-system"}, StateDir: state}
	}
	check := func(what string, f FailClosed, namespace string, want bool, why string) {
		t.Helper()
		if got, said := c(f).IsClosed(namespace); got != want || !strings.Contains(said, why) {
			t.Errorf("%s: %s in %s is %t: %s", what, f, namespace, got, said)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(state, closedFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("before any agent", Governed, "shop", true, "has told yet")
	check("before any agent", Governed, "kube-system", false, "exempt")
	check("before any agent", Never, "shop", false, "")
	if err := WriteClosed(state, Closed{Namespaces: []string{"shop"}, Open: []string{"open"}}); err != nil {
		t.Fatal(err)
	}
	check("some", Governed, "shop", true, "governs the namespace")
	check("some", Governed, "open", false, "no policy")
	check("some", Governed, "newer", true, "no agent of this node has told of the namespace")
	check("some", Governed, "kube-system", false, "exempt")
	check("some", Never, "newer", false, "")
	check("some", Always, "open", true, "")
	check("some", Always, "kube-system", false, "")
	if err := WriteClosed(state, Closed{Everywhere: true}); err != nil {
		t.Fatal(err)
	}
	check("all", Governed, "open", true, "every namespace")
	check("all", Governed, "kube-system", false, "")
	if err := WriteClosed(state, Closed{Everywhere: true, Open: []string{"watched"}}); err != nil {
		t.Fatal(err)
	}
	check("all but one", Governed, "watched", false, "no policy")
	check("all but one", Governed, "open", true, "every namespace")
	check("all but one", Always, "watched", true, "")
	for _, text := range []string{"", "{", "{}", `{"everywhere": false}`, `{"namespaces": []}`, `{"everywhere": null, "namespaces": null}`, `[]`} {
		write(text)
		check("broken: "+text, Governed, "open", true, "not known")
		check("broken: "+text, Governed, "kube-system", false, "")
	}
	write(`{"everywhere": false, "namespaces": [], "open": ["open"], "more": 1}`)
	check("none", Governed, "open", false, "")
	// What an agent of before wrote lists nobody who is open.
	write(`{"everywhere": false, "namespaces": []}`)
	check("none is known", Governed, "open", true, "has told of the namespace")
}

func TestConfig(t *testing.T) {
	c, previous, err := ParseConfig([]byte(`{"name": "n", "type": "fairlead-cni", "prevResult": {"a":  1}}`))
	want := &Config{Type: "fairlead-cni", FailClosed: Governed, Exempt: []string{"kube-system", "fairlead-system"}, RunDir: "/run/fairlead", StateDir: "/run/fairlead",
		WaitSeconds: 10, AgentNamespace: "fairlead-system"}
	if err != nil || !reflect.DeepEqual(c, want) || string(previous) != `{"a":  1}` {
		t.Errorf("%+v, %s, %v", c, previous, err)
	}
	if c, _, err := ParseConfig([]byte(`{"exempt": [], "failClosed": "always"}`)); err != nil || len(c.Exempt) > 0 {
		t.Errorf("an empty list of exempt namespaces is one: %+v, %v", c, err)
	}
	for _, text := range []string{`{"failClosed": "no"}`, `{"waitSeconds": -1}`, `{"waitSeconds": 600}`, `{"exempt": "x"}`, `[]`, ``} {
		if _, _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
