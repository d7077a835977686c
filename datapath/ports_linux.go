// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"strconv"
	"strings"
)

// Settings of the node's source ports.
const (
	portRange     = "net/ipv4/ip_local_port_range"
	portsReserved = "net/ipv4/ip_local_reserved_ports"
)

// proxyPorts are the source ports of the proxy's connections to pods, by what they say of the
// destination's policy: see bpf/fl_policy.h. The kernel gives a socket none that is out of the
// node's range, and none that is reserved.
var proxyPorts = []struct {
	first, last int
	of          string
}{
	{61000, 62399, "connections whose policy was judged"},
	{62400, 63263, "connections that the destination's inbound listener judges"},
	{63264, 65535, "connections whose policy was not judged"},
}

// widened is the range of source ports that has the proxy's as well. Where it begins is the
// node's own business.
func widened(now string) string {
	const usual = 32768
	f := strings.Fields(now)
	if len(f) != 2 {
		return fmt.Sprintf("%d\t65535", usual)
	}
	first, err := strconv.Atoi(f[0])
	if err != nil || first > proxyPorts[0].first {
		first = usual
	}
	return fmt.Sprintf("%d\t65535", first)
}

// sourcePorts looks whether the node keeps the proxy's source ports back. Processes of the
// node may use them: their connections have not the proxy's mark, and not a pod's address.
func sourcePorts() Finding {
	f := Finding{Name: "source ports", Level: Fine}
	reserved, err := readSysctl(portsReserved)
	if err == nil {
		return reservedPorts(reserved)
	}
	f.Level, f.Detail = Warning, "it cannot be seen which are reserved: "+err.Error()
	return f
}

// reservedPorts judges a list as the kernel writes it, "22,61000-61099".
func reservedPorts(list string) Finding {
	f := Finding{Name: "source ports", Level: Fine, Detail: fmt.Sprintf("none of the proxy's, %d-%d, is reserved", proxyPorts[0].first, proxyPorts[len(proxyPorts)-1].last)}
	var lacks []string
	for _, p := range proxyPorts {
		taken := 0
		for part := range strings.SplitSeq(list, ",") {
			a, b, isRange := strings.Cut(strings.TrimSpace(part), "-")
			if !isRange {
				b = a
			}
			first, errA := strconv.Atoi(a)
			last, errB := strconv.Atoi(b)
			if errA == nil && errB == nil {
				taken += max(0, min(last, p.last)-max(first, p.first)+1)
			}
		}
		all := p.last - p.first + 1
		switch {
		case taken == all:
			f.Level = Problem
		case taken > 0 && f.Level == Fine:
			f.Level = Warning
		}
		if taken > 0 {
			lacks = append(lacks, fmt.Sprintf("%d of %d for %s", taken, all, p.of))
		}
	}
	if len(lacks) > 0 {
		f.Detail = fmt.Sprintf("net.ipv4.ip_local_reserved_ports (%s) keeps back the proxy's: %s", list, strings.Join(lacks, ", "))
		f.Advice = "a client's connections to a backend fail when there are no more: reserve none from 61000 on"
	}
	return f
}
