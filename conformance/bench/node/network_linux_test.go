// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/proxy"
)

const inNamespace = "FAIRLEAD_BENCH_NAMESPACE"

// TestMain runs everything again in network and process namespaces of its own. All of
// it, Envoys too, is gone with the first process, however that ends.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inNamespace) != "" {
		// Processes are looked for, and measured, by the numbers of this namespace.
		err := errors.Join(
			syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
			syscall.Mount("proc", "/proc", "proc", 0, ""))
		if err != nil {
			fmt.Fprintln(os.Stderr, "mount /proc:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The network, all on loopback: what a client sends to a service's address is
// redirected to a listener of the Envoy under test (10.96.0.0/16) or of the bare one
// (10.97.0.0/16); every endpoint (10.128.0.0/9) is the same server.
const (
	client     = "10.10.0.1"
	outPort    = 15101
	barePort   = 15301
	serverPort = 8080

	network = `
set -e
ip link set lo up
ip addr add ` + client + `/32 dev lo
ip route add local 10.10.1.0/24 dev lo
echo "32768 65535" > /proc/sys/net/ipv4/ip_local_port_range
echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse
ip route add local 10.128.0.0/9 dev lo
ip route add 10.96.0.0/15 dev lo src ` + client + `
ip rule add fwmark 0x200/0xf00 lookup 100
ip route add local default dev lo table 100
`
)

// Addresses of the i-th service, of its endpoints, and of the one of the bare Envoy.
func vip(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
}

func endpointOf(i, n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(128 + n), byte(i >> 8), byte(i)}), serverPort)
}

var bareVIP = netip.MustParseAddrPort("10.97.0.1:80")

// flip redirects clients to the listeners of a bank, or of the other one where nobody
// listens; where nobody does at all clients try again. As the kernel programs do.
func flip(bank int) error {
	to := func(bank int) int { return outPort + bank*proxy.BankPorts }
	rules := fmt.Sprintf(`
table inet t {}
delete table inet t
table inet t {
	chain out {
		type route hook output priority mangle
		ip daddr 10.96.0.0/15 meta mark set 0x200
	}
	chain in {
		type filter hook prerouting priority mangle
		meta l4proto tcp ip daddr 10.96.0.0/16 tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.96.0.0/16 tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept
		meta l4proto tcp ip daddr 10.97.0.0/16 tproxy ip to 127.0.0.1:%d meta mark set 0x200 accept
		ip daddr 10.96.0.0/15 tcp flags & (syn | ack) == syn drop
	}
}
`, to(bank), to(1-bank), barePort)
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("redirect to bank %d: %w: %s", bank, err, out)
	}
	return nil
}

var setUp = sync.OnceValue(func() error {
	out, err := exec.Command("sh", "-c", network).CombinedOutput()
	if err != nil {
		return fmt.Errorf("set up network: %w: %s", err, out)
	}
	if err := flip(0); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
	if err != nil {
		return err
	}
	body := []byte("ok\n") // to the end of the process
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(body)
	}))
	return nil
})

// needNetwork needs the benchmark's network.
func needNetwork(b *testing.B) {
	b.Helper()
	need.Root(b)
	need.Command(b, "ip")
	need.Command(b, "nft")
	if err := setUp(); err != nil {
		b.Fatal(err)
	}
	if err := flip(0); err != nil {
		b.Fatal(err)
	}
}
