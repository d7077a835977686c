// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// start starts a command in a place, detached: it outlives the verb that started it.
func (l *lab) start(place, log string, env []string, command ...string) (process, error) {
	name := filepath.Join(l.paths.logs(), log+".log")
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return process{}, fmt.Errorf("start %s: %w", log, err)
	}
	defer out.Close()
	cmd := l.command(context.Background(), place, env, command...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", log, err)
	}
	p := process{PID: cmd.Process.Pid, Log: name}
	st, err := readStat(p.PID)
	p.Start = st.start
	// Where this program lives on, a test say, it must take leave of its children.
	go func() { _ = cmd.Wait() }() // ends with the process; how it ended is in its log
	if err != nil {
		return p, fmt.Errorf("start %s: %w", log, err)
	}
	return p, nil
}

// command is one that runs in a place: the program starts itself anew there, takes
// its place and becomes the command.
func (l *lab) command(ctx context.Context, place string, env []string, command ...string) *exec.Cmd {
	args := append([]string{initCommand, l.paths.spec(place), "--"}, command...)
	cmd := exec.CommandContext(ctx, l.record.Binary, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// stat is a part of /proc/PID/stat.
type stat struct {
	state   byte
	threads int
	start   uint64 // clock ticks since the machine started
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name in parentheses may contain anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	threads, err := strconv.Atoi(f[17])
	if err != nil {
		return stat{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	return stat{f[0][0], threads, start}, nil
}

// alive reports whether the process runs.
func (p process) alive() bool {
	st, err := readStat(p.PID)
	// A process whose first thread has ended is not dead: so it looks for a moment
	// when another thread becomes the command.
	dead := (st.state == 'Z' || st.state == 'X') && st.threads <= 1
	return err == nil && st.start == p.Start && !dead
}

// signal sends a signal if the process is still the one that was started.
func (p process) signal(s syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() { // the descriptor keeps to the process that this is asked about
		return nil
	}
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// tail is the end of the process's log, for messages.
func (p process) tail() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
