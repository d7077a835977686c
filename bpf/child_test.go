// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary the client of the socket programs, in a cgroup of
// its own.
const childEnv = "FAIRLEAD_BPF_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := serveChild(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// ask is what the child is to do. Every socket is of To's family; a v4-mapped address
// is one of v6.
type ask struct {
	Socket string // tcp, mptcp, udp: connected; sendto: one socket for all times
	To     netip.AddrPort
	Times  int
}

// answer is what came of one time.
type answer struct {
	Errno  int
	Peer   netip.AddrPort // by getpeername
	Sender netip.AddrPort // by recvfrom, of UDP
	Name   string         // that the server said
}

func serveChild(in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var a ask
		if err := dec.Decode(&a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := enc.Encode(a.do()); err != nil {
			return err
		}
	}
}

func (a ask) do() []answer {
	var out []answer
	fd := -1
	for i := range a.Times {
		if i == 0 || a.Socket != "sendto" {
			var err error
			if fd, err = a.socket(); err != nil {
				return append(out, answer{Errno: errno(err)})
			}
			defer unix.Close(fd)
		}
		out = append(out, a.once(fd))
	}
	return out
}

func (a ask) socket() (int, error) {
	domain, kind, proto := unix.AF_INET6, unix.SOCK_STREAM, 0
	if a.To.Addr().Is4() {
		domain = unix.AF_INET
	}
	switch a.Socket {
	case "mptcp":
		proto = unix.IPPROTO_MPTCP
	case "udp", "sendto":
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, err
	}
	return fd, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
}

func (a ask) once(fd int) (out answer) {
	b := make([]byte, 64)
	if a.Socket == "sendto" {
		if err := unix.Sendto(fd, []byte("?"), 0, sockaddr(a.To)); err != nil {
			return answer{Errno: errno(err)}
		}
	} else {
		if err := unix.Connect(fd, sockaddr(a.To)); err != nil {
			return answer{Errno: errno(err)}
		}
		peer, err := unix.Getpeername(fd)
		if err != nil {
			return answer{Errno: errno(err)}
		}
		out.Peer = addrPort(peer)
		if _, err := unix.Write(fd, []byte("?")); err != nil {
			return answer{Errno: errno(err)}
		}
	}
	n, from, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return answer{Errno: errno(err)}
	}
	if from != nil {
		out.Sender = addrPort(from)
	}
	out.Name = string(b[:n])
	return out
}

func errno(err error) int {
	var e syscall.Errno
	if errors.As(err, &e) {
		return int(e)
	}
	return -1
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// child is the running client.
type child struct {
	pid int
	in  *json.Encoder
	out *json.Decoder
}

// startChild starts it in the cgroup and in the caller's network namespace.
func startChild(t testing.TB, cgroup *os.File) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	// Without preemption by signal: the raw calls on sockets with a time limit are not
	// restarted after one.
	cmd.Env = append(os.Environ(), childEnv+"=1", "GODEBUG=asyncpreemptoff=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the client in its cgroup: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
	})
	return &child{cmd.Process.Pid, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}
}

func (c *child) ask(t testing.TB, socket string, to netip.AddrPort, times int) []answer {
	t.Helper()
	if err := c.in.Encode(ask{socket, to, times}); err != nil {
		t.Fatal(err)
	}
	var out []answer
	if err := c.out.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
