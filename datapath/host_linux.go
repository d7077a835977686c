// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Packets that the host is to take for its own carry a mark (see bpf/fl_policy.h). A
// rule leads them to a table whose only route says that every address is local.
const (
	toProxyMark  = 0x200
	markMask     = 0xf00
	proxyTable   = 100
	rulePriority = 100
)

// hostState is what the node had before we changed it.
type hostState struct {
	Sysctls map[string]changed `json:"sysctls"`
}

type changed struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// host gives the node what the redirect needs besides programs and takes it away
// again. It acts on the calling process's network namespace.
type host struct {
	file    string // of hostState
	sysctls string // folder of settings that may be written
	uplinks []string
	had     map[string]changed // of hostState, as last read or written
}

func newHost(opt Options) *host {
	return &host{file: filepath.Join(opt.StateDir, "host.json"), sysctls: cmp.Or(opt.SysctlDir, procSys), uplinks: opt.Uplinks}
}

// hostNeed is one thing that the host gets.
type hostNeed struct {
	name   string
	check  func() (Need, error)
	ensure func() error
	remove func() error // nil: sysctls are restored from hostState
}

// sysctl is a setting of the network namespace; the name is the path below /proc/sys.
type sysctl struct {
	name, want string
	// only, if it is not "", is the one value that has to be changed.
	only string
}

const forwarding6 = "net/ipv6/conf/all/forwarding"

// settings are in the order in which they are set.
func (h *host) settings() ([]sysctl, error) {
	ports, err := readSysctl(portRange)
	if err != nil {
		return nil, err
	}
	out := []sysctl{
		{name: "net/ipv4/ip_forward", want: "1"},
		{name: portRange, want: widened(ports)},
		// The proxy has few source ports for a client and a backend, and closes connections
		// with each change. Without it each is lost for a minute.
		{name: "net/ipv4/tcp_tw_reuse", want: "1"},
		// What the node sends to its own proxy comes back by loopback.
		{name: "net/ipv4/conf/lo/accept_local", want: "1"},
		{name: "net/ipv4/conf/lo/src_valid_mark", want: "1"},
	}
	if !hasIPv6() {
		return out, nil
	}
	st, err := h.load()
	if err != nil {
		return nil, err
	}
	now, err := readSysctl(forwarding6)
	if err != nil {
		return nil, err
	}
	if _, ours := st.Sysctls[forwarding6]; ours || now == "0" {
		// A host that starts to forward would forget the routers that it has heard of.
		for _, uplink := range h.uplinks {
			s := sysctl{name: "net/ipv6/conf/" + uplink + "/accept_ra", want: "2", only: "1"}
			if _, err := readSysctl(s.name); err == nil { // else it is not there
				out = append(out, s)
			}
		}
	}
	return append(out, sysctl{name: forwarding6, want: "1"}), nil
}

// hasIPv6 is false where the kernel was started without it, and where it is switched off for
// loopback, which the redirect leads to.
func hasIPv6() bool {
	off, err := readSysctl("net/ipv6/conf/lo/disable_ipv6")
	return err == nil && off == "0"
}

func (h *host) needs() ([]hostNeed, error) {
	out := redirectNeeds(unix.AF_INET)
	if hasIPv6() {
		out = append(out, redirectNeeds(unix.AF_INET6)...)
	}
	settings, err := h.settings()
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		out = append(out, h.sysctlNeed(s))
	}
	return append(out, nftNeed()), nil
}

// redirectNeeds lead packets of a family to the proxy.
func redirectNeeds(family int) []hostNeed { return []hostNeed{ruleNeed(family), routeNeed(family)} }

// ensure gives the host what it lacks and names what it had lacked.
func (h *host) ensure() (lacked []string, err error) {
	needs, err := h.needs()
	if err != nil {
		return nil, err
	}
	for _, n := range needs {
		st, err := n.check()
		if err != nil {
			return lacked, fmt.Errorf("check %s: %w", n.name, err)
		}
		if st.OK {
			continue
		}
		if err := n.ensure(); err != nil {
			return lacked, fmt.Errorf("set %s: %w", n.name, err)
		}
		lacked = append(lacked, n.name)
	}
	return lacked, nil
}

func (h *host) status() ([]Need, error) {
	needs, err := h.needs()
	if err != nil {
		return nil, err
	}
	var out []Need
	for _, n := range needs {
		st, err := n.check()
		st.Name = n.name
		if err != nil {
			st.OK, st.Detail = false, err.Error()
		}
		out = append(out, st)
	}
	return out, nil
}

// restore takes away what ensure gave. Doing it again is nothing.
func (h *host) restore(ctx context.Context) error {
	needs, err := h.needs()
	if err != nil {
		return err
	}
	if _, err := os.Stat(procSys + "/net/ipv6"); err == nil && !hasIPv6() {
		needs = append(needs, redirectNeeds(unix.AF_INET6)...) // it may have been switched off since
	}
	var errs []error
	for _, n := range needs {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if n.remove == nil {
			continue
		}
		if err := n.remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", n.name, err))
		}
	}
	errs = append(errs, h.restoreSysctls())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(h.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state of the host: %w", err)
	}
	return nil
}

// restoreSysctls leaves those alone that somebody else has changed since. Last set,
// first restored.
func (h *host) restoreSysctls() error {
	st, err := h.load()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(st.Sysctls))) {
		v, err := readSysctl(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its interface is gone
		}
		if err == nil && v == st.Sysctls[name].New {
			err = h.writeSysctl(name, st.Sysctls[name].Old)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("restore sysctl %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
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

// procSys shows the settings of the network namespace of who looks.
const procSys = "/proc/sys"

func readSysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(procSys, name))
	return strings.TrimSpace(string(b)), err
}

func (h *host) writeSysctl(name, value string) error {
	err := os.WriteFile(filepath.Join(h.sysctls, name), []byte(value), 0)
	if errors.Is(err, unix.EROFS) && h.sysctls == procSys {
		return fmt.Errorf("%w: in a container, mount the node's /proc/sys/net elsewhere, and name that place", err)
	}
	return err
}

func (h *host) sysctlNeed(s sysctl) hostNeed {
	return hostNeed{
		name: "sysctl " + strings.ReplaceAll(s.name, "/", "."),
		check: func() (Need, error) {
			v, err := readSysctl(s.name)
			ok := v == s.want || s.only != "" && v != s.only
			return Need{OK: ok, Detail: strings.ReplaceAll(v, "\t", " ")}, err
		},
		ensure: func() error {
			v, err := readSysctl(s.name)
			if err != nil {
				return err
			}
			if err := h.remember(s.name, changed{Old: v, New: s.want}); err != nil {
				return err
			}
			return h.writeSysctl(s.name, s.want)
		},
	}
}

func (h *host) load() (hostState, error) {
	st := hostState{Sysctls: map[string]changed{}}
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
		st.Sysctls = map[string]changed{}
	}
	h.had = st.Sysctls
	return st, nil
}

// leave writes what the node had before, where somebody has removed it: without it the node
// could not be given back as it was.
func (h *host) leave() error {
	_, err := os.Lstat(h.file)
	if !errors.Is(err, fs.ErrNotExist) || len(h.had) == 0 {
		return err
	}
	return h.save(hostState{Sysctls: h.had})
}

// remember keeps the first value: later ones may be our own.
func (h *host) remember(name string, c changed) error {
	st, err := h.load()
	if err != nil {
		return err
	}
	if _, ok := st.Sysctls[name]; ok {
		return nil
	}
	st.Sysctls[name] = c
	h.had = st.Sysctls
	return h.save(st)
}

func (h *host) save(st hostState) error {
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
