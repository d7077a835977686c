// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// interfaceOf is the host's end of a pod's veth.
type interfaceOf struct {
	index  int
	name   string
	nsid   int    // our number for the namespace of the other end
	peer   int    // index of the other end there
	bridge master // whose port it is
}

// master is a bridge; index 0: none.
type master struct {
	index int
	name  string
	mac   [6]byte
}

// finder finds interfaces and namespaces of pods. It lists namespaces at most once, by
// their files and by their processes, and the ports of bridges.
type finder struct {
	places    map[netip.Addr]Place
	dir       string
	uplinks   map[int]bool
	byID      map[int]string
	byProcess map[int]inhabited
	ports     map[int][]interfaceOf // of bridges
	kernel    interfaces
}

// interfaces are asked of the kernel. A question that was not answered does not say that
// there is none.
type interfaces struct {
	byIndex func(int) (netlink.Link, error)
	byName  func(string) (netlink.Link, error)
}

func kernelInterfaces() interfaces { return interfaces{netlink.LinkByIndex, netlink.LinkByName} }

// unanswered: err is not about what the kernel has.
func unanswered(err error) bool {
	return errors.As(err, new(unix.Errno)) && !errors.Is(err, unix.ENODEV) && !errors.As(err, new(netlink.LinkNotFoundError))
}

// Place is where a pod is, as who made its interface has seen. So it is known before the
// pod has a process, or its network namespace a file that we can see.
type Place struct {
	Index  int    // of the host's end of its veth
	Name   string // of that
	Cookie uint64 // of its network namespace
}

// place is the interface that who made it has told of, if all the addresses are there and
// it is there still.
func (f *finder) place(addresses []netip.Addr) (interfaceOf, bool) {
	if len(addresses) == 0 {
		return interfaceOf{}, false
	}
	p, ok := f.places[addresses[0]]
	if !ok || slices.ContainsFunc(addresses, func(a netip.Addr) bool { return f.places[a] != p }) {
		return interfaceOf{}, false
	}
	out, err := f.describe(p.Index)
	return out, err == nil && out.name == p.Name
}

// find returns the veth that the node's routes to all these addresses lead to, straight or
// by a bridge, unless it was told.
func (f *finder) find(addresses []netip.Addr, uid string) (interfaceOf, error) {
	if out, ok := f.place(addresses); ok {
		return out, nil
	}
	index := 0
	for _, a := range addresses {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err != nil {
			return interfaceOf{}, fmt.Errorf("no route to %s: %w", a, err)
		}
		if len(routes) == 0 {
			return interfaceOf{}, fmt.Errorf("no route to %s", a)
		}
		if index != 0 && routes[0].LinkIndex != index {
			return interfaceOf{}, fmt.Errorf("routes to %s and %s lead to different interfaces", addresses[0], a)
		}
		index = routes[0].LinkIndex
	}
	l, err := f.kernel.byIndex(index)
	if err == nil && l.Type() == "bridge" && !f.uplinks[index] {
		if index, err = f.port(l, addresses, uid); err != nil {
			return interfaceOf{}, fmt.Errorf("the route to %s leads to the bridge %s: %w", addresses[0], l.Attrs().Name, err)
		}
	}
	out, err := f.describe(index)
	if err != nil {
		return interfaceOf{}, fmt.Errorf("the route to %s leads to %w", addresses[0], err)
	}
	return out, nil
}

// describe returns a pod's interface by its index; zero with an error that says
// what else it is.
func (f *finder) describe(index int) (interfaceOf, error) {
	l, err := f.kernel.byIndex(index)
	if err != nil {
		return interfaceOf{}, fmt.Errorf("interface %d: %w", index, err)
	}
	a := l.Attrs()
	switch {
	case f.uplinks[a.Index]:
		return interfaceOf{}, fmt.Errorf("the uplink %s", a.Name)
	case l.Type() != "veth":
		return interfaceOf{}, fmt.Errorf("%s, which is a %s and no veth", a.Name, l.Type())
	case a.NetNsID < 0:
		return interfaceOf{}, fmt.Errorf("%s, whose other end is in no other network namespace", a.Name)
	}
	out := interfaceOf{index: a.Index, name: a.Name, nsid: a.NetNsID, peer: a.ParentIndex}
	if a.MasterIndex == 0 {
		return out, nil
	}
	l, err = f.kernel.byIndex(a.MasterIndex)
	if err != nil {
		return interfaceOf{}, fmt.Errorf("%s, a port of interface %d: %w", a.Name, a.MasterIndex, err)
	}
	of := l.Attrs()
	if l.Type() != "bridge" || len(of.HardwareAddr) != len(out.bridge.mac) {
		return interfaceOf{}, fmt.Errorf("%s, a port of %s, which is a %s and no bridge", a.Name, of.Name, l.Type())
	}
	out.bridge = master{of.Index, of.Name, [6]byte(of.HardwareAddr)}
	return out, nil
}

// cookie is that of the namespace of an interface's other end.
func (f *finder) cookie(i interfaceOf, addresses []netip.Addr) (uint64, error) {
	if told, ok := f.place(addresses); ok && told.index == i.index && told.nsid == i.nsid {
		return f.places[addresses[0]].Cookie, nil
	}
	file, err := f.namespace(i)
	if err != nil {
		return 0, err
	}
	return cookie(file, i.index, i.peer)
}

// namespace is the file of the namespace of an interface's other end: the one that it has
// in the folder, else that of a process that is in it. Container runtimes keep their files
// at places of their own; that a pod's processes are in its namespace holds for all of them.
func (f *finder) namespace(i interfaceOf) (string, error) {
	if f.byID == nil {
		byID, err := namespaces(f.dir)
		if err != nil {
			return "", err
		}
		f.byID = byID
	}
	if file, ok := f.byID[i.nsid]; ok {
		return file, nil
	}
	if err := f.lookAtProcesses(); err != nil {
		return "", err
	}
	if of, ok := f.byProcess[i.nsid]; ok {
		return of.file, nil
	}
	return "", fmt.Errorf("neither a network namespace in %s nor that of a process belongs to %s: %s", f.dir, i.name, seeProcesses)
}

// seeProcesses is what to do where a process of a pod is not found.
const seeProcesses = "the agent has to see the processes of all pods (hostPID, SYS_PTRACE)"

func (f *finder) lookAtProcesses() (err error) {
	if f.byProcess == nil {
		f.byProcess, err = processNamespaces()
	}
	return err
}
