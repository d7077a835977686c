// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
)

// Marks of sockets, and the ports that the network takes their connections to with the
// address that was dialled kept, as a node's kernel or a pod's does.
const (
	// toPort, together with a port of the loopback address.
	toPort = 0x10000
	// Inbound: on to the pod's own port, if Cluster has given it one.
	Inbound = 0x20000
)

// First and last of the ports that Redirect can lead to: the node proxy's, and
// sidecars'.
const (
	firstNode, lastNode       = 15100, 15999
	FirstSidecar, LastSidecar = 20001, 20016
	FirstInbound, LastInbound = 20101, 20164
)

// Redirect is the mark of connections that are taken to a port of the loopback address.
func Redirect(port uint16) uint32 { return toPort | uint32(port) }

// SetUp makes the process's network namespace one in which every address is its own.
func SetUp() error {
	var rules strings.Builder
	var marks []string
	for _, r := range [][2]int{{firstNode, lastNode}, {FirstSidecar, LastSidecar}, {FirstInbound, LastInbound}} {
		for p := r[0]; p <= r[1]; p++ {
			fmt.Fprintf(&rules, "chain p%d { meta l4proto tcp tproxy ip to 127.0.0.1:%d accept; }\n", p, p)
			marks = append(marks, fmt.Sprintf("%#x : goto p%d", toPort|p, p))
		}
	}
	script := fmt.Sprintf(`
set -e
ip link set lo up
ip addr add 192.168.0.1/32 dev lo
ip route add local 0.0.0.0/1 dev lo src 192.168.0.1
ip route add local 128.0.0.0/1 dev lo src 192.168.0.1
echo "32768 65535" > /proc/sys/net/ipv4/ip_local_port_range
nft -f - <<'END'
table ip bench {
%s
map pods { type ipv4_addr : verdict; }
chain in {
	type filter hook prerouting priority mangle;
	meta mark %#x ip daddr vmap @pods
	meta mark vmap { %s }
}
chain out { # else a server's proxy would be told of the service that the client dialled
	type filter hook output priority raw;
	ct zone set 1
}
}
END
`, rules.String(), Inbound, strings.Join(marks, ", "))
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("set up network: %w: %s", err, out)
	}
	return nil
}

// Balanced is an address and port of a service, and the pods behind it.
type Balanced struct {
	At  netip.AddrPort
	Pod []netip.AddrPort
}

// Cluster makes the network the one of a scenario: services balance what nobody else has
// taken, as a cluster's own proxy does, and connections for pods that carry the mark
// Inbound go to those ports of the loopback address; others arrive.
func Cluster(services []Balanced, inbound map[netip.Addr]uint16) error {
	var b strings.Builder
	b.WriteString("table ip cluster\ndelete table ip cluster\ntable ip cluster {\n")
	var vips []string
	for i, s := range services {
		var to []string
		for j, p := range s.Pod {
			to = append(to, fmt.Sprintf("%d : %s . %d", j, p.Addr(), p.Port()))
		}
		if len(to) > 0 {
			rule := fmt.Sprintf("dnat ip to numgen random mod %d map { %s }", len(to), strings.Join(to, ", "))
			fmt.Fprintf(&b, "chain s%d { meta l4proto tcp %s; }\n", i, rule)
			vips = append(vips, fmt.Sprintf("%s . %d : goto s%d", s.At.Addr(), s.At.Port(), i))
		}
	}
	fmt.Fprintf(&b, "chain out {\n type nat hook output priority -100;\n meta mark & %#x == %#x return\n", toPort, toPort)
	if len(vips) > 0 {
		fmt.Fprintf(&b, " ip daddr . tcp dport vmap { %s }\n", strings.Join(vips, ", "))
	}
	b.WriteString("}\n}\nflush map ip bench pods\n")
	for a, p := range inbound {
		fmt.Fprintf(&b, "add element ip bench pods { %s : goto p%d }\n", a, p)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up the scenario's network: %w: %s", err, out)
	}
	return nil
}

// Listens reports whether somebody listens at a port of 127.0.0.1.
func Listens(port uint16) (bool, error) {
	b, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		return false, fmt.Errorf("look for listeners: %w", err)
	}
	return strings.Contains(string(b), fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A ", port)), nil
}
