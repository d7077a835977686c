// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"os"
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
