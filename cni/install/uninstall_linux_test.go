// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.io/fairlead/cni"
)

// An agent that is told of other folders takes the plugin out of those that an earlier one
// was told of: nobody else will.
func TestOtherFolders(t *testing.T) {
	for name, change := range map[string]func(n *node){
		"both":           func(n *node) { n.ConfDir += "-new"; n.BinDir += "-new" },
		"configurations": func(n *node) { n.ConfDir += "-new" },
		"plugins":        func(n *node) { n.BinDir += "-new" },
	} {
		t.Run(name, func(t *testing.T) {
			old := newNode(t)
			old.write("10-a.conflist", listText)
			old.OwnList = true
			old.ensure("10-a.00-fairlead.conflist", true)
			if err := cni.WriteClosed(old.StateDir(), cni.Closed{}); err != nil {
				t.Fatal(err)
			}
			n := old
			change(&n)
			if n.ConfDir != old.ConfDir {
				if err := os.Mkdir(n.ConfDir, 0o755); err != nil {
					t.Fatal(err)
				}
				n.write("10-a.conflist", listText)
			}
			n.ensure("10-a.00-fairlead.conflist", true)
			n.ensure("10-a.00-fairlead.conflist", false)
			if n.ConfDir != old.ConfDir {
				if got := old.names(); len(got) != 1 || old.read("10-a.conflist") != listText {
					t.Errorf("where it was is %v", got)
				}
			}
			if _, err := os.Stat(filepath.Join(old.BinDir, cni.Type)); (err == nil) != (n.BinDir == old.BinDir) {
				t.Errorf("the plugin where it was: %v", err)
			}
			if _, err := os.Stat(filepath.Join(n.BinDir, cni.Type)); err != nil {
				t.Error(err)
			}
			if _, err := Uninstall(n.Options); err != nil {
				t.Fatal(err)
			}
			if got := n.names(); len(got) != 1 || n.read("10-a.conflist") != listText {
				t.Errorf("after all there is %v", got)
			}
			if left, err := os.ReadDir(n.Config.RunDir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// Whoever gives a node back may have been told of no folder, or of others than the agent.
func TestUninstallFindsWhereItWas(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"other folders": func(o *Options) { o.ConfDir, o.BinDir = o.ConfDir+"-no", o.BinDir+"-no" },
		"none":          func(o *Options) { o.ConfDir, o.BinDir = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.write("10-a.conflist", listText)
			n.ensure("10-a.conflist", true)
			o := n.Options
			change(&o)
			if changed, err := Uninstall(o); err != nil || len(changed) != 2 {
				t.Errorf("changed %v, %v", changed, err)
			}
			if n.read("10-a.conflist") != listText {
				t.Error("the configuration is not as it was")
			}
			if _, err := os.Stat(filepath.Join(n.BinDir, cni.Type)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the plugin: %v", err)
			}
		})
	}
}

// A container that was not given the folder goes by the node's root, whose links are
// the node's.
func TestUninstallBelowTheNodesRoot(t *testing.T) {
	n := newNode(t)
	n.write("10-real.conflist", listText)
	if err := os.Symlink("10-real.conflist", n.path("05-link.conflist")); err != nil {
		t.Fatal(err)
	}
	n.ensure("05-link.conflist", true)
	// The same, as its node has it: /cni -> /var/cni, /opt -> var/opt.
	root := t.TempDir()
	for _, dir := range []string{"var/cni", "var/opt"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"cni": "/var/cni", "opt": "var/../var/opt", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{n.ConfDir: "var/cni/net.d", n.BinDir: "var/opt/bin"} {
		if err := os.Rename(from, filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
	}
	run := n.Config.RunDir
	if err := errors.Join(cni.RemovePlace(run, n.place()), cni.AddPlace(run, cni.Place{ConfDir: "/cni/net.d", BinDir: "/opt/bin"})); err != nil {
		t.Fatal(err)
	}
	changed, err := Uninstall(Options{Config: n.Config, NodeRoot: root})
	if err != nil || strings.Join(changed, " ") != "/var/cni/net.d/05-link.conflist /var/opt/bin/fairlead-cni" {
		t.Errorf("changed %v, %v", changed, err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "var/cni/net.d/10-real.conflist")); err != nil || string(text) != listText {
		t.Errorf("the configuration is %s, %v", text, err)
	}
	if places, err := cni.Places(run); err != nil || len(places) > 0 {
		t.Errorf("places are %v, %v", places, err)
	}
	if _, err := within(root, "/loop/x"); err == nil {
		t.Error("a loop was followed")
	}
	if got, err := within(root, "/../../cni/../../opt"); err != nil || got != root+"/var/opt" {
		t.Errorf("%s, %v", got, err)
	}
}
