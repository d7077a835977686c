// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// A bridge would switch what pods of a node send each other, past the node and its proxy:
// what is for the proxy goes to the bridge itself, and its own program takes it from there.
//
// On a bridge no route tells one pod's interface from another's, and what a pod says of
// its own addresses is not to be believed: it may take another's. Whose interface it is
// follows from whose processes are behind it, and these are told by their cgroup, which is
// kubelet's to give.

// bridgeEntry says whose port a pod's interface is.
func bridgeEntry(i interfaceOf) entry {
	return entry{encode(uint32(i.index)), encode(bridge{Ifindex: uint32(i.bridge.index), MAC: i.bridge.mac})}
}

// port finds the port of a bridge behind which a pod is: by its processes if the pod has
// an id, else by its addresses, if nobody else there has one of them.
func (f *finder) port(bridge netlink.Link, addresses []netip.Addr, uid string) (int, error) {
	ports, err := f.portsOf(bridge)
	if err != nil {
		return 0, err
	}
	if uid != "" {
		all := len(ports)
		if ports, err = f.portsOfPod(ports, uid); err != nil {
			return 0, err
		}
		switch len(ports) {
		case 0:
			return 0, fmt.Errorf("behind none of its %d ports is a process of the pod with the id %s; %s", all, uid, seeProcesses)
		case 1:
			return ports[0].index, nil
		}
	}
	var found []interfaceOf
	for _, p := range ports {
		inside, err := f.addressesBehind(p)
		if err != nil {
			continue // it ends, or is none of ours to look at: it is not found
		}
		if slices.ContainsFunc(addresses, func(a netip.Addr) bool { return slices.Contains(inside, a) }) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("behind none of its %d ports an interface has this address; %s", len(ports), seeProcesses)
	case 1:
		return found[0].index, nil
	}
	return 0, fmt.Errorf("behind both %s and %s an interface has an address of the pod", found[0].name, found[1].name)
}

// portsOfPod are those that lead to a namespace with a process of the pod.
func (f *finder) portsOfPod(ports []interfaceOf, uid string) ([]interfaceOf, error) {
	if err := f.lookAtProcesses(); err != nil {
		return nil, err
	}
	var out []interfaceOf
	for _, p := range ports {
		if slices.Contains(f.byProcess[p.nsid].pods, uid) {
			out = append(out, p)
		}
	}
	return out, nil
}

// portsOf lists the ports of a bridge that lead to other namespaces.
func (f *finder) portsOf(bridge netlink.Link) ([]interfaceOf, error) {
	index := bridge.Attrs().Index
	if out, ok := f.ports[index]; ok {
		return out, nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list its ports: %w", err)
	}
	out := []interfaceOf{}
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex == index && l.Type() == "veth" && a.NetNsID >= 0 && !f.uplinks[a.Index] {
			out = append(out, interfaceOf{index: a.Index, name: a.Name, nsid: a.NetNsID, peer: a.ParentIndex})
		}
	}
	if f.ports == nil {
		f.ports = map[int][]interfaceOf{}
	}
	f.ports[index] = out
	return out, nil
}

// addressesBehind lists those of a port's other end.
func (f *finder) addressesBehind(p interfaceOf) ([]netip.Addr, error) {
	file, err := f.namespace(p)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	err = inNetns(file, func() error {
		l, err := netlink.LinkByIndex(p.peer)
		if err != nil {
			return err
		}
		if l.Attrs().ParentIndex != p.index {
			return errors.New("another interface's other end")
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, of := range addrs {
			if a, ok := netip.AddrFromSlice(of.IP); ok {
				out = append(out, a.Unmap())
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look behind %s: %w", p.name, err)
	}
	return out, nil
}
