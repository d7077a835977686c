// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/conformance/istio/world"
)

// Way is how a half takes a connection from a pod to an address.
type Way struct {
	To   netip.AddrPort
	Mark uint32 // of the socket: a redirect's; 0: none
	// Refused: the connection does not come about.
	Refused bool
}

// Reply is what came of one request.
type Reply struct {
	Failure string // "" or why there was no answer: refused, closed, timeout, tls
	Status  int
	Headers http.Header
	Body    string
	Took    time.Duration
	// Seen is what reached servers, in its order; the answer came from Server.
	Seen   []Arrival
	Server *Arrival
}

var sequence atomic.Int64

// patience is how long an answer may take.
const patience = 6 * time.Second

// Session sends requests of one source over connections of its own.
type Session struct {
	From netip.Addr
	Way  func(dst netip.AddrPort) Way
	Dst  netip.AddrPort
	conn net.Conn // that is kept
	h2   *http2.ClientConn
}

// Send sends the request once. Its arrivals are taken by Collect.
func (s *Session) Send(q *world.Request) (Reply, string) {
	id := fmt.Sprintf("b%d", sequence.Add(1))
	begin := time.Now()
	r, err := s.send(q, id)
	r.Took = time.Since(begin)
	if err != nil {
		r.Failure = failure(err)
	}
	if r.Failure == "" {
		var a Arrival
		if json.Unmarshal([]byte(r.Body), &a) == nil && a.Server.IsValid() {
			r.Server = &a
		}
	}
	return r, id
}

func failure(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, errRefused), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH):
		return "closed" // what a proxy accepts and closes is the same to the client
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "closed"
}

var errRefused = errors.New("refused")

func (s *Session) dial() (net.Conn, error) {
	w := s.Way(s.Dst)
	if w.Refused {
		return nil, errRefused
	}
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: s.From.AsSlice()},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			c.Control(func(fd uintptr) {
				// Above are the node proxy's own.
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, 60999<<16|32768)
				if w.Mark != 0 && err == nil {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(w.Mark))
				}
			})
			return err
		}}
	c, err := d.Dial("tcp4", w.To.String())
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	return c, nil
}

// Close ends the connection that is kept.
func (s *Session) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn, s.h2 = nil, nil
}

func (s *Session) connection(q *world.Request) (net.Conn, func(), error) {
	if s.conn != nil {
		s.conn.SetDeadline(time.Now().Add(patience))
		return s.conn, func() {}, nil
	}
	c, err := s.dial()
	if err != nil {
		return nil, nil, err
	}
	if q.Keep {
		s.conn = c
		return c, func() {}, nil
	}
	return c, func() { c.Close() }, nil
}

func (s *Session) send(q *world.Request, id string) (Reply, error) {
	c, done, err := s.connection(q)
	if err != nil {
		return Reply{}, err
	}
	defer done()
	switch q.Scheme {
	case "http":
		r, err := plain(c, q, id)
		if err != nil || r.Headers.Get("connection") == "close" {
			s.Close()
		}
		return r, err
	case "h2c", "grpc":
		return s.http2(c, q, id)
	case "tcp":
		return line(c, id)
	case "tls":
		t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: q.Authority})
		if err := t.Handshake(); err != nil {
			return Reply{}, err
		}
		return line(t, id)
	}
	return Reply{}, fmt.Errorf("scheme %q", q.Scheme)
}

// line asks a server that is no server of HTTP.
func line(c net.Conn, id string) (Reply, error) {
	if _, err := fmt.Fprintf(c, "?%s\n", id); err != nil {
		return Reply{}, err
	}
	b, err := bufio.NewReader(c).ReadString('\n')
	return Reply{Body: b}, err
}

// plain writes HTTP/1.1 as it is said: the standard library's client would not send
// every target and header.
func plain(c net.Conn, q *world.Request, id string) (Reply, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nhost: %s\r\n%s: %s\r\n", q.Method, q.Target, q.Authority, ID, id)
	if !q.Keep {
		b.WriteString("connection: close\r\n")
	}
	if q.Method == "POST" || q.Method == "PUT" || q.Method == "PATCH" {
		b.WriteString("content-length: 0\r\n")
	}
	for _, h := range q.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	if _, err := c.Write(b.Bytes()); err != nil {
		return Reply{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: q.Method})
	if err != nil {
		return Reply{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return Reply{Status: resp.StatusCode, Headers: resp.Header, Body: string(body)}, err
}

func (s *Session) http2(c net.Conn, q *world.Request, id string) (Reply, error) {
	h2 := s.h2
	if h2 == nil {
		var err error
		if h2, err = (&http2.Transport{AllowHTTP: true}).NewClientConn(c); err != nil {
			return Reply{}, err
		}
		if q.Keep {
			s.h2 = h2
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	u := q.Path()
	u.Scheme, u.Host = "http", q.Authority
	req := (&http.Request{Method: q.Method, URL: u, Host: q.Authority, Header: http.Header{}, Proto: "HTTP/2.0", ProtoMajor: 2}).WithContext(ctx)
	req.Header.Set(ID, id)
	req.Header.Set("user-agent", "bench")
	if q.Scheme == "grpc" {
		req.Header.Set("content-type", "application/grpc")
		req.Header.Set("te", "trailers")
	}
	for _, h := range q.Headers {
		req.Header.Add(h[0], h[1])
	}
	resp, err := h2.RoundTrip(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for k, v := range resp.Trailer {
		resp.Header[k] = v
	}
	return Reply{Status: resp.StatusCode, Headers: resp.Header, Body: strings.TrimSpace(string(body))}, err
}
