// SPDX-License-Identifier: Apache-2.0

package load

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/lab/echo"
)

// Request is one request, or several alike.
type Request struct {
	// URL's scheme says the protocol: http (HTTP/1.1), http10 (HTTP/1.0), h2c, grpc (the
	// path is the method), ws, tcp, tcp-banner (the server speaks first), tls, udp.
	URL      string            `json:"url"`
	Protocol string            `json:"protocol,omitempty"` // in place of the scheme; h1 is http
	Method   string            `json:"method,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"` // of gRPC: metadata
	// Host is the authority in place of the URL's, of TLS the server name. HTTP/1.0 has
	// none unless it is here.
	Host string `json:"host,omitempty"`
	// Target is the request's target in place of the URL's path: an absolute URL, or
	// HOST:PORT. HTTP/1.1 and 1.0 only.
	Target string `json:"target,omitempty"`
	Body   string `json:"body,omitempty"`   // of TCP, TLS and UDP: what is sent, "who" if empty
	Repeat int    `json:"repeat,omitempty"` // 0 = 1
	Every  string `json:"every,omitempty"`  // from the begin of one repetition to that of the next
	// KeepAlive sends all repetitions over one connection.
	KeepAlive bool   `json:"keepAlive,omitempty"`
	Family    string `json:"family,omitempty"`  // "4" or "6"; "": as the system prefers
	Timeout   string `json:"timeout,omitempty"` // of each repetition; "" = 5s
	// SourcePort and SourceAddress are where to send from; 0 and "": any.
	SourcePort    uint16 `json:"sourcePort,omitempty"`
	SourceAddress string `json:"sourceAddress,omitempty"`
}

// Result is what one repetition came to. It has a Status, or an Error.
type Result struct {
	Request int                 `json:"request"`          // index in the batch
	Status  int                 `json:"status,omitempty"` // of HTTP; 101 of WebSocket; 200 of TCP and UDP that answered
	GRPC    *uint32             `json:"grpc,omitempty"`   // code
	Headers map[string][]string `json:"headers,omitempty"`
	Body    string              `json:"body,omitempty"`   // unless it is an echo server's answer
	Answer  *echo.Answer        `json:"answer,omitempty"` // the echo server's
	Error   string              `json:"error,omitempty"`  // class: dns, refused, reset, timeout, closed, unreachable, ...
	Detail  string              `json:"detail,omitempty"` // the error's own words
	Remote  string              `json:"remote,omitempty"` // address that was connected to
	Local   string              `json:"local,omitempty"`  // address that was sent from
	Time    time.Time           `json:"time"`             // when it was sent
	Millis  float64             `json:"millis"`
}

// Do sends the requests one after the other and returns their results in order.
// An error is wrong usage: what the network does is in the results.
func Do(ctx context.Context, requests []Request) ([]Result, error) {
	var out []Result
	for i, r := range requests {
		c, err := newCaller(r)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
		for n := range max(r.Repeat, 1) {
			if n > 0 {
				c.pause(ctx)
			}
			if ctx.Err() != nil {
				c.close()
				return out, nil
			}
			begin := time.Now()
			c.began = begin
			one, cancel := context.WithTimeout(ctx, c.timeout)
			res := c.call(one)
			cancel()
			res.Request, res.Time, res.Millis = i, begin, float64(time.Since(begin).Microseconds())/1000
			res.decode()
			out = append(out, res)
			if !r.KeepAlive {
				c.close()
			}
		}
		c.close()
	}
	return out, nil
}

// decode takes the echo server's answer out of the body.
func (r *Result) decode() {
	var a echo.Answer
	if json.Unmarshal([]byte(r.Body), &a) == nil && a.Protocol != "" {
		r.Answer, r.Body = &a, ""
	}
}

func failure(err error) Result { return Result{Error: classify(err), Detail: err.Error()} }

// caller sends a request's repetitions.
type caller struct {
	Request
	url     *url.URL
	addr    string
	timeout time.Duration
	every   time.Duration
	began   time.Time // the last call
	conn    net.Conn  // of the last call; what call uses again if it can
	speak   protocol
}

// protocol sends one request; state between two is its own.
type protocol interface {
	send(ctx context.Context, c *caller) Result
	close()
}

func newCaller(r Request) (*caller, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, fmt.Errorf("URL %q: %w", r.URL, err)
	}
	c := &caller{Request: r, url: u, timeout: 5 * time.Second}
	if r.Timeout != "" {
		if c.timeout, err = time.ParseDuration(r.Timeout); err != nil {
			return nil, fmt.Errorf("timeout: %w", err)
		}
	}
	if r.Every != "" {
		if c.every, err = time.ParseDuration(r.Every); err != nil {
			return nil, fmt.Errorf("every: %w", err)
		}
	}
	port := ""
	switch kind := cmp.Or(r.Protocol, u.Scheme); kind {
	case "http", "h1", "http10":
		c.speak, port = &overHTTP1{version10: kind == "http10"}, "80"
	case "h2c":
		c.speak, port = &overHTTP2{}, "80"
	case "grpc":
		c.speak, port = &overGRPC{}, "80"
	case "ws":
		c.speak, port = &overWebSocket{}, "80"
	case "tcp", "tcp-banner", "tls":
		c.speak = &overTCP{banner: kind == "tcp-banner", tls: kind == "tls"}
	case "udp":
		c.speak = &overUDP{}
	default:
		return nil, fmt.Errorf("URL %q: protocol %q is none of http, http10, h2c, grpc, ws, tcp, tcp-banner, tls, udp", r.URL, kind)
	}
	port = cmp.Or(u.Port(), port)
	if n, err := strconv.ParseUint(port, 10, 16); u.Hostname() == "" || err != nil || n == 0 {
		return nil, fmt.Errorf("URL %q: want a host and a port", r.URL)
	}
	c.addr = net.JoinHostPort(u.Hostname(), port)
	return c, nil
}

func (c *caller) call(ctx context.Context) Result {
	r := c.speak.send(ctx, c)
	if c.conn != nil {
		r.Remote, r.Local = c.conn.RemoteAddr().String(), c.conn.LocalAddr().String()
	}
	return r
}

// pause waits until it is time for the next call.
func (c *caller) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(c.began.Add(c.every))):
	}
}

func (c *caller) close() {
	c.speak.close()
	c.conn = nil
}

// dial connects, from where the request wants.
func (c *caller) dial(ctx context.Context, network string) (net.Conn, error) {
	d := net.Dialer{}
	d.SetMultipathTCP(false)
	if c.SourcePort != 0 || c.SourceAddress != "" {
		from := net.JoinHostPort(c.SourceAddress, strconv.Itoa(int(c.SourcePort)))
		var err error
		if network == "udp" {
			d.LocalAddr, err = net.ResolveUDPAddr("udp", from)
		} else {
			d.LocalAddr, err = net.ResolveTCPAddr("tcp", from)
		}
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", from, err)
		}
		// One port for a connection after the other.
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var serr error
			err := raw.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			})
			return cmp.Or(err, serr)
		}
	}
	conn, err := d.DialContext(ctx, network+c.Family, c.addr)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// RequestMain reads a JSON list of Requests and writes the list of Results.
func RequestMain(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) int {
	var requests []Request
	d := json.NewDecoder(stdin)
	d.DisallowUnknownFields()
	err := d.Decode(&requests)
	if err != nil {
		err = fmt.Errorf("read requests: %w", err)
	}
	var results []Result
	if err == nil {
		results, err = Do(ctx, requests)
	}
	if err != nil {
		fmt.Fprintln(stderr, "request:", err)
		return exitUsage
	}
	if err := json.NewEncoder(stdout).Encode(results); err != nil {
		fmt.Fprintln(stderr, "request: print results:", err)
		return exitFailed
	}
	return exitOK
}

// CallMain sends one request, for people: flags and a URL. It prints each Result,
// and exits with 1 if one of them is an error.
func CallMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var r Request
	fs := flag.NewFlagSet("call", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&r.Method, "method", "", "method")
	fs.StringVar(&r.Host, "host", "", "authority, in place of the URL's")
	fs.StringVar(&r.Body, "body", "", "what to send")
	fs.Func("header", "`NAME:VALUE` to send; repeat for more", func(v string) error { return addHeader(&r.Headers, v) })
	fs.IntVar(&r.Repeat, "repeat", 1, "how often")
	fs.BoolVar(&r.KeepAlive, "keep-alive", false, "over one connection")
	fs.StringVar(&r.Timeout, "timeout", "5s", "of each request")
	four, six := fs.Bool("4", false, "over IPv4"), fs.Bool("6", false, "over IPv6")
	flags := args
	if n := len(args); n > 0 && !strings.HasPrefix(args[n-1], "-") {
		r.URL, flags = args[n-1], args[:n-1]
	}
	if code, done := parse(fs, flags, stderr); done {
		return code
	}
	switch {
	case *four && !*six:
		r.Family = "4"
	case *six && !*four:
		r.Family = "6"
	}
	results, err := Do(ctx, []Request{r})
	if err != nil {
		fmt.Fprintln(stderr, "call:", err)
		return exitUsage
	}
	code := exitOK
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	for _, res := range results {
		if err := enc.Encode(res); err != nil || res.Error != "" {
			code = exitFailed
		}
	}
	return code
}
