// SPDX-License-Identifier: Apache-2.0

// Package wire has what both halves are tried with: servers that answer at every
// address, and clients that send from any.
package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// EchoPorts are the ports at which every address answers.
var EchoPorts = []uint16{80, 443, 3306, 8000, 8080, 8443, 9000, 9090}

// Arrival is a request, or a connection, that came to a server.
type Arrival struct {
	Server    netip.AddrPort      `json:"server"`
	Peer      netip.AddrPort      `json:"peer"`
	Proto     string              `json:"proto"` // HTTP/1.1, HTTP/2.0, tcp or tls
	Method    string              `json:"method,omitempty"`
	Authority string              `json:"authority,omitempty"` // of tls: the server name; of a tunnel: its target
	Path      string              `json:"path,omitempty"`
	Headers   map[string][]string `json:"headers,omitempty"`
}

// ID of a request by which the client knows its arrivals.
const ID = "x-bench-id"

// Echo is the servers.
type Echo struct {
	cert  tls.Certificate
	close []func()

	mu    sync.Mutex
	judge func(from, to netip.AddrPort) bool // nil: all connections may be
	seen  map[string][]Arrival
}

// NewEcho listens on every address at EchoPorts.
func NewEcho() (*Echo, error) {
	e := &Echo{seen: map[string][]Arrival{}}
	var err error
	if e.cert, err = selfSigned("echo"); err != nil {
		return nil, err
	}
	in := &queue{conns: make(chan net.Conn), done: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: e, Protocols: protocols, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
	go srv.Serve(in)
	e.close = append(e.close, func() { srv.Close() })
	for _, p := range EchoPorts {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", p))
		if err != nil {
			e.Close()
			return nil, err
		}
		e.close = append(e.close, func() { l.Close() })
		go e.accept(l, in)
	}
	return e, nil
}

// Close ends the servers.
func (e *Echo) Close() {
	for _, c := range slices.Backward(e.close) {
		c()
	}
}

// Judge has connections be judged from now on; nil: all may be.
func (e *Echo) Judge(f func(from, to netip.AddrPort) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.judge = f
}

func (e *Echo) accept(l net.Listener, in *queue) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go e.connection(c.(*net.TCPConn), in)
	}
}

// connection finds out what a connection is by its first bytes.
func (e *Echo) connection(c *net.TCPConn, in *queue) {
	e.mu.Lock()
	judge := e.judge
	e.mu.Unlock()
	if judge != nil && !judge(addrOf(c.RemoteAddr()), addrOf(c.LocalAddr())) {
		reset(c)
		return
	}
	b := &peeked{TCPConn: c, r: bufio.NewReader(c)}
	first, err := b.r.Peek(1)
	if err != nil {
		c.Close()
		return
	}
	switch {
	case first[0] == 0x16:
		e.secure(b, nil)
	case first[0] == '?': // a client of tcp
		e.opaque(b, nil)
	default:
		in.put(b)
	}
}

// opaque answers each line "?ID" with who it came to; through what, if it is a tunnel.
func (e *Echo) opaque(c net.Conn, through *http.Request) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		a := Arrival{Server: addrOf(c.LocalAddr()), Peer: addrOf(c.RemoteAddr()), Proto: "tcp"}
		if t, ok := c.(*tls.Conn); ok {
			a.Proto, a.Authority = "tls", t.ConnectionState().ServerName
		}
		if q := through; q != nil {
			inside := a.Proto + " " + a.Authority
			a.Proto, a.Method, a.Authority, a.Path = q.Proto, q.Method, q.Host, inside
		}
		e.note(strings.TrimSpace(strings.TrimPrefix(line, "?")), a)
		if json.NewEncoder(c).Encode(a) != nil {
			return
		}
	}
}

func (e *Echo) secure(c net.Conn, through *http.Request) {
	e.opaque(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{e.cert}}), through)
}

func (e *Echo) note(id string, a Arrival) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[id] = append(e.seen[id], a)
	return len(e.seen[id])
}

// Take returns what came of a request, and forgets it.
func (e *Echo) Take(id string) []Arrival {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.seen[id]
	delete(e.seen, id)
	return a
}

type connKey struct{}

// ServeHTTP answers with the arrival. Headers of the request tell it to fail:
// x-echo-status with a status, x-echo-fail-first how often, x-echo-delay to wait,
// x-echo-reset to break the connection. One that is no client's own asks for a tunnel.
func (e *Echo) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	c := q.Context().Value(connKey{}).(net.Conn)
	if q.Header.Get(ID) == "" && (q.Method == http.MethodConnect || q.Method == http.MethodPost) {
		e.tunnel(w, q, c)
		return
	}
	a := Arrival{Server: addrOf(c.LocalAddr()), Peer: addrOf(c.RemoteAddr()), Proto: q.Proto, Method: q.Method,
		Authority: q.Host, Path: q.RequestURI, Headers: map[string][]string{}}
	for k, v := range q.Header {
		a.Headers[strings.ToLower(k)] = v
	}
	n := e.note(q.Header.Get(ID), a)
	io.Copy(io.Discard, q.Body)
	first, err := strconv.Atoi(q.Header.Get("x-echo-fail-first"))
	fails := err != nil || n <= first
	if d, err := time.ParseDuration(q.Header.Get("x-echo-delay")); err == nil && fails {
		select {
		case <-time.After(d):
		case <-q.Context().Done():
		}
	}
	if q.Header.Get("x-echo-reset") != "" && fails {
		if p, ok := c.(*peeked); ok {
			reset(p.TCPConn)
		}
		panic(http.ErrAbortHandler)
	}
	status := http.StatusOK
	if s, err := strconv.Atoi(q.Header.Get("x-echo-status")); err == nil && fails {
		status = s
	}
	w.Header().Set("x-echo", "1")
	w.Header().Set("x-upstream-only", "u")
	if v := q.Header.Get("x-echo-header"); v != "" {
		k, v, _ := strings.Cut(v, "=")
		w.Header().Set(k, v)
	}
	if strings.HasPrefix(q.Header.Get("content-type"), "application/grpc") {
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("trailer", "grpc-status")
		w.WriteHeader(http.StatusOK)
		json.NewEncoder(w).Encode(a)
		g := q.Header.Get("x-echo-grpc")
		if g == "" || !fails {
			g = "0"
		}
		w.Header().Set("grpc-status", g)
		return
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(a)
}

func addrOf(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// reset closes as who refuses does.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// peeked is a connection whose first byte was looked at.
type peeked struct {
	*net.TCPConn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// queue is a listener for connections that were accepted elsewhere.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }
