// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"fairlead.io/fairlead/lab/echo"
)

// target is a URL made ready: where to connect and what to write there.
type target struct {
	addr    string
	request []byte
	method  string
}

func parseTargets(o Options) ([]target, error) {
	if len(o.URLs) == 0 {
		return nil, errors.New("no URL")
	}
	var out []target
	for _, s := range o.URLs {
		t, err := newTarget(s, o.Method, o.Host, o.Headers, "")
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func newTarget(s, method, host string, headers map[string]string, body string) (target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("URL %q: %w", s, err)
	}
	if u.Scheme != "http" || u.Host == "" {
		return target{}, fmt.Errorf("URL %q: want http://HOST[:PORT]/PATH", s)
	}
	r, err := http.NewRequest(method, s, strings.NewReader(body))
	if err != nil {
		return target{}, fmt.Errorf("URL %q: %w", s, err)
	}
	r.Host = cmp.Or(host, u.Host)
	r.Header.Set("User-Agent", "fairlead-load")
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return target{}, fmt.Errorf("URL %q: %w", s, err)
	}
	return target{addr: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")), request: b.Bytes(), method: method}, nil
}

// conn is a connection of HTTP/1.1.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func dial(addr, family string, deadline time.Time) (*conn, error) {
	d := net.Dialer{Deadline: deadline}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(context.Background(), "tcp"+family, addr)
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c)}, nil
}

func (c *conn) close() { _ = c.Conn.Close() } // nothing unsaid was written

// idleState is what became of a connection while nothing was asked on it.
type idleState int

const (
	idleAlive  idleState = iota
	idleClosed           // by the other side, as it may
	idleReset            // cut
)

// idle looks without reading: a connection that was closed meanwhile is not to be
// used, as every client of HTTP must take into account.
func (c *conn) idle() idleState {
	if c.r.Buffered() > 0 {
		return idleReset // an answer to nothing
	}
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return idleReset
	}
	state := idleAlive
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		case err == nil && n == 0:
			state = idleClosed
		default:
			state = idleReset
		}
	})
	if err != nil {
		return idleReset
	}
	return state
}

// result is what a request came to.
type result struct {
	status int    // 0: no answer
	class  string // of the failure, or "status N"
	by     string // who answered
	keep   bool   // the connection may be used again
	began  time.Time
}

// maxBody bounds what is read of an answer.
const maxBody = 64 << 20

func (c *conn) request(t target, deadline time.Time) result {
	resp, body, err := c.exchange(t, deadline)
	if err != nil {
		return result{class: classify(err)}
	}
	var a echo.Answer
	by := "unknown"
	if json.Unmarshal(body, &a) == nil && a.Pod != "" {
		by = cmp.Or(a.Deployment, a.Pod)
	}
	return result{status: resp.StatusCode, class: fmt.Sprintf("status %d", resp.StatusCode), by: by, keep: !resp.Close}
}

// exchange writes a request and reads the whole answer.
func (c *conn) exchange(t target, deadline time.Time) (*http.Response, []byte, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	if _, err := c.Write(t.request); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: t.method})
	for err == nil && resp.StatusCode < 200 { // an interim answer; the final one follows
		resp, err = http.ReadResponse(c.r, &http.Request{Method: t.method})
	}
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, nil, err
	}
	return resp, body, nil
}

// classDNS is the class of names that are not known.
const classDNS = "dns"

// classify gives an error a word that is the same for all of its kind.
func classify(err error) string {
	var dns *net.DNSError
	var addr *net.AddrError // the name has no address of the family
	switch {
	case err == nil:
		return ""
	case errors.As(err, &dns), errors.As(err, &addr):
		return classDNS
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "timeout"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "not permitted"
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EADDRINUSE):
		return "no address"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	}
	return "other"
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
