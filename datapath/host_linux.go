// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Packets that the host is to take for its own carry a mark (see bpf/net.c). A
// rule leads them to a table whose only route says that every address is local.
const (
	toProxyMark  = 0x200
	markMask     = 0xf00
	proxyTable   = 100
	rulePriority = 100
)

// hostState is what the node had before we changed it.
type hostState struct {
	Sysctls map[string]string `json:"sysctls"`
}

// host gives the node what the redirect needs besides programs and takes it away
// again. It acts on the calling process's network namespace.
type host struct {
	file string // of hostState
}

func newHost(stateDir string) *host { return &host{file: filepath.Join(stateDir, "host.json")} }

// hostNeed is one thing that the host gets.
type hostNeed struct {
	name   string
	check  func() (Need, error)
	ensure func() error
	remove func() error
}

// sysctl is a setting of the network namespace; the name is the path below /proc/sys.
type sysctl struct{ name, want string }

func sysctls(v6 bool) []sysctl {
	out := []sysctl{
		{"net/ipv4/ip_forward", "1"},
		// The proxy's own source ports reach to the end.
		{"net/ipv4/ip_local_port_range", "32768\t65535"},
	}
	if v6 {
		out = append(out, sysctl{"net/ipv6/conf/all/forwarding", "1"})
	}
	return out
}

// hasIPv6 is false where the kernel was started without it.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

func (h *host) needs() []hostNeed {
	families := []int{unix.AF_INET}
	if hasIPv6() {
		families = append(families, unix.AF_INET6)
	}
	var out []hostNeed
	for _, f := range families {
		out = append(out, ruleNeed(f), routeNeed(f))
	}
	for _, s := range sysctls(hasIPv6()) {
		out = append(out, h.sysctlNeed(s))
	}
	return append(out, notrackNeed())
}

// ensure gives the host what it lacks and names what it had lacked.
func (h *host) ensure() (changed []string, err error) {
	for _, n := range h.needs() {
		st, err := n.check()
		if err != nil {
			return changed, fmt.Errorf("check %s: %w", n.name, err)
		}
		if st.OK {
			continue
		}
		if err := n.ensure(); err != nil {
			return changed, fmt.Errorf("set %s: %w", n.name, err)
		}
		changed = append(changed, n.name)
	}
	return changed, nil
}

func (h *host) status() []Need {
	var out []Need
	for _, n := range h.needs() {
		st, err := n.check()
		st.Name = n.name
		if err != nil {
			st.OK, st.Detail = false, err.Error()
		}
		out = append(out, st)
	}
	return out
}

// restore takes away what ensure gave. Doing it again is nothing.
func (h *host) restore(ctx context.Context) error {
	var errs []error
	for _, n := range h.needs() {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := n.remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", n.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(h.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state of the host: %w", err)
	}
	return nil
}

func familyName(family int) string {
	if family == unix.AF_INET6 {
		return "ipv6"
	}
	return "ipv4"
}

func proxyRule(family int) *netlink.Rule {
	mask := uint32(markMask)
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Mark, r.Mask = family, rulePriority, proxyTable, toProxyMark, &mask
	return r
}

func ruleNeed(family int) hostNeed {
	check := func() (Need, error) {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return Need{}, err
		}
		for _, r := range rules {
			if r.Priority == rulePriority && r.Table == proxyTable && r.Mark == toProxyMark && r.Mask != nil && *r.Mask == markMask {
				return Need{OK: true, Detail: "fwmark 0x200/0xf00 lookup 100"}, nil
			}
		}
		return Need{Detail: "fwmark 0x200/0xf00 lookup 100 is missing"}, nil
	}
	return hostNeed{
		name:   familyName(family) + " rule",
		check:  check,
		ensure: func() error { return netlink.RuleAdd(proxyRule(family)) },
		remove: func() error { return gone(netlink.RuleDel(proxyRule(family))) },
	}
}

func proxyRoute(family int) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		Family: family, LinkIndex: lo.Attrs().Index, Dst: all, Table: proxyTable,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	}, nil
}

func routeNeed(family int) hostNeed {
	check := func() (Need, error) {
		want, err := proxyRoute(family)
		if err != nil {
			return Need{}, err
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: proxyTable, Type: unix.RTN_LOCAL},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil {
			return Need{}, err
		}
		for _, r := range routes {
			if r.LinkIndex == want.LinkIndex && isDefault(r.Dst) {
				return Need{OK: true, Detail: "local default dev lo table 100"}, nil
			}
		}
		return Need{Detail: "local default dev lo table 100 is missing"}, nil
	}
	return hostNeed{
		name:  familyName(family) + " route",
		check: check,
		ensure: func() error {
			r, err := proxyRoute(family)
			if err != nil {
				return err
			}
			return netlink.RouteReplace(r)
		},
		remove: func() error {
			r, err := proxyRoute(family)
			if err != nil {
				return err
			}
			return gone(netlink.RouteDel(r))
		},
	}
}

func isDefault(n *net.IPNet) bool {
	if n == nil {
		return true
	}
	ones, _ := n.Mask.Size()
	return ones == 0
}

// gone drops an error that says that there is nothing to remove.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (h *host) sysctlNeed(s sysctl) hostNeed {
	path := filepath.Join("/proc/sys", s.name)
	current := func() (string, error) {
		b, err := os.ReadFile(path)
		return strings.TrimSpace(string(b)), err
	}
	return hostNeed{
		name: "sysctl " + strings.ReplaceAll(s.name, "/", "."),
		check: func() (Need, error) {
			v, err := current()
			return Need{OK: v == s.want, Detail: strings.ReplaceAll(v, "\t", " ")}, err
		},
		ensure: func() error {
			v, err := current()
			if err != nil {
				return err
			}
			if err := h.remember(s.name, v); err != nil {
				return err
			}
			return os.WriteFile(path, []byte(s.want), 0)
		},
		remove: func() error {
			st, err := h.load()
			if err != nil {
				return err
			}
			old, ok := st.Sysctls[s.name]
			if !ok {
				return nil
			}
			v, err := current()
			if err != nil || v != s.want {
				return err // somebody else has changed it since: theirs stands
			}
			return os.WriteFile(path, []byte(old), 0)
		},
	}
}

func (h *host) load() (hostState, error) {
	st := hostState{Sysctls: map[string]string{}}
	b, err := os.ReadFile(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("read state of the host: %w", err)
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("read state of the host: %s: %w", h.file, err)
	}
	if st.Sysctls == nil {
		st.Sysctls = map[string]string{}
	}
	return st, nil
}

// remember keeps the first value: later ones may be our own.
func (h *host) remember(name, value string) error {
	st, err := h.load()
	if err != nil {
		return err
	}
	if _, ok := st.Sysctls[name]; ok {
		return nil
	}
	st.Sysctls[name] = value
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state of the host: %w", err)
	}
	tmp := h.file + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write state of the host: %w", err)
	}
	if err := os.Rename(tmp, h.file); err != nil {
		return fmt.Errorf("write state of the host: %w", err)
	}
	return nil
}
