// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOwnProxiesAreKept(t *testing.T) {
	dir := t.TempDir()
	if all, err := LoadOwn(dir); err != nil || len(all) != 0 {
		t.Errorf("without a file there are %v, %v", all, err)
	}
	want := []Own{{"shop", 1, 128 << 20}, {"store", 3, 512 << 20}}
	if err := SaveOwn(dir, []Own{want[1], want[0]}); err != nil {
		t.Fatal(err)
	}
	if all, err := LoadOwn(dir); err != nil || !slices.Equal(all, want) {
		t.Errorf("there are %v, %v; want %v", all, err, want)
	}
	for what, all := range map[string][]Own{
		"two of a slot": {{"shop", 1, 1}, {"store", 1, 1}},
		"slot 0":        {{"shop", 0, 1}}, // is the node's
		"no name":       {{"", 2, 1}},
	} {
		if err := SaveOwn(dir, all); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadOwn(dir); err == nil {
			t.Errorf("%s: %v", what, got)
		}
	}
	if err := os.WriteFile(ownFile(dir), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOwn(dir); err == nil || !strings.Contains(err.Error(), ownFile(dir)) {
		t.Errorf("half a file: %v", err)
	}
}

// What a namespace's proxy had accepted is not served to the next namespace of the slot, and
// nobody's when the node was given back.
func TestAnothersStateIsForgotten(t *testing.T) {
	dir := t.TempDir()
	shop, store := Own{"shop", 1, 1}, Own{"store", 1, 1}
	state := PathsIn(shop.Dir(dir)).State
	write := func() {
		t.Helper()
		if err := os.WriteFile(state, []byte("state"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	there := func() bool { _, err := os.Stat(state); return err == nil }
	settle := func(o Own, want bool) {
		t.Helper()
		if err := o.settle(dir); err != nil {
			t.Fatal(err)
		}
		if got := there(); got != want {
			t.Errorf("for %s the state of before is there: %v", o.Name, got)
		}
	}
	settle(shop, false)
	write()
	settle(shop, true)
	settle(store, false)
	write()
	if err := SaveOwn(dir, []Own{store}); err != nil {
		t.Fatal(err)
	}
	if err := GiveBack(dir); err != nil {
		t.Fatal(err)
	}
	all, err := LoadOwn(dir)
	if there() || err != nil || len(all) > 0 || !PathsIn(store.Dir(dir)).isGivenBack() {
		t.Errorf("of a node that was given back there are %v, %v, and the state: %v", all, err, there())
	}
	if err := TakeUp(dir); err != nil {
		t.Fatal(err)
	}
	if PathsIn(store.Dir(dir)).isGivenBack() {
		t.Errorf("%s is nobody's though the node was taken up", filepath.Base(store.Dir(dir)))
	}
}

func TestRoomForNamespaces(t *testing.T) {
	two := []Own{{"shop", 1, 128 << 20}, {"store", 2, 512 << 20}}
	for memory, want := range map[uint64]string{
		0: "", 1 << 30: "", 768 << 20: "", 767 << 20: "they may use 640 MiB, of 767 MiB for all",
	} {
		if got := tooMuch(two, memory); got != want {
			t.Errorf("of %d MiB: %q, want %q", memory>>20, got, want)
		}
	}
}
