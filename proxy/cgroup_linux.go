// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cgroups is where they are mounted; those of version 1, by controller in folders.
const cgroups = "/sys/fs/cgroup"

// memoryGroup is the folder of the memory cgroup of a process, "" if it has none that
// bounds anything. In a container it is the container's.
type memoryGroup string

func memoryGroupOf(pid int) memoryGroup {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	two := ""
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(part) < 3 {
			continue
		}
		for c := range strings.SplitSeq(part[1], ",") {
			if c == "memory" {
				return inGroups(filepath.Join(cgroups, "memory"), part[2], "memory.limit_in_bytes")
			}
		}
		if part[1] == "" {
			two = part[2]
		}
	}
	return inGroups(cgroups, two, "memory.max")
}

// inGroups finds a cgroup's folder. In a container, what is mounted may be the part that
// its processes see, while the path is the whole one.
func inGroups(root, path, file string) memoryGroup {
	for _, dir := range []string{filepath.Join(root, path), root} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			return memoryGroup(dir)
		}
	}
	return ""
}

// memoryLimit is the least limit of a cgroup and those above it, in bytes; 0: none.
func memoryLimit(g memoryGroup) uint64 {
	least := uint64(math.MaxUint64)
	for dir := string(g); strings.HasPrefix(dir, cgroups); dir = filepath.Dir(dir) {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				continue
			}
			if n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64); err == nil { // not "max"
				least = min(least, n)
			}
		}
	}
	if least > 1<<50 { // what version 1 says if there is none
		return 0
	}
	return least
}

// memoryKills counts what the kernel has ended in a process's memory cgroup.
type memoryKills struct {
	group memoryGroup
	n     uint64
	known bool
}

func outOfMemoryKills(pid int) memoryKills {
	g := memoryGroupOf(pid)
	n, ok := g.kills()
	return memoryKills{g, n, ok}
}

func (g memoryGroup) kills() (uint64, bool) {
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		b, err := os.ReadFile(filepath.Join(string(g), file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				v, err := strconv.ParseUint(strings.TrimSpace(n), 10, 64)
				return v, err == nil
			}
		}
	}
	return 0, false
}

// grown reports whether there were more since.
func (k memoryKills) grown() bool {
	n, ok := k.group.kills()
	return ok && k.known && n > k.n
}

// boundsHere are the bounds that an Envoy has that this process starts.
func boundsHere() bounds {
	b := bounds{memory: memoryLimit(memoryGroupOf(os.Getpid()))}
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		b.files = l.Max // see manyFiles
	}
	return b
}

// usesOf is what a process uses. It needs no privilege.
func usesOf(pid int) uses {
	var u uses
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/fd", pid), &st) == nil {
		u.files = uint64(st.Size) // their number, since Linux 6.2
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid)); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
				u.filesLimit, _ = strconv.ParseUint(strings.Fields(rest)[0], 10, 64) // "unlimited": 0
			}
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			pages, _ := strconv.ParseUint(f[1], 10, 64)
			u.memory = pages * uint64(os.Getpagesize())
		}
	}
	u.memoryLimit = memoryLimit(memoryGroupOf(pid))
	return u
}

// mainThread is how the main thread of a process is.
func mainThread(pid int) thread {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", pid, pid))
	if err != nil {
		return thread{}
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the state on
	if len(f) < 13 {
		return thread{}
	}
	user, _ := strconv.ParseUint(f[11], 10, 64)
	system, _ := strconv.ParseUint(f[12], 10, 64)
	return thread{f[0][0], user + system}
}
