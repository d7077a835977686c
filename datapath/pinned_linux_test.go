// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPinsThatAreGone: it is said what is lost with the agent, and what to do.
func TestPinsThatAreGone(t *testing.T) {
	dir := t.TempDir()
	if n := pinned(dir); n.OK || !strings.Contains(n.Detail, "was the BPF file system unmounted?") || !strings.Contains(n.Detail, "restart the agent") {
		t.Errorf("%+v", n)
	}
	if err := os.Mkdir(filepath.Join(dir, linkDir), 0o755); err != nil {
		t.Fatal(err)
	}
	if n := pinned(dir); n.OK || !strings.Contains(n.Detail, "no BPF file system") {
		t.Errorf("%+v", n)
	}
}
