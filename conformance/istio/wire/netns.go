// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// Marks of sockets, and the ports that the network takes their connections to with the
// address that was dialled kept, as a node's kernel or a pod's does.
const (
	// toPort, together with a port of the loopback address.
	toPort = 0x10000
	// Inbound: on to the pod's own port, if SetInbound has given it one.
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
echo "32768 60999" > /proc/sys/net/ipv4/ip_local_port_range
nft -f - <<'END'
table ip bench {
%s
map pods { type ipv4_addr : verdict; }
chain in {
	type filter hook prerouting priority mangle;
	meta mark %#x ip daddr vmap @pods
	meta mark vmap { %s }
}
}
END
`, rules.String(), Inbound, strings.Join(marks, ", "))
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("set up network: %w: %s", err, out)
	}
	return nil
}

// SetInbound says to which ports of the loopback address connections for pods go that
// carry the mark Inbound; others arrive.
func SetInbound(ports map[netip.Addr]uint16) error {
	text := "flush map ip bench pods\n"
	for a, p := range ports {
		text += fmt.Sprintf("add element ip bench pods { %s : goto p%d }\n", a, p)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set inbound ports: %w: %s", err, out)
	}
	return nil
}
