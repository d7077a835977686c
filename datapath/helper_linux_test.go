// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// A socket belongs to the cgroup of the process that made it, and the datapath acts
// on the namespace of its process. So whatever a node or a pod does in these tests
// is done by this binary, started again in its namespace and cgroup.
const helperEnv = "FAIRLEAD_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	s := rpc.NewServer()
	if err := s.Register(&Helper{conns: map[string]net.Conn{}}); err != nil {
		panic(err)
	}
	s.ServeCodec(jsonrpc.NewServerCodec(stdio{os.Stdin, os.Stdout})) // until the test closes the pipe
}

type stdio struct {
	io.ReadCloser
	io.WriteCloser
}

func (s stdio) Close() error { return errors.Join(s.ReadCloser.Close(), s.WriteCloser.Close()) }

// process is a helper of a host, seen from the test.
type process struct {
	t testing.TB
	*rpc.Client
	cmd *exec.Cmd
}

func (n *network) start(host string) *process {
	n.t.Helper()
	h := n.hosts[host]
	exe, err := os.Executable()
	check(n.t, err)
	cg, err := os.Open(h.cgroup)
	check(n.t, err)
	defer cg.Close()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+host)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cg.Fd())}
	in, err := cmd.StdinPipe()
	check(n.t, err)
	out, err := cmd.StdoutPipe()
	check(n.t, err)
	check(n.t, inNetns(h.netns, cmd.Start))
	p := &process{t: n.t, Client: jsonrpc.NewClient(stdio{out, in}), cmd: cmd}
	n.t.Cleanup(p.stop)
	return p
}

// stop ends the process as a crash would: nothing is closed first.
func (p *process) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.Client.Close()
	_ = p.cmd.Wait()
}

func call[Reply any](p *process, method string, args any) Reply {
	p.t.Helper()
	out, err := try[Reply](p, method, args)
	if err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
	return out
}

func try[Reply any](p *process, method string, args any) (out Reply, err error) {
	return out, p.Call("Helper."+method, args, &out)
}

// Helper is what a host can be told to do.
type Helper struct {
	mu    sync.Mutex
	conns map[string]net.Conn

	datapath *Datapath
	plan     Planned
	flows    []Flow
	stop     context.CancelFunc
}

// None is no argument or no answer.
type None struct{}

// Server answers every line, or datagram, with "name client server".
type Server struct{ Network, Addr, Name string }

// Listen starts a server.
func (h *Helper) Listen(s Server, _ *None) error {
	if strings.HasPrefix(s.Network, "udp") {
		c, err := net.ListenPacket(s.Network, s.Addr)
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 1500)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s %s", s.Name, from, c.LocalAddr()), from)
			}
		}()
		return nil
	}
	l, err := net.Listen(s.Network, s.Addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c, s.Name)
		}
	}()
	return nil
}

func answer(c net.Conn, name string) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%s %s %s\n", name, c.RemoteAddr(), c.LocalAddr()); err != nil {
			return
		}
	}
}

// Client is a connection to be made.
type Client struct {
	Network, Addr string
	From          string // local address, if it matters
	Keep          string // name under which the connection stays open
	Mapped        bool   // a v4 address, dialled by a v6 socket
	Wait          time.Duration
}

// Answer is what came of it.
type Answer struct {
	Server string // its name
	Seen   string // the client's address as the server sees it
	At     string // the server's address as the server sees it
	Peer   string // the server's address as the client sees it
	Local  string
	Took   time.Duration
}

// Dial connects, asks once and closes unless the connection is to be kept.
func (h *Helper) Dial(a Client, out *Answer) error {
	if a.Wait == 0 {
		a.Wait = 2 * time.Second
	}
	start := time.Now()
	c, err := dial(a)
	if err != nil {
		return err
	}
	*out, err = ask(c, a.Wait)
	out.Took = time.Since(start)
	if a.Keep == "" || err != nil {
		return errors.Join(err, c.Close())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[a.Keep] = c
	return nil
}

// Ask uses a connection that was kept.
func (h *Helper) Ask(name string, out *Answer) (err error) {
	h.mu.Lock()
	c := h.conns[name]
	h.mu.Unlock()
	*out, err = ask(c, 2*time.Second)
	return err
}

func dial(a Client) (net.Conn, error) {
	if a.Mapped {
		return dialMapped(a)
	}
	d := net.Dialer{Timeout: a.Wait}
	if a.From != "" {
		d.Control = options(func(fd int) error { // the address need not be ours
			return errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		})
		from := netip.MustParseAddrPort(a.From)
		if strings.HasPrefix(a.Network, "udp") {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
	}
	return d.Dial(a.Network, a.Addr)
}

// dialMapped does what the net package does not: it dials ::ffff:v4.
func dialMapped(a Client) (net.Conn, error) {
	kind := unix.SOCK_STREAM
	if strings.HasPrefix(a.Network, "udp") {
		kind = unix.SOCK_DGRAM
	}
	s, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	to := netip.MustParseAddrPort(a.Addr)
	if err := unix.Connect(s, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}); err != nil {
		return nil, errors.Join(err, unix.Close(s))
	}
	f := os.NewFile(uintptr(s), "mapped")
	defer f.Close()
	return net.FileConn(f)
}

func ask(c net.Conn, wait time.Duration) (Answer, error) {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return Answer{}, err
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return Answer{}, err
	}
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil {
		return Answer{}, err
	}
	f := append(strings.Fields(string(b[:n])), "", "", "")
	return Answer{Server: f[0], Seen: f[1], At: f[2], Peer: c.RemoteAddr().String(), Local: c.LocalAddr().String()}, nil
}

// Datagrams sends to each address from one socket that is not connected and returns
// who answered as whom: "server from".
func (h *Helper) Datagrams(to []string, out *[]string) error {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 1500)
	for _, a := range to {
		ua, err := net.ResolveUDPAddr("udp", a)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo([]byte("hello\n"), ua); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		*out = append(*out, strings.Fields(string(b[:n]))[0]+" "+from.String())
	}
	return nil
}

func (h *Helper) logger() *slog.Logger {
	if os.Getenv("FAIRLEAD_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("host", os.Getenv(helperEnv))
}

func (n *network) options(node string) Options {
	return Options{
		PinDir: filepath.Join(n.pins, node), StateDir: filepath.Join(n.dir, "state-"+node), Cgroup: n.hosts[node].cgroup,
		Uplinks: []string{"eth0"}, NetnsDir: n.dir,
	}
}
