// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// Find finds a pod by its addresses, with a folder of network namespaces, and returns the
// cookie of its own.
func (h *Helper) Find(a struct {
	Dir       string
	Addresses []netip.Addr
}, out *uint64) error {
	f := &finder{dir: a.Dir}
	i, err := f.find(a.Addresses)
	if err != nil {
		return err
	}
	*out, err = f.cookie(i)
	return err
}

// Own lists the addresses of the host's own interfaces.
func (h *Helper) Own(_ None, out *[]netip.Addr) (err error) {
	*out, err = hostAddresses()
	return err
}

// A pod's namespace has a file where its runtime keeps it, and processes wherever that is.
func TestNamespaceByProcess(t *testing.T) {
	n := newNetwork(t)
	node := n.start("a")
	find := func(dir string) (uint64, error) {
		return try[uint64](node, "Find", map[string]any{"Dir": dir, "Addresses": []netip.Addr{n.hosts["a1"].v4, n.hosts["a1"].v6}})
	}
	byFile, err := find(n.dir)
	check(t, err)
	if c, err := find(t.TempDir()); err == nil || !strings.Contains(err.Error(), "hostPID") {
		t.Errorf("neither file nor process: cookie %d, %v", c, err)
	}
	n.start("a2") // another pod's
	n.start("a1")
	byProcess, err := find(t.TempDir())
	check(t, err)
	if byFile != byProcess || byFile == 0 {
		t.Errorf("cookie %d by file, %d by process", byFile, byProcess)
	}
	if id, err := namespaceID(fmt.Sprintf("/proc/%d/ns/mnt", os.Getpid())); err == nil {
		t.Errorf("a mount namespace is network namespace %d", id)
	}
}

// What a node's processes speak to its pods from may be on an interface of the pods alone.
func TestHostAddresses(t *testing.T) {
	n := newNetwork(t)
	a := n.hosts["a"]
	veth, err := a.link.LinkByName("lxa1")
	check(t, err)
	n.address(a, veth, "10.244.1.1/32", "fd44:1::1/128")
	check(t, a.link.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}))
	bridge, err := a.link.LinkByName("cni0")
	check(t, err)
	n.address(a, bridge, "10.244.9.1/24")
	lo, err := a.link.LinkByName("lo")
	check(t, err)
	n.address(a, lo, "192.0.2.1/32")
	got := call[[]netip.Addr](n.start("a"), "Own", None{})
	want := []netip.Addr{a.v4, mustAddr("10.244.1.1"), mustAddr("10.244.9.1"), a.v6, mustAddr("fd44:1::1")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
