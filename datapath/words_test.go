// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The datapath does not know which control plane a rule came from.
func TestNoControlPlaneWord(t *testing.T) {
	// Split, so that this file passes too.
	words := []string{"ist" + "io", "sm" + "i-", "serviceme" + "shinterface", "linke" + "rd", "virtual" + "service",
		"traffic" + "split", "gateway" + "-api", "gateway" + " api", "http" + "route", "destination" + "rule"}
	for _, root := range []string{".", "../bpf"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b = bytes.ToLower(b)
			for _, w := range words {
				if bytes.Contains(b, []byte(w)) {
					t.Errorf("%s contains %q", path, w)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
