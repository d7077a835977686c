// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"fairlead.io/fairlead/lab/echo"
)

// TestKinds: each kind is answered by the echo server, and what nobody answers is a
// failure, or what was wanted.
func TestKinds(t *testing.T) {
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	ports := map[Kind]string{HTTP: free(), TCP: free(), UDP: free()}
	ports[GRPC] = ports[HTTP]
	ctx, cancel := context.WithCancel(t.Context())
	var served []echo.Port
	for kind, spec := range map[Kind]string{HTTP: "http", TCP: "tcp", UDP: "udp"} {
		_, number, _ := net.SplitHostPort(ports[kind])
		p, err := echo.ParsePort(number + "=" + spec)
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, p)
	}
	done := make(chan error, 1)
	go func() {
		done <- echo.New(echo.Facts{Deployment: "d"}, slog.New(slog.DiscardHandler)).Run(ctx, served...)
	}()
	defer func() { cancel(); <-done }()
	for range 100 {
		if c, err := net.Dial("tcp", ports[TCP]); err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	nobody := free()
	for _, c := range []struct {
		name string
		s    Stream
		ok   bool
	}{
		{"http", Stream{Addr: ports[HTTP], Want: 200, By: []string{"d"}, Method: "GET", Path: "/", Keep: true}, true},
		{"http, fresh", Stream{Addr: ports[HTTP], Want: 200, By: []string{"d"}, Method: "GET", Path: "/"}, true},
		{"http by another", Stream{Addr: ports[HTTP], Want: 200, By: []string{"e"}, Method: "GET", Path: "/"}, false},
		{"http, another status", Stream{Addr: ports[HTTP], Want: 403, Method: "GET", Path: "/"}, false},
		{"grpc", Stream{Kind: GRPC, Addr: ports[GRPC], Host: "h", Keep: true}, true},
		{"tcp", Stream{Kind: TCP, Addr: ports[TCP], Keep: true}, true},
		{"udp", Stream{Kind: UDP, Addr: ports[UDP], Keep: true}, true},
		{"http of nobody", Stream{Addr: nobody, Want: 200, Method: "GET", Path: "/"}, false},
		{"grpc of nobody", Stream{Kind: GRPC, Addr: nobody, Host: "h"}, false},
		{"tcp of nobody", Stream{Kind: TCP, Addr: nobody}, false},
		{"udp of nobody", Stream{Kind: UDP, Addr: nobody}, false},
		{"forbidden, and answered", Stream{Addr: ports[HTTP], Method: "GET", Path: "/", Forbid: true}, false},
		{"forbidden, and refused by status", Stream{Addr: ports[HTTP], Method: "GET", Path: "/?status=403", Forbid: true}, true},
		{"forbidden, and answered over tcp", Stream{Kind: TCP, Addr: ports[TCP], Forbid: true}, false},
		{"forbidden, and refused", Stream{Kind: TCP, Addr: nobody, Forbid: true}, true},
	} {
		n, good := 0, 0
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		c.s.Every = time.Millisecond
		c.s.run(ctx, func(f Failure, ok bool) {
			if n++; ok {
				good++
			} else if c.ok {
				t.Errorf("%s: %v", c.name, f)
			}
			if n == 5 {
				cancel()
			}
		})
		cancel()
		if n < 5 || (good == n) != c.ok || good != 0 && good != n {
			t.Errorf("%s: %d of %d came to what was wanted", c.name, good, n)
		}
	}
}
