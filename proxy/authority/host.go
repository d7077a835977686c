// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"net/netip"
	"strings"
)

// maxHost is the longest host that is looked up: the longest name in DNS and some
// port. What is longer is no name.
const maxHost = 253 + len(".:65535")

// host is a host as a request names it.
type host struct {
	// name is what frontends have: lower case, no port, no dot at the end; of an
	// address of IPv6 with its brackets.
	name string
	// sent is what Envoy compares with domains: lower case, no port.
	sent string
	addr netip.Addr // if it is one
}

// parseHost reads a host; false: it is none. The time that it takes is bounded.
func parseHost(s string) (host, bool) {
	if len(s) > maxHost {
		return host{}, false
	}
	s, ok := cutPort(s)
	if !ok {
		return host{}, false
	}
	if strings.HasPrefix(s, "[") {
		return parseHost6(s)
	}
	s = strings.ToLower(s)
	h := host{name: strings.TrimSuffix(s, "."), sent: s}
	if !isName(h.name) {
		return host{}, false
	}
	if last := h.name[len(h.name)-1]; '0' <= last && last <= '9' {
		if a, err := netip.ParseAddr(h.name); err == nil {
			h.addr = a
		}
	}
	return h, true
}

// parseHost6 reads an address in brackets. A zone is for the host that wrote it only.
func parseHost6(s string) (host, bool) {
	if !strings.HasSuffix(s, "]") {
		return host{}, false
	}
	a, err := netip.ParseAddr(s[1 : len(s)-1])
	if err != nil || !a.Is6() || a.Zone() != "" {
		return host{}, false
	}
	return host{name: "[" + a.String() + "]", sent: strings.ToLower(s), addr: a}, true
}

// cutPort cuts the port off where Envoy does when it ignores ports: at the last colon
// that is in no brackets.
func cutPort(s string) (string, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.LastIndexByte(s, ']') > i {
		return s, true
	}
	for _, c := range []byte(s[i+1:]) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return s[:i], true
}

// isName reports whether s is labels with dots between them, in lower case.
func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	label := 0 // bytes of it
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
		default:
			return false
		}
	}
	return label > 0
}

// isBare reports whether a name is one label.
func isBare(name string) bool {
	return !strings.Contains(name, ".") && !strings.HasPrefix(name, "[")
}

// namespaceOf is the namespace in the SPIFFE id of a service account; "": none.
func namespaceOf(id string) string {
	id, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return ""
	}
	_, id, _ = strings.Cut(id, "/")
	if id, ok = strings.CutPrefix(id, "ns/"); !ok {
		return ""
	}
	ns, account, _ := strings.Cut(id, "/")
	if !strings.HasPrefix(account, "sa/") {
		return ""
	}
	return ns
}
