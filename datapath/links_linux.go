// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// linkDir is the folder of pinned links, inside that of the maps. A link's pin is
// named after its program, behind it "-" and the interface's index if it has one.
const linkDir = "links"

const (
	progFromPod = "fl_from_pod"
	progFromNet = "fl_from_net"
	progToNet   = "fl_to_net"
	progToPod   = "fl_to_pod"
	// progFromNode is on the loopback interface of the node.
	progFromNode = "fl_from_node"
	// progFromBridge is on bridges whose ports are pods'.
	progFromBridge = "fl_from_bridge"
)

// The loopback interface of every network namespace.
const (
	loopback     = 1
	loopbackName = "lo"
)

// cgroupPrograms in the order in which they are attached: what shows a service in
// place of a backend before what chooses the backend.
func cgroupPrograms() []string {
	return []string{
		"fl_getpeername4", "fl_getpeername6", "fl_recvmsg4", "fl_recvmsg6",
		"fl_connect4", "fl_connect6", "fl_sendmsg4", "fl_sendmsg6", "fl_getsockopt",
	}
}

// links are our programs' attachments, pinned, so that they outlive the process.
// Programs of others are never touched. Not safe for concurrent use.
type links struct {
	dir     string
	objects *objects
	log     *slog.Logger
	open    map[string]link.Link // by name of the pin
}

func pinName(program string, ifindex int) string {
	return program + "-" + strconv.Itoa(ifindex)
}

func pinOf(name string) (program string, ifindex int) {
	program, n, _ := strings.Cut(name, "-")
	ifindex, _ = strconv.Atoi(n) // none: 0
	return program, ifindex
}

// takeOver puts the new programs into the links of an earlier process, in place.
// Links of interfaces and cgroups that are gone, and of programs that are no more,
// are removed.
func (l *links) takeOver() error {
	l.open = map[string]link.Link{}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("take over links: %w", err)
	}
	for _, f := range files {
		old, err := link.LoadPinnedLink(filepath.Join(l.dir, f.Name()), nil)
		if err != nil {
			return fmt.Errorf("take over %s: %w", f.Name(), err)
		}
		l.open[f.Name()] = old
		program, _ := pinOf(f.Name())
		p := l.objects.programs[program]
		if p != nil && attached(old) {
			if err = old.Update(p); err == nil {
				continue
			}
		}
		l.log.Info("remove link", "link", f.Name(), "error", err)
		if err := l.remove(f.Name()); err != nil {
			return err
		}
	}
	return nil
}

// attached reports whether the link's interface or cgroup is still there.
func attached(l link.Link) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	if t := info.TCX(); t != nil {
		return t.Ifindex != 0
	}
	if c := info.Cgroup(); c != nil {
		return c.CgroupId != 0
	}
	return false
}

func (l *links) has(pin string) bool { return l.open[pin] != nil }

// interfaceProgram attaches a program to an interface, before programs of others:
// what they let through or take must have been judged. Doing it again is nothing.
func (l *links) interfaceProgram(program string, ifindex int, name string) error {
	pin := pinName(program, ifindex)
	if old := l.open[pin]; old != nil {
		if attached(old) {
			return nil
		}
		if err := l.remove(pin); err != nil {
			return err
		}
	}
	n, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: l.objects.programs[program], Attach: l.objects.attach[program], Anchor: link.Head(),
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("attach %s to %s: %w (kernel lacks TCX: 6.6 or newer is needed)", program, name, err)
	}
	if err != nil {
		return fmt.Errorf("attach %s to %s: %w", program, name, err)
	}
	return l.pin(pin, n)
}

// cgroupProgram attaches a program to a cgroup. Doing it again is nothing.
func (l *links) cgroupProgram(program, cgroup string) error {
	if old := l.open[program]; old != nil {
		same, err := onCgroup(old, cgroup)
		if err != nil {
			return fmt.Errorf("attach %s to %s: %w", program, cgroup, err)
		}
		if same {
			return nil
		}
		if err := l.remove(program); err != nil {
			return err
		}
	}
	n, err := link.AttachCgroup(link.CgroupOptions{
		Path: cgroup, Attach: l.objects.attach[program], Program: l.objects.programs[program],
	})
	if err != nil {
		return fmt.Errorf("attach %s to %s: %w", program, cgroup, err)
	}
	return l.pin(program, n)
}

// onCgroup compares the link's cgroup with one by path: an id is the folder's inode.
func onCgroup(l link.Link, cgroup string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(cgroup, &st); err != nil {
		return false, fmt.Errorf("find cgroup: %w", err)
	}
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("read link: %w", err)
	}
	c := info.Cgroup()
	return c != nil && c.CgroupId == st.Ino, nil
}

func (l *links) pin(name string, n link.Link) error {
	if err := n.Pin(filepath.Join(l.dir, name)); err != nil {
		return errors.Join(fmt.Errorf("pin link %s: %w", name, err), n.Close())
	}
	l.open[name] = n
	return nil
}

// remove detaches at once, whoever else holds the link.
func (l *links) remove(name string) error {
	old := l.open[name]
	if old == nil {
		return nil
	}
	delete(l.open, name)
	if err := removeLink(old); err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func removeLink(l link.Link) error {
	// A link whose interface is gone cannot be detached; unpinning is enough.
	_ = l.Detach()
	err := l.Unpin()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.Close())
}

// prune removes the links of interfaces that are not wanted.
func (l *links) prune(want map[string]bool) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.open)) {
		if _, ifindex := pinOf(name); ifindex != 0 && !want[name] {
			errs = append(errs, l.remove(name))
		}
	}
	return errors.Join(errs...)
}

// on names our programs on an interface, or on the cgroup (0), that are attached.
func (l *links) on(ifindex int) []string {
	out := []string{}
	for _, name := range slices.Sorted(maps.Keys(l.open)) {
		if program, n := pinOf(name); n == ifindex && attached(l.open[name]) {
			out = append(out, program)
		}
	}
	return out
}

// close leaves everything attached.
func (l *links) close() {
	for _, n := range l.open {
		_ = n.Close() // the pin holds it
	}
}
