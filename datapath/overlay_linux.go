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

// overlay is an interface that is no uplink that was named, and leads to other nodes' pods:
// their packets come by it, unpacked.
type overlay struct {
	name, kind string
	// ethernet: its packets have the header that the programs read.
	ethernet bool
}

// SetRemote says where other nodes' pods are: some address of each node's, of each family.
// The interfaces that lead there get the programs of uplinks.
func (d *Datapath) SetRemote(addrs []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Equal(addrs, d.remote) {
		return
	}
	d.remote = slices.Clone(addrs)
	d.attachOverlays()
}

// attachOverlays finds overlays by route and gives them programs. One that was found stays
// one while it is there: routes come and go when who makes them starts anew.
func (d *Datapath) attachOverlays() {
	for i := range d.overlays {
		if _, err := netlink.LinkByIndex(i); errors.As(err, &netlink.LinkNotFoundError{}) {
			delete(d.missing, d.overlays[i].name)
			delete(d.overlays, i)
		}
	}
	own := d.uplinksByName(d.opt.Uplinks...)
	for _, a := range d.remote {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
			continue // no way there yet, or none any more: routes are watched
		}
		i := routes[0].LinkIndex
		if _, known := d.overlays[i]; known || own[i] || i == loopback || d.pods.uses(i) {
			continue
		}
		l, err := netlink.LinkByIndex(i)
		if err != nil {
			continue
		}
		o := overlay{l.Attrs().Name, l.Type(), l.Attrs().EncapType == "ether"}
		d.overlays[i] = o
		d.log.Info("packets of other nodes' pods come by an interface that is no uplink", "interface", o.name, "kind", o.kind, "towards", a)
	}
	for i, o := range d.overlays {
		d.note(o.name, d.attachOverlay(i, o))
	}
}

func (d *Datapath) attachOverlay(i int, o overlay) error {
	if !o.ethernet {
		return fmt.Errorf("attach %s to %s: it is of kind %s, whose packets have no Ethernet header: that is not supported; policy is enforced at the pods, but addresses of this node's pods are not kept out here: set rp_filter to 1 on it",
			progFromNet, o.name, o.kind)
	}
	for _, p := range []string{progFromNet, progToNet} {
		if err := d.links.interfaceProgram(p, i, o.name); err != nil {
			return err
		}
	}
	return nil
}

// note remembers why an interface has no program, and says so once.
func (d *Datapath) note(name string, err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if reason != "" && reason != d.missing[name] {
		d.log.Warn("uplink has no program", "interface", name, "error", reason)
	}
	d.missing[name] = reason
}

// uses reports whether an interface is a pod's, or the bridge of one.
func (s *pods) uses(index int) bool {
	for _, p := range s.byName {
		if p.iface.index == index || p.iface.bridge.index == index {
			return true
		}
	}
	return false
}
