// SPDX-License-Identifier: Apache-2.0

package version

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc"}}
	for _, c := range []struct {
		release string
		info    debug.BuildInfo
		want    string
	}{
		{"v1.2.3", debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}, Settings: commit}, "v1.2.3"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}, Settings: commit}, "v1.0.0"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: commit}, "abc"},
		{"", debug.BuildInfo{}, Unknown},
	} {
		if got := of(c.release, &c.info); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
	}
}

// What Makefile and images are built with reaches the program, and is the same each time.
func TestBuilt(t *testing.T) {
	root := filepath.Join("..", "..")
	flag := func() string {
		out, err := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "version.sh")).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	first := flag()
	if !regexp.MustCompile(`^-X=fairlead\.io/fairlead/internal/version\.release=v[0-9]+\.[0-9]+\.[0-9]+\S*$`).MatchString(first) {
		t.Fatalf("hack/version.sh says %q", first)
	}
	if again := flag(); again != first {
		t.Errorf("first %s, then %s", first, again)
	}
	out := filepath.Join(t.TempDir(), "fairlead")
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags", first, "-o", out, filepath.Join(root, "cmd", "fairlead")).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, text)
	}
	text, err := exec.CommandContext(t.Context(), out, "version").Output()
	_, want, _ := strings.Cut(first, "release=")
	if err != nil || !strings.Contains(string(text), want) {
		t.Errorf("fairlead version: %v, %q, want %s", err, text, want)
	}
}
