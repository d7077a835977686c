// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// through is a listener as opaque has it, whose connections go through a proxy: to
// target, by CONNECT or POST.
func through(target, method string) string {
	config := fmt.Sprintf("cluster: none\n          tunneling_config: {hostname: %q, use_post: %v}", target, method == http.MethodPost)
	return "static_resources:\n  listeners:" + strings.Replace(opaque(15100, "a"), "cluster: none", config, 1) + opaque(15110, "a")
}

// protocols are what a cluster may speak to a proxy.
type protocols struct{ name, options string }

var codecs = []protocols{
	{"HTTP/1.1", ""},
	{"HTTP/2.0", codec("explicit_http_config: {http2_protocol_options: {}}")},
}

func codec(options string) string {
	return `
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": E/upstreams.http.v3.HttpProtocolOptions
    ` + options
}

// tunnel is one end of what goes through a proxy.
type tunnel struct {
	io.Reader
	io.Writer
}

// connectProxy is a proxy for CONNECT and POST. It says first what it was asked, then
// does with the tunnel what it is told to for the port that was asked for; ports that are
// not there are refused.
func connectProxy(t testing.TB, addr string, ports map[string]func(tunnel)) {
	t.Helper()
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, _ := net.SplitHostPort(r.Host)
		handle := ports[port]
		if handle == nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		asked := fmt.Sprintf("%s %s %s from %s\n", r.Proto, r.Method, r.Host, host)
		if r.ProtoMajor == 1 && r.Method == http.MethodConnect {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+asked)
			handle(tunnel{rw, c})
			return
		}
		control := http.NewResponseController(w)
		control.EnableFullDuplex()
		io.WriteString(w, asked)
		control.Flush()
		handle(tunnel{r.Body, flushed{w, control}})
	})}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

type flushed struct {
	io.Writer
	control *http.ResponseController
}

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	return n, errors.Join(err, f.control.Flush())
}

func echoTunnel(t tunnel) { io.Copy(t, t) }

// wantThrough reads what the proxy was asked, and sends a line through and back.
func wantThrough(t testing.TB, what string, c net.Conn, asked string) {
	t.Helper()
	equal(t, what, readLine(t, c), asked)
	echoes(t, what, c)
}

// That connections go through a proxy is a matter of the filter: the cluster is named by
// filter state and loaded on demand all the same, each client keeps its address, and what
// the cluster speaks is spoken: HTTP/2 if it could be.
func TestConnectTunnel(t *testing.T) {
	connectProxy(t, serverA+":3128", map[string]func(tunnel){"443": echoTunnel})
	listen(t, serverB+":9000", greet("b"))
	all := append(slices.Clone(codecs), protocols{"HTTP/2.0", codec("use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}")})
	for i, k := range all {
		for j, method := range []string{http.MethodConnect, http.MethodPost} {
			t.Run(fmt.Sprint(i, method), func(t *testing.T) {
				p := start(t, through("[2001:db8::1]:443", method))
				p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), k.options, serverA+":3128")...)
				for range 2 {
					wantThrough(t, "alpha", dial(t, alpha, vip(0, 1, 80)), fmt.Sprintf("%s %s [2001:db8::1]:443 from %s", k.name, method, alpha))
					wantThrough(t, "gamma", dial(t, gamma, vip(0, 1, 80)), fmt.Sprintf("%s %s [2001:db8::1]:443 from %s", k.name, method, gamma))
				}
				if j > 0 {
					return
				}
				// Beside it, a listener without one uses such a cluster as any other.
				p.push(edsCluster(t, "tcp|a|"+vip(0, 2, 80), k.options, serverB+":9000")...)
				equal(t, "straight", readLine(t, dial(t, beta, vip(0, 2, 80))), "b "+beta)
				closedSoon(t, "no endpoints", dial(t, alpha, p.cluster(vip(0, 3, 80), k.options)))
				closedSoon(t, "unreachable", dial(t, alpha, p.cluster(vip(0, 4, 80), k.options, "10.255.0.1:80")))
			})
		}
	}
}

// What a tunnel to a proxy does to the ends of connections. Downloads are whole. Over
// HTTP/1.1 who ends first gets no answer any more, and resets look like ends; over HTTP/2
// the client may end first, and resets stay resets.
func TestConnectCloses(t *testing.T) {
	const large = 64 << 20
	got := make(chan string, 1)
	connectProxy(t, serverA+":3128", map[string]func(tunnel){
		"1": func(t tunnel) { // answers when the client has ended
			b, err := io.ReadAll(t)
			got <- fmt.Sprintf("%s %v", b, err)
			io.WriteString(t, "answer")
		},
		"2": func(t tunnel) { io.Copy(t, io.LimitReader(zeros{}, large)) },
		"3": func(t tunnel) {
			io.ReadFull(t, make([]byte, 1))
			if c, ok := t.Writer.(*net.TCPConn); ok {
				c.SetLinger(0)
				return
			}
			panic(http.ErrAbortHandler)
		},
	})
	for _, k := range codecs {
		h2 := k.name == "HTTP/2.0"
		for name, c := range map[string]struct {
			port  string
			check func(t *testing.T, c *net.TCPConn)
		}{
			"client ends first": {"1", func(t *testing.T, c *net.TCPConn) {
				io.WriteString(c, "hello")
				c.CloseWrite()
				b, err := io.ReadAll(c)
				equal(t, "answer", fmt.Sprintf("%s %v", b, err), map[bool]string{false: " <nil>", true: "answer <nil>"}[h2])
				equal(t, "the proxy got", receive(t, "what the client sent", got), "hello <nil>")
			}},
			"download": {"2", func(t *testing.T, c *net.TCPConn) {
				n, err := 0, error(nil)
				for block := make([]byte, 256<<10); err == nil; time.Sleep(5 * time.Millisecond) { // a slow reader
					var m int
					m, err = c.Read(block)
					n += m
				}
				if n != large || err != io.EOF {
					t.Errorf("%d of %d, %v", n, large, err)
				}
			}},
			"the proxy resets": {"3", func(t *testing.T, c *net.TCPConn) {
				io.WriteString(c, "1")
				if _, err := io.ReadAll(c); errors.Is(err, syscall.ECONNRESET) != h2 {
					t.Errorf("%v", err)
				}
			}},
			"the proxy refuses": {"4", nil},
		} {
			t.Run(k.name+" "+name, func(t *testing.T) {
				p := start(t, through("example.com:"+c.port, http.MethodConnect))
				conn := dial(t, alpha, p.cluster(vip(0, 1, 80), k.options, serverA+":3128"))
				if c.check == nil {
					closedSoon(t, "refused", conn)
					return
				}
				for b := make([]byte, 1); b[0] != '\n'; { // no more than what was asked
					if _, err := conn.Read(b); err != nil {
						t.Fatal(err)
					}
				}
				c.check(t, conn)
			})
		}
	}
}

// cluster pushes that of connections to a destination, and returns this.
func (p *proxy) cluster(dst, options string, endpoints ...string) string {
	p.t.Helper()
	p.push(edsCluster(p.t, "tcp|a|"+dst, options, endpoints...)...)
	return dst
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Where chains of an address name a transport protocol, a connection of that protocol finds
// no other chain of the address, but the listener's default.
func TestChainByTransport(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	host, port, _ := net.SplitHostPort(vip(2, 1, 80))
	of := func(more, cluster string) string {
		return strings.NewReplacer("HOST", host, "PORT", port, "MORE", more, "CLUSTER", cluster).Replace(`
    - name: "MORE CLUSTER"
      filter_chain_match: {destination_port: PORT, prefix_ranges: [{address_prefix: HOST, prefix_len: 32}]MORE}
      filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": E/filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: own, cluster: CLUSTER}}]`)
	}
	for name, c := range map[string]struct{ chains, want string }{
		"requests, and all others": {of(", transport_protocol: raw_buffer, application_protocols: [http/1.1]", "requests") + of("", "own"), "the default's"},
		"and what is plain": {of(", transport_protocol: raw_buffer, application_protocols: [http/1.1]", "requests") +
			of(", transport_protocol: raw_buffer", "own") + of("", "own"), "its own"},
	} {
		t.Run(name, func(t *testing.T) {
			l := strings.Replace(detect(15102, keepSource, ""), "\n    default_filter_chain:", c.chains+"\n    default_filter_chain:", 1)
			p := start(t, "static_resources:\n  listeners:"+l)
			p.push(edsCluster(t, map[string]string{"its own": "own", "the default's": "tcp|a|" + vip(2, 1, 80)}[c.want], "", serverA+":9000")...)
			conn := dial(t, alpha, vip(2, 1, 80))
			io.WriteString(conn, "\x00\x01 no request\n")
			equal(t, "by "+c.want, readLine(t, conn), "a "+alpha)
		})
	}
}
