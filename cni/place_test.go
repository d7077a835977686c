// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPlaces(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	a, b := Place{"/etc/cni/net.d", "/opt/cni/bin"}, Place{"/var/lib/a,b %2f/net.d", "/x/../y"}
	for _, p := range []Place{b, a, a} {
		if err := AddPlace(run, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(run, placesFolder, "of somebody else"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Places(run); err != nil || !slices.Equal(got, []Place{a, b}) {
		t.Errorf("there are %v, %v", got, err)
	}
	// The plugin tells of a place that nobody knows.
	c := Config{RunDir: run, StateDir: "/etc/cni/net.d/fairlead"}
	if err := c.tellPlace("/other/bin"); err != nil {
		t.Fatal(err)
	}
	c.StateDir = "/k3s/net.d/fairlead"
	if err := c.tellPlace("/k3s/bin"); err != nil {
		t.Fatal(err)
	}
	c.StateDir = run // of a configuration that names none
	if err := c.tellPlace("/k3s/bin"); err != nil {
		t.Fatal(err)
	}
	if got, err := Places(run); err != nil || !slices.Equal(got, []Place{a, {"/k3s/net.d", "/k3s/bin"}, b}) {
		t.Errorf("there are %v, %v", got, err)
	}
	if err := os.Remove(filepath.Join(run, placesFolder, "of somebody else")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []Place{a, b, {"/k3s/net.d", "/k3s/bin"}, a} {
		if err := RemovePlace(run, p); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(run); err != nil || len(files) > 0 {
		t.Errorf("left: %v, %v", files, err)
	}
}
