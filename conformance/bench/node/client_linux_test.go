// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// target is what clients know of a service.
type target struct {
	addr netip.AddrPort
	host string
}

func to(i int) target { return target{vip(i), hostOf(i)} }

var toBare = target{bareVIP, "bare"}

// conn is a client's connection.
type conn struct {
	net.Conn
	r    *bufio.Reader
	host string
}

func (t target) connect(limit time.Duration) (*conn, error) {
	return t.connectFrom(netip.IPv4Unspecified(), limit)
}

// connectFrom is connect from an address of the client's.
func (t target) connectFrom(from netip.Addr, limit time.Duration) (*conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c, err := d.DialContext(ctx, "tcp4", t.addr.String())
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c), t.host}, nil
}

// get is the answer to a request.
func (c *conn) get(limit time.Duration) (*http.Response, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nhost: %s\r\n\r\n", c.host); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// once sends a request on a connection of its own, and says how long both took.
func (t target) once(limit time.Duration) (time.Duration, error) {
	began := time.Now()
	c, err := t.connect(limit)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	resp, err := c.get(limit)
	took := time.Since(began)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s", resp.Status)
	}
	return took, err
}

// mustOnce is once where everything is there.
func (t target) mustOnce(b *testing.B) time.Duration {
	b.Helper()
	took, err := t.once(15 * time.Second)
	if err != nil {
		b.Fatalf("request to %s: %v", t.addr, err)
	}
	return took
}

// waitServed asks again and again until a destination answers 200.
func (t target) waitServed(b *testing.B, limit time.Duration) {
	b.Helper()
	// Where nobody listens an attempt is lost; a client's kernel would try again after
	// a second, which is too coarse here.
	const attempt = 100 * time.Millisecond
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
		var c *conn
		if c, err = t.connect(attempt); err != nil {
			continue
		}
		var resp *http.Response
		resp, err = c.get(15 * time.Second) // it may wait for its routes
		c.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return
		}
		if err == nil {
			err = fmt.Errorf("answered %s", resp.Status)
		}
	}
	b.Fatalf("%s was not served within %v: %v", t.addr, limit, err)
}

// waitFor asks on a kept connection until an answer is as it should be.
func (t target) waitFor(b *testing.B, what string, ok func(*http.Response) bool) {
	b.Helper()
	c, err := t.connect(time.Second)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	c.waitFor(b, what, ok)
}

func (c *conn) waitFor(b *testing.B, what string, ok func(*http.Response) bool) {
	b.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		resp, err := c.get(15 * time.Second)
		if err != nil {
			b.Fatalf("wait for %s: %v", what, err)
		}
		if ok(resp) {
			return
		}
	}
	b.Fatalf("waited in vain for %s", what)
}
