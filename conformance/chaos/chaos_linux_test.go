// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/twonodes"
)

var (
	changesFlag = flag.Int("changes", 500, "how many changes TestChanges makes")
	killsFlag   = flag.Int("kills", 5, "how many processes each test of kills kills")
	seedFlag    = flag.Uint64("seed", 0, "of all random decisions; 0: another one each time")
)

// What this binary is started as, beside as the tests.
const (
	roleVariable = "FAIRLEAD_CHAOS_ROLE"
	roleProxy    = "proxy"    // a node proxy, see runProxy
	roleIsolated = "isolated" // one test, in namespaces of its own
)

func TestMain(m *testing.M) {
	twonodes.ServeTraffic()
	flag.Parse()
	switch os.Getenv(roleVariable) {
	case roleProxy:
		exit(runProxy())
	case roleIsolated:
		// Processes are looked for by the numbers of this namespace.
		err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		if err == nil {
			err = syscall.Mount("proc", "/proc", "proc", 0, "")
		}
		if err != nil {
			exit(fmt.Errorf("mount /proc: %w", err))
		}
		os.Exit(m.Run())
	}
	os.Exit(twonodes.RunTests(m, "chaos"))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// isolated runs the test that calls it again, in network and process namespaces of
// its own, and reports whether this is that run. Whatever the test starts is gone with
// it, however it ends.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roleVariable) == roleIsolated {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", fmt.Sprint("-changes=", *changesFlag), fmt.Sprint("-seed=", *seedFlag)}
	if end, ok := t.Deadline(); ok {
		args = append(args, fmt.Sprint("-test.timeout=", max(time.Second, time.Until(end)-5*time.Second)))
	}
	dir, err := os.MkdirTemp("", "flc") // not the test's own: paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // Envoy's user has to get through
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleIsolated, "TMPDIR="+dir)
	out := &lines{t: t}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose end would be the parent's
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	out.flush()
	if err != nil {
		t.Errorf("in its namespaces: %v", err)
	}
	return false
}

// lines logs what is written to it, a line at a time.
type lines struct {
	t    *testing.T
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.rest = rest
		if s := strings.TrimSpace(string(line)); s != "" {
			l.t.Log(s)
		}
	}
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.Write([]byte("\n"))
	}
}

// random is the source of a test's decisions.
func random(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
