// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetSysctl writes a setting of the host's network.
func (h *Helper) SetSysctl(s [2]string, _ *None) error {
	return os.WriteFile(filepath.Join(procSys, s[0]), []byte(s[1]), 0)
}

// Rules6 are the node's own rules of IPv6.
func (h *Helper) Rules6(_ None, out *[]string) error {
	rules, err := netlink.RuleList(unix.AF_INET6)
	for _, r := range rules {
		if r.Table == proxyTable {
			*out = append(*out, r.String())
		}
	}
	return err
}

// IPv6 is what preflight finds.
func (h *Helper) IPv6(uplinks []string, out *Finding) error {
	*out = ipv6(uplinks)
	return nil
}

// Where IPv6 is switched off, the datapath does without; it need not have been so before.
func TestIPv6SwitchedOff(t *testing.T) {
	for _, name := range []string{"net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/lo/disable_ipv6"} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			p := n.start("a")
			o := n.options("a")
			call[None](p, "SetSysctl", [2]string{name, "1"})
			call[None](p, "Open", o)
			call[None](p, "Sync", Planned{})
			for _, need := range call[Status](p, "Status", None{}).Host {
				if !need.OK || strings.HasPrefix(need.Name, "ipv6 ") {
					t.Errorf("%+v", need)
				}
			}
			want := Fine
			if strings.Contains(name, "/lo/") {
				want = Warning
			}
			if f := call[Finding](p, "IPv6", o.Uplinks); f.Level != want {
				t.Errorf("%+v, want %s", f, want)
			}
			call[None](p, "Close", None{})

			call[None](p, "SetSysctl", [2]string{name, "0"})
			call[None](p, "Open", o)
			has := func(s Status) bool {
				return slices.ContainsFunc(s.Host, func(n Need) bool { return n.Name == "ipv6 route" && n.OK })
			}
			if st := call[Status](p, "Status", None{}); !has(st) {
				t.Errorf("switched on: %+v", st.Host)
			}
			call[None](p, "Close", None{})
			call[None](p, "SetSysctl", [2]string{name, "1"})
			call[None](p, "Uninstall", o)
			if left := call[[]string](p, "Rules6", None{}); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
