// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const terminate = unix.SIGTERM

// unprivileged makes a command run as uid with the one capability that
// transparent sockets need, in a process group of its own, so that a signal to
// the proxy's group does not reach it.
func unprivileged(cmd *exec.Cmd, uid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid == os.Geteuid() {
		return
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
}

// startWithoutMore starts a command that never gets more privileges than it has: no file
// that it executes gives it any. The thread that does so stays like that; it matters to
// what is executed from it, which are Envoys alone.
func startWithoutMore(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	return cmd.Start()
}

// limitMemory bounds what a child that runs as uid may have of memory that is its own and
// that it may write to: what it asks for beyond that it is refused. A cgroup's bound would
// count what is in use, but who may write nothing on the cgroup file system, as a container,
// has none to give. 0: no bound.
//
// A process may set another user's limits if it is that user by its real ids: so a thread
// becomes that user for the call. It keeps its rights, which go by the effective ones.
func limitMemory(pid, uid int, bytes uint64) error {
	if bytes == 0 {
		return nil
	}
	runtime.LockOSThread()
	own, group := os.Getuid(), os.Getgid()
	if uid != own {
		err := errors.Join(realIDs(unix.SYS_SETRESGID, uid), realIDs(unix.SYS_SETRESUID, uid))
		if err != nil {
			err = fmt.Errorf("become user %d: %w", uid, err)
		} else {
			err = setDataLimit(pid, bytes)
		}
		back := errors.Join(realIDs(unix.SYS_SETRESUID, own), realIDs(unix.SYS_SETRESGID, group))
		if back != nil {
			return errors.Join(err, back) // nobody else gets this thread
		}
		runtime.UnlockOSThread()
		return err
	}
	defer runtime.UnlockOSThread()
	return setDataLimit(pid, bytes)
}

// realIDs sets the real id of the thread alone, where package syscall sets all threads'.
func realIDs(call uintptr, id int) error {
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(call, uintptr(id), keep, keep); e != 0 {
		return e
	}
	return nil
}

func setDataLimit(pid int, bytes uint64) error {
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: bytes, Max: bytes}, nil); err != nil {
		return fmt.Errorf("bound memory of process %d: %w", pid, err)
	}
	return nil
}

// manyFiles lets children open as many files as this process may. Go lifts its
// own limit at start, and gives children the old low one unless it is set again.
func manyFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("lift limit of open files: %w", err)
	}
	return nil
}

// pidNamespace is the number of this process's pid namespace. No other one has it while
// a process lives there, and every process in it knows it.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	return st.Ino
}

// owner is a file's.
func owner(info fs.FileInfo) int {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}

// nested reports whether a process is in a pid namespace below this one: it is the
// business of a proxy there.
func nested(proc string) bool {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(pids)) > 1
		}
	}
	return false
}

// leftover is an Envoy that runs on a run folder.
type leftover struct {
	pid    int
	exe    string
	config string
	args   []string // that follow
}

// findEnvoys finds Envoys of this pid namespace by their command line: there is no file that could be
// missing or stale.
func findEnvoys(runDir string) ([]leftover, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []leftover
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // it has ended
			}
			return nil, err
		}
		args := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
		if len(args) < 3 || args[1] != "--config-path" ||
			filepath.Dir(args[2]) != runDir || !strings.HasPrefix(filepath.Base(args[2]), "envoy-") {
			continue
		}
		if nested(d) {
			continue
		}
		exe, err := os.Readlink(filepath.Join(d, "exe"))
		if err != nil {
			continue // ended, or another user's: not one that we started
		}
		found = append(found, leftover{pid, exe, args[2], args[3:]})
	}
	return found, nil
}

// watch closes done when the process, which need not be a child, has ended.
func watch(pid int, done chan<- struct{}) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	go func() { // ends with the process; a proxy that stops stops it first
		defer unix.Close(fd)
		defer close(done)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return nil
}
