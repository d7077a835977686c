// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/cni"
)

const listText = `{"cniVersion": "1.0.0", "name": "n", "plugins": [ {"type": "ptp"} ]}` + "\n"

// node is a node's folders.
type node struct {
	*testing.T
	Options
}

func newNode(t *testing.T) node {
	dir := t.TempDir()
	n := node{t, Options{ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "opt/bin"), Binary: filepath.Join(dir, "plugin"),
		Config: cni.Config{FailClosed: cni.Governed, RunDir: filepath.Join(dir, "run"), WaitSeconds: 10}}}
	if err := os.Mkdir(n.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Binary, []byte("program"), 0o644); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n node) path(name string) string { return filepath.Join(n.ConfDir, name) }

func (n node) write(name, text string) {
	n.Helper()
	if err := os.WriteFile(n.path(name), []byte(text), 0o640); err != nil {
		n.Fatal(err)
	}
}

func (n node) read(name string) string {
	n.Helper()
	text, err := os.ReadFile(n.path(name))
	if err != nil {
		n.Fatal(err)
	}
	return string(text)
}

func (n node) names() []string {
	n.Helper()
	files, err := os.ReadDir(n.ConfDir)
	if err != nil {
		n.Fatal(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, f.Name())
	}
	return out
}

func (n node) ensure(where string, changed bool) {
	n.Helper()
	got, did, err := Ensure(n.Options)
	if err != nil || got != n.path(where) || did != changed {
		n.Errorf("it is in %s, changed %t, %v: want %s, %t", got, did, err, n.path(where), changed)
	}
}

func TestList(t *testing.T) {
	n := newNode(t)
	n.write("10-a.conflist", listText)
	n.write("20-b.conflist", listText)
	n.write("00-readme.txt", "not a configuration")
	n.ensure("10-a.conflist", true)
	n.ensure("10-a.conflist", false)
	if text := n.read("10-a.conflist"); !strings.Contains(text, `"type":"fairlead-cni"`) || !strings.Contains(text, `"stateDir":"`+n.StateDir()+`"`) {
		t.Errorf("it is %s", text)
	}
	if info, err := os.Stat(n.path("10-a.conflist")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if n.read("20-b.conflist") != listText {
		t.Error("another configuration has changed")
	}
	binary := filepath.Join(n.BinDir, cni.Type)
	if info, err := os.Stat(binary); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the plugin: %v, %v", info, err)
	}
	if err := os.WriteFile(n.Binary, []byte("newer program"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.ensure("10-a.conflist", true)
	if text, _ := os.ReadFile(binary); string(text) != "newer program" {
		t.Errorf("the plugin is %s", text)
	}
	if err := cni.WriteClosed(n.StateDir(), cni.Closed{}); err != nil {
		t.Fatal(err)
	}
	// Somebody else's installation of another run folder is not this one's.
	other := n.Options
	other.Config.RunDir = "/run/other"
	if changed, err := Uninstall(other); len(changed) > 0 || err != nil {
		t.Errorf("another installation changed %v, %v", changed, err)
	}
	records := filepath.Join(n.Config.RunDir, cni.Folder)
	if err := os.MkdirAll(records, 0o755); err != nil {
		t.Fatal(err)
	}
	changed, err := Uninstall(n.Options)
	if want := []string{n.path("10-a.conflist"), n.StateDir(), binary, records}; err != nil || !slices.Equal(changed, want) {
		t.Errorf("changed %v, %v, want %v", changed, err, want)
	}
	if n.read("10-a.conflist") != listText || n.read("20-b.conflist") != listText {
		t.Error("the configurations are not as they were")
	}
	if got := n.names(); !slices.Equal(got, []string{"00-readme.txt", "10-a.conflist", "20-b.conflist"}) {
		t.Errorf("there is %v", got)
	}
	if changed, err := Uninstall(n.Options); len(changed) > 0 || err != nil {
		t.Errorf("again: %v, %v", changed, err)
	}
}

// A configuration of one plugin is not touched: a list is put before it.
func TestSinglePlugin(t *testing.T) {
	for _, name := range []string{"10-a.conf", "10-a.json"} {
		t.Run(name, func(t *testing.T) {
			const conf = `{"cniVersion": "0.3.1", "name": "n", "type": "bridge"}`
			n := newNode(t)
			n.write(name, conf)
			n.write("20-b.conflist", listText)
			n.ensure("10-a.00-fairlead.conflist", true)
			n.ensure("10-a.00-fairlead.conflist", false)
			if got := n.names(); !slices.Equal(got, []string{"10-a.00-fairlead.conflist", name, "20-b.conflist"}) {
				t.Errorf("there is %v: the runtime takes the first", got)
			}
			// Its owner gives it another version, and then a list in its place.
			n.write(name, strings.ReplaceAll(conf, "bridge", "ptp"))
			n.ensure("10-a.00-fairlead.conflist", true)
			if text := n.read("10-a.00-fairlead.conflist"); !strings.Contains(text, "ptp") {
				t.Errorf("it is %s", text)
			}
			if err := os.Rename(n.path(name), n.path("30-a.conf")); err != nil {
				t.Fatal(err)
			}
			n.ensure("20-b.conflist", true)
			if got := n.names(); !slices.Equal(got, []string{"20-b.conflist", "30-a.conf"}) {
				t.Errorf("there is %v: want nothing of a configuration that is gone", got)
			}
			if err := os.Remove(n.path("20-b.conflist")); err != nil {
				t.Fatal(err)
			}
			n.ensure("30-a.00-fairlead.conflist", true)
			if changed, err := Uninstall(n.Options); err != nil || len(changed) != 2 {
				t.Errorf("changed %v, %v", changed, err)
			}
			if got := n.names(); !slices.Equal(got, []string{"30-a.conf"}) {
				t.Errorf("there is %v", got)
			}
		})
	}
}

// A node's CNI plugin writes its list anew as the node starts, before there is an agent:
// the runtime goes on with a list of ours, which has the plugin.
func TestOwnList(t *testing.T) {
	const own = "10-a.00-fairlead.conflist"
	n := newNode(t)
	n.OwnList = true
	n.write("10-a.conflist", listText)
	n.write("20-b.conflist", listText)
	n.ensure(own, true)
	n.ensure(own, false)
	if got := n.names(); got[0] != own {
		t.Errorf("there is %v: the runtime takes the first", got)
	}
	if n.read(own) != n.read("10-a.conflist") || !strings.Contains(n.read(own), cni.Type) {
		t.Errorf("they are %s and %s", n.read(own), n.read("10-a.conflist"))
	}
	if info, err := os.Stat(n.path(own)); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	n.write("10-a.conflist", listText)
	if got := n.names(); got[0] != own || !strings.Contains(n.read(own), cni.Type) {
		t.Error("the list is not there without an agent")
	}
	newer := strings.ReplaceAll(listText, "ptp", "bridge")
	n.write("10-a.conflist", newer)
	n.ensure(own, true)
	if !strings.Contains(n.read(own), "bridge") {
		t.Errorf("it is %s", n.read(own))
	}
	// One that is being written has no say; one that cannot have the plugin is in use as it is.
	n.write("10-a.conflist", newer[:20])
	if _, _, err := Ensure(n.Options); err == nil || !strings.Contains(n.read(own), "bridge") {
		t.Errorf("of half a list: %v", err)
	}
	n.write("10-a.conflist", strings.ReplaceAll(newer, "1.0.0", "0.1.0"))
	if _, _, err := Ensure(n.Options); err == nil || slices.Contains(n.names(), own) {
		t.Errorf("of a version without chains: %v, and there is %v", err, n.names())
	}
	n.write("10-a.conflist", newer)
	n.ensure(own, true)
	without := n.Options
	without.OwnList = false
	if where, _, err := Ensure(without); err != nil || where != n.path("10-a.conflist") || slices.Contains(n.names(), own) {
		t.Errorf("without: it is in %s, %v, and there is %v", where, err, n.names())
	}
	n.ensure(own, true)
	if _, err := Uninstall(n.Options); err != nil {
		t.Error(err)
	}
	if got := n.names(); !slices.Equal(got, []string{"10-a.conflist", "20-b.conflist"}) || n.read("10-a.conflist") != newer {
		t.Errorf("there is %v, and %s", got, n.read("10-a.conflist"))
	}
	// Where the list is a link, ours is in use alone.
	elsewhere := filepath.Join(t.TempDir(), "x.conflist")
	if err := os.Rename(n.path("10-a.conflist"), elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, n.path("10-a.conflist")); err != nil {
		t.Fatal(err)
	}
	n.ensure(own, true)
	if n.read("10-a.conflist") != newer {
		t.Errorf("what the link leads to is %s", n.read("10-a.conflist"))
	}
}

// What is not understood is left as it is, and told of.
func TestUnusable(t *testing.T) {
	n := newNode(t)
	if _, _, err := Ensure(n.Options); err == nil || !strings.Contains(err.Error(), "no network configuration in "+n.ConfDir) {
		t.Errorf("of none: %v", err)
	}
	for name, text := range map[string]string{"10-a.conflist": `{"plugins": [`, "10-a.conf": "", "10-b.conflist": `{"cniVersion": "0.1.0", "name": "n", "plugins": [{"type": "x"}]}`} {
		n.write(name, text)
		if _, _, err := Ensure(n.Options); err == nil || !strings.Contains(err.Error(), n.path(name)) {
			t.Errorf("%s: %v", name, err)
		}
		if n.read(name) != text {
			t.Errorf("%s has changed", name)
		}
		if err := os.Remove(n.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	// A list that is a link elsewhere is somebody's arrangement.
	elsewhere := filepath.Join(t.TempDir(), "x.conflist")
	if err := os.WriteFile(elsewhere, []byte(listText), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, n.path("10-a.conflist")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Ensure(n.Options); err == nil || !strings.Contains(err.Error(), "is a link") {
		t.Errorf("a link: %v", err)
	}
	if _, err := Uninstall(Options{ConfDir: filepath.Join(n.ConfDir, "none")}); err != nil {
		t.Errorf("a node without configurations: %v", err)
	}
}

// What its owner writes while it is edited is not lost.
func TestOwnerWritesMeanwhile(t *testing.T) {
	n := newNode(t)
	n.write("10-a.conflist", listText)
	newer := strings.ReplaceAll(listText, "ptp", "bridge")
	_, err := edit(n.path("10-a.conflist"), func(text []byte) ([]byte, error) {
		n.write("10-a.conflist", newer)
		return Add(text, ours)
	})
	if !errors.Is(err, errChanged) || n.read("10-a.conflist") != newer {
		t.Errorf("%v: it is %s", err, n.read("10-a.conflist"))
	}
	if got := n.names(); !slices.Equal(got, []string{"10-a.conflist"}) {
		t.Errorf("there is %v", got)
	}
}

// Who owns the configuration writes it anew, and takes it away and brings another one.
func TestKeep(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	var mu sync.Mutex
	var where string
	var problem error
	go func() {
		done <- Keep(ctx, n.Options, func(w string, err error) {
			mu.Lock()
			defer mu.Unlock()
			where, problem = w, err
		})
	}()
	is := func(what, name string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			text, _ := os.ReadFile(n.path(name))
			mu.Lock()
			w, p := where, problem
			mu.Unlock()
			if bytes.Contains(text, []byte(cni.Type)) && w == n.path(name) && p == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: it is in %q, %v, and the file is %s", what, w, p, text)
			}
		}
	}
	n.write("10-a.conflist", listText)
	is("it comes", "10-a.conflist")
	n.write("10-a.conflist", strings.ReplaceAll(listText, "ptp", "bridge"))
	is("its owner writes it anew", "10-a.conflist")
	n.write(".10-tmp", listText)
	if err := os.Rename(n.path(".10-tmp"), n.path("10-a.conflist")); err != nil {
		t.Fatal(err)
	}
	is("its owner replaces it", "10-a.conflist")
	n.write("05-b.conf", `{"cniVersion": "0.4.0", "name": "n", "type": "ptp"}`)
	is("another one comes before it", "05-b.00-fairlead.conflist")
	if err := os.Remove(n.path("05-b.conf")); err != nil {
		t.Fatal(err)
	}
	is("that goes", "10-a.conflist")
	if got := n.names(); !slices.Equal(got, []string{"10-a.conflist"}) {
		t.Errorf("there is %v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
