// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
)

// TestUpgrade takes agents and proxies of both nodes back to an earlier version and
// forward again, under load: to the previous release, and to the last version whose maps
// were laid out otherwise. Nothing fails, nothing forbidden comes through, and connections
// live on, those through Envoy too, unless that was replaced.
func TestUpgrade(t *testing.T) {
	for _, c := range []struct {
		name   string
		commit func(*testing.T) string
	}{
		{"previous release", previousRelease},
		{"other layout", otherLayout},
	} {
		t.Run(c.name, func(t *testing.T) {
			commit := c.commit(t)
			old := buildAt(t, commit)
			w := lives(t)
			current := filepath.Join(t.TempDir(), "current")
			if err := copyFile(w.Binary, current); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.become(t, current) })
			s := w.storm(t)
			time.Sleep(pause())
			w.become(t, old)
			time.Sleep(pause())
			w.become(t, current)
			time.Sleep(pause())
			s.end().none("from " + commit + " and back")
		})
	}
}

// git asks the repository.
func git(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return "" // a clone without history, say
	}
	return strings.TrimSpace(string(out))
}

// previousRelease is the last tag before now, or, as long as there is none, the commit
// before the last one that changed what runs on a node.
func previousRelease(t *testing.T) string {
	if tag := git(t, "describe", "--tags", "--abbrev=0", "HEAD^"); tag != "" {
		return tag
	}
	last := git(t, "log", "-1", "--format=%H", "HEAD^", "--", "../../agent/*.go", "../../bpf/*.o", "../../datapath/*.go", "../../proxy/*.go")
	if last == "" {
		t.Fatal("no history: nothing to come from")
	}
	return last + "^"
}

// otherLayout is the commit before the last one that changed the name of a map: a layout
// has its number there.
func otherLayout(t *testing.T) string {
	last := git(t, "log", "-1", "--format=%H", "-G", `fl_[a-z_]+_v[0-9]+`, "--", "../../bpf/*.h", "../../bpf/*.c")
	return cmp.Or(git(t, "rev-parse", "--verify", "--quiet", last+"^"), "HEAD^")
}

// buildAt builds the command of a commit.
func buildAt(t *testing.T, commit string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if out, err := exec.Command("git", "worktree", "add", "--detach", "--force", dir, commit).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("git", "worktree", "remove", "--force", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	bin := filepath.Join(t.TempDir(), "old")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/fairlead")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", commit, err, out)
	}
	t.Logf("comes from %s", git(t, "log", "-1", "--format=%h %s", commit))
	return bin
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// become has agents and proxies be another binary, node by node: the agent ends and
// starts, the proxy's process is exchanged under its Envoy.
func (w *world) become(t *testing.T, binary string) {
	t.Helper()
	next := w.Binary + ".next"
	if err := errors.Join(copyFile(binary, next), os.Rename(next, w.Binary)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*twonodes.Patience)
	defer cancel()
	for _, node := range w.Nodes() {
		for what, sig := range map[string]syscall.Signal{"agent": syscall.SIGTERM, "proxy": syscall.SIGKILL} {
			if err := errors.Join(lab.Stop(ctx, w.Name, node, what, sig), lab.Start(ctx, w.Name, node, what)); err != nil {
				t.Errorf("%s of %s: %v", what, node, err)
			}
		}
		if err := w.Applied(ctx); err != nil {
			t.Error(err)
		}
	}
	w.awaitEnvoys(t)
	for _, node := range w.Nodes() {
		w.awaitStatus(t, node, "the end of replaced Envoys", func(s *status) bool { return s.Proxy != nil && len(s.Proxy.Generations) == 1 })
	}
}
