// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/cni/install"
)

// A file that cannot be edited keeps nothing in the kernel, and both are told.
func TestGiveBackBoth(t *testing.T) {
	conf := t.TempDir()
	broken := filepath.Join(conf, "10-broken.conflist")
	if err := os.WriteFile(broken, []byte(`{"plugins": [{"type": "`+cni.Type+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	called := false
	_, err := giveBackBoth(install.Options{ConfDir: conf, BinDir: t.TempDir()}, func() error {
		called = true
		return errors.New("a map stays")
	})
	if !called {
		t.Error("the kernel's part was not done")
	}
	for _, want := range []string{broken, "take it out by hand", "a map stays"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
	if _, err := giveBackBoth(install.Options{}, func() error { return nil }); err != nil {
		t.Errorf("without a plugin: %v", err)
	}
}
