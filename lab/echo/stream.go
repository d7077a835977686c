// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// serveTCP accepts until the context ends, and returns when the last connection
// has ended.
func (s *Server) serveTCP(ctx context.Context, l net.Listener, kind string) {
	web := &handed{conns: make(chan net.Conn), done: make(chan struct{}), addr: l.Addr()}
	srv := s.httpServer(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(web); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("HTTP server ended", "address", l.Addr().String(), "error", err)
		}
	})
	wg.Go(func() {
		<-ctx.Done()
		_ = l.Close() // ends Accept below
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if srv.Shutdown(late) != nil {
			_ = srv.Close() // those that did not finish in time
		}
	})
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			break
		}
		if err != nil {
			s.log.Warn("accept", "address", l.Addr().String(), "error", err)
			pause(ctx, 10*time.Millisecond) // out of files, most likely
			continue
		}
		wg.Go(func() { s.serveConn(ctx, c, kind, web) })
	}
	wg.Wait()
}

// serveConn serves a connection or hands it to the HTTP server.
func (s *Server) serveConn(ctx context.Context, c net.Conn, kind string, web *handed) {
	conn := &peeked{Conn: c, r: bufio.NewReader(c)}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	if kind == "http" || kind == "auto" && conn.speaksHTTP() {
		stop()
		select {
		case web.conns <- conn:
		case <-web.done:
			_ = c.Close()
		}
		return
	}
	defer stop()
	defer c.Close()
	s.count("")
	a := s.fromConn("TCP", c.RemoteAddr(), c.LocalAddr())
	if (kind == "tls" || kind == "auto") && conn.speaksTLS() {
		inner, name, err := s.secure(conn)
		if err != nil {
			s.log.Debug("handshake", "peer", a.Peer, "error", err)
			return
		}
		conn, c, a.Protocol, a.Authority = &peeked{Conn: inner, r: bufio.NewReader(inner)}, inner, "TLS", name
	}
	who, err := json.Marshal(a)
	if err != nil {
		return
	}
	who = append(who, '\n')
	if kind == "tcp-banner" {
		if _, err := c.Write(who); err != nil {
			return
		}
	}
	giveBack(c, conn, who)
}

// giveBack echoes until one side ends; "who" gets an answer.
func giveBack(w io.Writer, r io.Reader, who []byte) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		out := buf[:n]
		if strings.TrimSpace(string(out)) == "who" {
			out = who
		}
		if _, werr := w.Write(out); err != nil || werr != nil {
			return
		}
	}
}

func (s *Server) fromConn(protocol string, peer, local net.Addr) *Answer {
	return &Answer{Facts: s.facts, Protocol: protocol, Peer: unmap(peer.String()), Local: unmap(local.String())}
}

// unmap writes an IPv4 address as such where the socket serves both families.
func unmap(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}

// peeked is a connection whose first bytes have been looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (c *peeked) Read(b []byte) (int, error) { return c.r.Read(b) }

// firstWords of HTTP: its methods, and HTTP/2's preface.
var firstWords = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI"}

// speaksHTTP waits for as many bytes as it takes to tell.
func (c *peeked) speaksHTTP() bool {
	for n := 1; ; n++ {
		b, err := c.r.Peek(n)
		if word, ok := strings.CutSuffix(string(b), " "); ok {
			return slices.Contains(firstWords, word)
		}
		begun := slices.ContainsFunc(firstWords, func(w string) bool { return strings.HasPrefix(w, string(b)) })
		if err != nil || !begun {
			return false
		}
	}
}

// handed is a listener of connections that somebody else accepted.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handed) Addr() net.Addr { return h.addr }
