// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// initCommand is the hidden command that takes a process to its place.
const initCommand = "lab-init"

// place is where a process runs. It is kept in a file for later commands.
type place struct {
	Netns  string `json:"netns"`
	Cgroup string `json:"cgroup,omitempty"`
	// Files maps paths to the files that are to be seen there. With any, the process
	// gets a mount namespace of its own, in which nothing of Hide is mounted.
	Files map[string]string `json:"files,omitempty"`
	Hide  string            `json:"hide,omitempty"`
	Path  string            `json:"path,omitempty"` // folder of tools; goes before PATH
}

func (p place) save(file string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode place: %w", err)
	}
	return writeFile(file, b)
}

// takePlace is lab-init: SPEC -- COMMAND [ARG...]. It returns only if it fails.
func takePlace(args []string) error {
	if len(args) < 3 || args[1] != "--" {
		return errors.New("usage: " + initCommand + " PLACE -- COMMAND [ARG...]")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("read place: %w", err)
	}
	var p place
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("read place %s: %w", args[0], err)
	}
	// Sockets belong to the cgroup that they are made in, so that comes first. What
	// is done to the thread stays with the command: exec keeps this thread alone.
	runtime.LockOSThread()
	if p.Cgroup != "" {
		if err := joinCgroup(p.Cgroup); err != nil {
			return err
		}
	}
	if err := enterNetns(p.Netns); err != nil {
		return err
	}
	if len(p.Files) > 0 {
		if err := p.mounts(); err != nil {
			return err
		}
	}
	if p.Path != "" {
		os.Setenv("PATH", p.Path+":"+os.Getenv("PATH"))
	}
	command := args[2:]
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("run %s: %w", command[0], err)
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, command, os.Environ()))
}

// mounts gives the thread its own view of the file system.
func (p place) mounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for at, file := range p.Files {
		if err := unix.Mount(file, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", file, at, err)
		}
	}
	if p.Hide == "" {
		return nil
	}
	// Copies of the lab's mounts would keep network namespaces and BPF programs
	// alive after the lab has let go of them.
	below, err := mountsBelow(p.Hide)
	if err != nil {
		return err
	}
	for _, m := range below {
		if m == p.Path {
			continue // the tools hold nothing else
		}
		err := unix.Unmount(m, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // it may have gone meanwhile
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	return nil
}

// mountsBelow lists the mounts below a folder, the last one first.
func mountsBelow(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
		if strings.HasPrefix(at, dir+"/") {
			out = append(out, strings.TrimSuffix(at, "//deleted"))
		}
	}
	slices.Reverse(out)
	return out, nil
}
