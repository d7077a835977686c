// SPDX-License-Identifier: Apache-2.0

// forward lets programs of this machine reach a test cluster's API server: it listens
// on a loopback address here, and connects from inside a network namespace. The machine's
// own network stays as it is.
//
//	forward -netns FILE -to HOST:PORT -listen 127.0.0.1:0 -address-file FILE
//
// The address that it listens on is written to the address file. It changes into the
// namespace by starting itself anew there, with the open listener: a process of Go's
// has many threads and cannot move.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// listenerFD is where the second start finds the listener.
const listenerFD = 3

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on, here")
	netns := flag.String("netns", "", "`file` of the network namespace to connect from")
	to := flag.String("to", "", "`address` to connect to, there")
	addressFile := flag.String("address-file", "", "`file` for the address that is listened on")
	inside := flag.Bool("inside", false, "serve the open listener: the second start")
	flag.Parse()
	var err error
	switch {
	case *to == "" || flag.NArg() > 0:
		flag.Usage()
		os.Exit(2)
	case *inside:
		err = serve(*to)
	default:
		err = enter(*listen, *netns, *to, *addressFile)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		os.Exit(1)
	}
}

// enter opens the listener and becomes the second start.
func enter(listen, netns, to, addressFile string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	if err := syscall.Dup3(int(f.Fd()), listenerFD, 0); err != nil && int(f.Fd()) != listenerFD {
		return fmt.Errorf("pass on the listener: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	if err := os.WriteFile(addressFile, []byte(l.Addr().String()+"\n"), 0o644); err != nil {
		return err
	}
	return syscall.Exec(nsenter, []string{"nsenter", "--net=" + netns, self, "-inside", "-to", to}, os.Environ())
}

func serve(to string) error {
	l, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		return fmt.Errorf("take up the listener: %w", err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go join(c, to)
	}
}

// join copies both ways until both have ended.
func join(c net.Conn, to string) {
	defer c.Close()
	d, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		return
	}
	defer d.Close()
	var both sync.WaitGroup
	both.Go(func() { pass(d, c) })
	both.Go(func() { pass(c, d) })
	both.Wait()
}

// pass copies one way and then ends that half.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil && !errors.Is(err, net.ErrClosed) {
		// One half is broken: the other cannot end by itself.
		to.Close()
		from.Close()
		return
	}
	_ = to.(*net.TCPConn).CloseWrite() // it may be gone already
}
