// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"fairlead.io/fairlead/internal/need"
)

// Another user's process is bounded and gets no privileges, and the thread that did it is
// root's again.
func TestLimitMemory(t *testing.T) {
	need.Root(t)
	cmd := exec.Command("/bin/sleep", "60")
	unprivileged(cmd, 15104)
	if err := startWithoutMore(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if err := limitMemory(cmd.Process.Pid, 15104, 200<<20); err != nil {
		t.Fatal(err)
	}
	read := func(pid int, file string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for file, want := range map[string]string{
		"limits": `Max data size\s+209715200\s+209715200\s`,
		"status": `(?s)Uid:\s15104\s15104\s15104\s15104\n.*CapEff:\s0000000000001000\n.*NoNewPrivs:\s1\n`,
	} {
		if text := read(cmd.Process.Pid, file); !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s has no %s:\n%s", file, want, text)
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if text := read(os.Getpid(), "task/"+task.Name()+"/status"); !regexp.MustCompile(`Uid:\s0\s0\s0\s0\nGid:\s0\s0\s0\s0\n`).MatchString(text) {
			t.Errorf("thread %s is not root's:\n%s", task.Name(), text)
		}
	}
	if err := limitMemory(cmd.Process.Pid, 15104, 0); err != nil { // no bound is asked for
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
