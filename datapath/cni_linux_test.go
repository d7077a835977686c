// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// Find finds a pod by its addresses, with a folder of network namespaces, and returns the
// cookie of its own.
func (h *Helper) Find(a struct {
	Dir, UID  string
	Addresses []netip.Addr
	Places    map[netip.Addr]Place
}, out *uint64) error {
	f := &finder{dir: a.Dir, places: a.Places, kernel: kernelInterfaces()}
	i, err := f.find(a.Addresses, a.UID)
	if err != nil {
		return err
	}
	*out, err = f.cookie(i, a.Addresses)
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

// Whose process it is follows from what kubelet calls a pod's cgroup, and not from what a
// pod may call one below its own.
func TestPodOfProcess(t *testing.T) {
	const uid, other = "4721678e-ceee-4656-ac52-760c7d1ec2be", "00000000-0000-4000-8000-000000000000"
	for cgroups, want := range map[string]string{
		"0::/kubepods/burstable/pod" + uid + "/24a712d3f447\n": uid,
		"9:cpu:/\n0::/kubepods/pod" + uid + "\n":               uid,
		"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod4721678e_ceee_4656_ac52_760c7d1ec2be.slice/cri-containerd-24a7.scope\n": uid,
		"0::/../../burstable/pod" + uid + "/24a7\n":           uid,
		"0::/kubepods/pod" + uid + "/24a7/pod" + other + "\n": uid,
		"0::/system.slice/containerd.service\n":               "",
		"0::/kubepods/podx" + uid + "/24a7\n":                 "",
	} {
		if got := podOf(cgroups); got != want {
			t.Errorf("%q is of %q, want %q", cgroups, got, want)
		}
	}
}

// On a bridge two pods may claim one address: neither is believed.
func TestPortOfBridge(t *testing.T) {
	n := newNetworkWith(t, true)
	node := n.start("a")
	find := func(of, uid string) error {
		_, err := try[uint64](node, "Find", map[string]any{"Dir": n.dir, "UID": uid, "Addresses": []netip.Addr{n.hosts[of].v4, n.hosts[of].v6}})
		return err
	}
	check(t, find("a1", ""))
	check(t, find("a2", ""))
	if err := find("a1", "4721678e-ceee-4656-ac52-760c7d1ec2be"); err == nil || !strings.Contains(err.Error(), "process of the pod") {
		t.Errorf("nobody has the id: %v", err)
	}
	inside, err := n.hosts["a2"].link.LinkByName("eth0")
	check(t, err)
	n.address(n.hosts["a2"], inside, n.hosts["a1"].v4.String()+"/24")
	if err := find("a1", ""); err == nil || !strings.Contains(err.Error(), "behind both lxa1 and lxa2") {
		t.Errorf("two have the address: %v", err)
	}
	if err := find("a2", ""); err != nil {
		t.Errorf("an address more does not matter: %v", err)
	}
	// By its processes each is found all the same, and nobody else is.
	const uid = "00000000-0000-4000-8000-000000000001"
	own := filepath.Join(n.hosts["a1"].cgroup, "pod"+uid)
	check(t, os.Mkdir(own, 0o755))
	t.Cleanup(func() { check(t, os.Remove(own)) })
	n.hosts["a1"].cgroup = own
	n.start("a1")
	check(t, find("a1", uid))
	if err := find("a1", strings.Replace(uid, "1", "2", 1)); err == nil {
		t.Error("found by the id of another")
	}
}

// A pod that has no process yet, and whose namespace has no file that we see, is where who
// made its interface says, while that is there.
func TestToldPlace(t *testing.T) {
	n := newNetworkWith(t, true)
	node := n.start("a")
	pod := n.hosts["a1"]
	link, err := n.hosts["a"].link.LinkByName("lxa1")
	check(t, err)
	other, err := n.hosts["a"].link.LinkByName("lxa2")
	check(t, err)
	find := func(four, six Place) (uint64, error) {
		return try[uint64](node, "Find", map[string]any{"Dir": t.TempDir(), "UID": "4721678e-ceee-4656-ac52-760c7d1ec2be",
			"Addresses": []netip.Addr{pod.v4, pod.v6}, "Places": map[netip.Addr]Place{pod.v4: four, pod.v6: six}})
	}
	told := Place{Index: link.Attrs().Index, Name: "lxa1", Cookie: 42}
	if got, err := find(told, told); got != 42 || err != nil {
		t.Errorf("cookie %d, %v", got, err)
	}
	elsewhere := Place{Index: other.Attrs().Index, Name: "lxa2", Cookie: 43}
	gone := Place{Index: 9999, Name: "lxa1", Cookie: 42}
	renamed := Place{Index: told.Index, Name: "lxa9", Cookie: 42}
	for what, p := range map[string][2]Place{"two places": {told, elsewhere}, "one alone": {told, {}}, "gone": {gone, gone}, "another's number": {renamed, renamed}} {
		if got, err := find(p[0], p[1]); err == nil {
			t.Errorf("%s: found, cookie %d", what, got)
		}
	}
}
