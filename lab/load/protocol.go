// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func deadline(ctx context.Context) time.Time {
	t, _ := ctx.Deadline() // every call has one
	return t
}

func lowerNames(h http.Header) map[string][]string {
	out := map[string][]string{}
	for k, v := range h {
		out[strings.ToLower(k)] = v
	}
	return out
}

type overHTTP1 struct {
	version10 bool
	conn      *conn
}

func (p *overHTTP1) send(ctx context.Context, c *caller) Result {
	u := *c.url
	u.Scheme = "http"
	t, err := newTarget(u.String(), cmp.Or(c.Method, http.MethodGet), c.Host, c.Headers, c.Body)
	if err != nil {
		return failure(err)
	}
	t.request = p.rewrite(t.request, c)
	if p.conn == nil {
		nc, err := c.dial(ctx, "tcp")
		if err != nil {
			return failure(err)
		}
		p.conn = &conn{nc, bufio.NewReader(nc)}
	}
	resp, body, err := p.conn.exchange(t, deadline(ctx))
	if err != nil || resp.Close {
		defer p.close()
	}
	if err != nil {
		return failure(err)
	}
	return Result{Status: resp.StatusCode, Headers: lowerNames(resp.Header), Body: string(body)}
}

// rewrite gives a request the target that was asked for, and the form of HTTP/1.0.
func (p *overHTTP1) rewrite(request []byte, c *caller) []byte {
	line, rest, _ := strings.Cut(string(request), "\r\n")
	words := strings.Fields(line) // method, target, version
	if c.Target != "" {
		words[1] = c.Target
	}
	if p.version10 {
		words[2] = "HTTP/1.0"
		if host, others, _ := strings.Cut(rest, "\r\n"); c.Host == "" && strings.HasPrefix(host, "Host:") {
			rest = others
		}
	}
	return []byte(strings.Join(words, " ") + "\r\n" + rest)
}

func (p *overHTTP1) close() {
	if p.conn != nil {
		p.conn.close()
		p.conn = nil
	}
}

type overHTTP2 struct{ transport *http.Transport }

func (p *overHTTP2) send(ctx context.Context, c *caller) Result {
	if p.transport == nil {
		p.transport = &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return c.dial(ctx, network)
		}}
		p.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	u := *c.url
	u.Scheme = "http"
	r, err := http.NewRequestWithContext(ctx, cmp.Or(c.Method, http.MethodGet), u.String(), strings.NewReader(c.Body))
	if err != nil {
		return failure(err)
	}
	r.Host = cmp.Or(c.Host, c.url.Host)
	r.GetBody = nil // so that nothing is sent twice
	for k, v := range c.Headers {
		r.Header.Set(k, v)
	}
	resp, err := p.transport.RoundTrip(r)
	if err != nil {
		return failure(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return failure(err)
	}
	return Result{Status: resp.StatusCode, Headers: lowerNames(resp.Header), Body: string(body)}
}

func (p *overHTTP2) close() {
	if p.transport != nil {
		p.transport.CloseIdleConnections()
		p.transport = nil
	}
}

type overGRPC struct{ conn *grpc.ClientConn }

func (p *overGRPC) send(ctx context.Context, c *caller) Result {
	if p.conn == nil {
		options := []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDisableRetry(),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.dial(ctx, "tcp") }),
			grpc.WithAuthority(cmp.Or(c.Host, c.url.Host)),
		}
		conn, err := grpc.NewClient("passthrough:///"+c.addr, options...)
		if err != nil {
			return failure(err)
		}
		p.conn = conn
	}
	method := c.url.Path
	if strings.Count(method, "/") != 2 {
		method = "/fairlead.Echo/Call"
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(c.Headers))
	var header, trailer metadata.MD
	var out wrapperspb.StringValue
	err := p.conn.Invoke(ctx, method, wrapperspb.String(c.Body), &out, grpc.Header(&header), grpc.Trailer(&trailer))
	code := uint32(status.Code(err))
	r := Result{GRPC: &code, Headers: map[string][]string{}, Body: out.GetValue()}
	maps.Copy(r.Headers, header)
	maps.Copy(r.Headers, trailer)
	if err != nil {
		r.Detail = err.Error()
	}
	// gRPC gives broken connections the codes of answers; without a header there
	// was none. The server knows the deadline too, and may be the first to say so.
	switch c := codes.Code(code); {
	case c == codes.DeadlineExceeded && expired(ctx):
		r.Error = "timeout"
	case len(header) == 0 && len(trailer) == 0 && (c == codes.Unavailable || c == codes.DeadlineExceeded):
		r.Error = grpcClass(err, c)
	}
	return r
}

// expired is whether the context's deadline is over, or will be at once: the server's
// clock for it does not start with ours.
func expired(ctx context.Context) bool {
	at, ok := ctx.Deadline()
	return ok && time.Until(at) < 20*time.Millisecond
}

// grpcClass reads the reason out of gRPC's words, as it keeps no more.
func grpcClass(err error, code codes.Code) string {
	for _, c := range []struct{ words, class string }{
		{"refused", "refused"}, {"reset", "reset"}, {"no such host", classDNS}, {"unreachable", "unreachable"}, {"i/o timeout", "timeout"},
	} {
		if strings.Contains(err.Error(), c.words) {
			return c.class
		}
	}
	if code == codes.DeadlineExceeded {
		return "timeout"
	}
	return "closed"
}

func (p *overGRPC) close() {
	if p.conn != nil {
		_ = p.conn.Close() // only says that it was closed already
		p.conn = nil
	}
}

type overWebSocket struct{ conn *websocket.Conn }

// send opens a WebSocket, or uses the open one: the result of the first message is
// the server's answer, that of the others what it echoed.
func (p *overWebSocket) send(ctx context.Context, c *caller) Result {
	if p.conn == nil {
		return p.open(ctx, c)
	}
	if err := p.conn.Write(ctx, websocket.MessageText, []byte(cmp.Or(c.Body, "hello"))); err != nil {
		return failure(err)
	}
	_, b, err := p.conn.Read(ctx)
	if err != nil {
		return failure(err)
	}
	return Result{Status: http.StatusSwitchingProtocols, Body: string(b)}
}

func (p *overWebSocket) open(ctx context.Context, c *caller) Result {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return c.dial(ctx, network) }}
	header := http.Header{}
	for k, v := range c.Headers {
		header.Set(k, v)
	}
	u := *c.url
	u.Scheme = "ws"
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}, HTTPHeader: header, Host: cmp.Or(c.Host, c.url.Host)})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return Result{Status: resp.StatusCode, Headers: lowerNames(resp.Header)}
		}
		return failure(err)
	}
	p.conn = conn
	_, b, err := conn.Read(ctx)
	if err != nil {
		return failure(err)
	}
	return Result{Status: http.StatusSwitchingProtocols, Headers: lowerNames(resp.Header), Body: string(b)}
}

func (p *overWebSocket) close() {
	if p.conn != nil {
		_ = p.conn.CloseNow()
		p.conn = nil
	}
}

// question asks an echo server who it is. It is as long as what a real client says
// first: proxies that look for TLS wait for five bytes.
const question = "who     \n"

type overTCP struct {
	banner, tls bool
	conn        *conn
}

// send writes the body and reads back as many bytes, or a line where the server
// answers with one.
func (p *overTCP) send(ctx context.Context, c *caller) Result {
	greeting := ""
	if p.conn == nil {
		nc, err := c.dial(ctx, "tcp")
		if err != nil {
			return failure(err)
		}
		if err := nc.SetDeadline(deadline(ctx)); err != nil {
			return failure(err)
		}
		if p.tls {
			// Who answers is of interest, not whether it may.
			secure := tls.Client(nc, &tls.Config{ServerName: cmp.Or(c.Host, c.url.Hostname()), InsecureSkipVerify: true})
			if err := secure.HandshakeContext(ctx); err != nil {
				_ = nc.Close()
				return failure(err)
			}
			nc = secure
		}
		p.conn = &conn{nc, bufio.NewReader(nc)}
		if p.banner {
			if greeting, err = p.conn.r.ReadString('\n'); err != nil {
				p.close()
				return failure(fmt.Errorf("read banner: %w", err))
			}
		}
	}
	if err := p.conn.SetDeadline(deadline(ctx)); err != nil {
		return failure(err)
	}
	if p.banner && greeting != "" && c.Body == "" {
		return Result{Status: http.StatusOK, Body: strings.TrimSpace(greeting)}
	}
	if _, err := io.WriteString(p.conn, cmp.Or(c.Body, question)); err != nil {
		p.close()
		return failure(err)
	}
	var err error
	b := make([]byte, len(c.Body))
	if c.Body == "" {
		var line string
		line, err = p.conn.r.ReadString('\n')
		b = []byte(strings.TrimSpace(line))
	} else {
		_, err = io.ReadFull(p.conn.r, b)
	}
	if err != nil {
		p.close()
		return failure(err)
	}
	return Result{Status: http.StatusOK, Body: string(b)}
}

func (p *overTCP) close() {
	if p.conn != nil {
		p.conn.close()
		p.conn = nil
	}
}

type overUDP struct{ conn net.Conn }

func (p *overUDP) send(ctx context.Context, c *caller) Result {
	if p.conn == nil {
		conn, err := c.dial(ctx, "udp")
		if err != nil {
			return failure(err)
		}
		p.conn = conn
	}
	if err := p.conn.SetDeadline(deadline(ctx)); err != nil {
		return failure(err)
	}
	if _, err := io.WriteString(p.conn, cmp.Or(c.Body, "who")); err != nil {
		return failure(err)
	}
	b := make([]byte, 64<<10)
	n, err := p.conn.Read(b)
	if err != nil {
		return failure(err)
	}
	return Result{Status: http.StatusOK, Body: string(b[:n])}
}

func (p *overUDP) close() {
	if p.conn != nil {
		_ = p.conn.Close() // datagrams are not kept back
		p.conn = nil
	}
}
