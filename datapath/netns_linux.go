// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNetns runs fn inside a network namespace.
func inNetns(file string, fn func() error) error {
	return onThread(func() error {
		there, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", file, err)
		}
		return fn()
	})
}

// onThread runs fn on a thread of its own, whose network namespace fn may change. A
// thread that cannot be brought back is never used again.
func onThread(fn func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		back, err := visit(fn)
		if back {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
		errs <- err
	}()
	return <-errs
}

// visit needs a locked thread; back says that it is where it was before.
func visit(fn func() error) (back bool, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	err = fn()
	if lost := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); lost != nil {
		return false, errors.Join(err, fmt.Errorf("return to own network namespace: %w", lost))
	}
	return true, err
}

// namespaces finds the files of network namespaces in dir by the numbers that
// links of our own namespace call them by. Files that are none are passed over.
func namespaces(dir string) (map[int]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	out := map[int]string{}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		id, err := namespaceID(path)
		if err == nil && id >= 0 {
			out[id] = path
		}
	}
	return out, nil
}

// inhabited is a network namespace that processes are in.
type inhabited struct {
	file string
	pods []string // ids of the pods that these are of, sorted
}

// processNamespaces finds the network namespaces of all processes that /proc shows, which
// on a node are those of its pods, by the numbers that links of our own namespace call
// them by. Of processes that may not be looked at nothing is found.
func processNamespaces() (map[int]inhabited, error) {
	files, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	own, _ := os.Readlink("/proc/self/ns/net")
	byName := map[string]*inhabited{}
	for _, f := range files {
		if _, err := strconv.Atoi(f.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", f.Name())
		name, err := os.Readlink(filepath.Join(dir, "ns/net"))
		if err != nil || name == own { // it has ended, or is not ours to look at
			continue
		}
		of := byName[name]
		if of == nil {
			of = &inhabited{file: filepath.Join(dir, "ns/net")}
			byName[name] = of
		}
		cgroups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if uid := podOf(string(cgroups)); err == nil && uid != "" && !slices.Contains(of.pods, uid) {
			of.pods = append(of.pods, uid)
			slices.Sort(of.pods)
		}
	}
	out := map[int]inhabited{}
	for _, of := range byName {
		if id, err := namespaceID(of.file); err == nil && id >= 0 {
			out[id] = *of
		}
	}
	return out, nil
}

// podCgroup is how kubelet calls a pod's cgroup, with either of its drivers.
var podCgroup = regexp.MustCompile(`[/-]pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})(?:\.slice)?(?:/|$)`)

// podOf is the id of the pod that a process is of, by its cgroups; "" if of none. What is
// below the pod's own cgroup does not count: a pod may have that to itself.
func podOf(cgroups string) string {
	for line := range strings.Lines(cgroups) {
		if m := podCgroup.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			return strings.ReplaceAll(m[1], "_", "-")
		}
	}
	return ""
}

func namespaceID(path string) (int, error) {
	// An ordinary file of another kind, a FIFO say, must not block us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Type != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("%s is no namespace", path)
	}
	id, err := netlink.GetNetNsIdByFd(int(f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("number of network namespace %s: %w", path, err)
	}
	return id, nil
}

// cookie returns the cookie of the namespace in which the peer of our interface is.
func cookie(file string, ifindex, peer int) (uint64, error) {
	var out uint64
	err := inNetns(file, func() error {
		l, err := netlink.LinkByIndex(peer)
		if err != nil {
			return fmt.Errorf("find interface %d in %s: %w", peer, file, err)
		}
		if l.Type() != "veth" || l.Attrs().ParentIndex != ifindex {
			return fmt.Errorf("interface %s in %s is not the peer of interface %d", l.Attrs().Name, file, ifindex)
		}
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket in %s: %w", file, err)
		}
		defer unix.Close(s)
		out, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err != nil {
			return fmt.Errorf("read cookie of %s: %w", file, err)
		}
		return nil
	})
	return out, err
}
