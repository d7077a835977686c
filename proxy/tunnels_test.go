// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// tunnelProxy is an HTTP proxy that says to whom it was asked to lead what comes from
// where, by what, and then is that target: an echo, also of what a client of TLS says first.
func tunnelProxy(t *testing.T, addr string) {
	t.Helper()
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		asked := fmt.Sprintf("%s %s %s from %s\n", r.Proto, r.Method, r.Host, host)
		control := http.NewResponseController(w)
		if r.ProtoMajor == 1 && r.Method == http.MethodConnect {
			c, rw, err := control.Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+asked)
			io.Copy(c, rw)
			return
		}
		control.EnableFullDuplex()
		io.WriteString(w, asked)
		for b := make([]byte, 1024); control.Flush() == nil; {
			n, err := r.Body.Read(b)
			if w.Write(b[:n]); err != nil {
				return
			}
		}
	})}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

func ledOn(cluster, dst string, to *model.Tunnel) plan.Tunnelled {
	a := netip.MustParseAddrPort(dst)
	return plan.Tunnelled{At: netip.PrefixFrom(a.Addr(), 32), Port: a.Port(), Cluster: cluster, Tunnel: to}
}

// proxiedBy is the cluster of connections to a destination that are led on.
func proxiedBy(class, dst string, to *model.Tunnel, backends ...string) []any {
	return clusterOf(plan.Cluster{Name: plan.ConnectionCluster(class, netip.MustParseAddrPort(dst)), App: model.AppTCP,
		Traffic: &model.TrafficPolicy{Tunnel: to}}, backends...)
}

// Connections to an address, of a class of clients, go through the proxy that is behind it,
// by CONNECT or POST and in either protocol, with the client's address. All others, and
// those that are open when a tunnel comes or goes, know nothing of it.
func TestTunnels(t *testing.T) {
	const proxyAddr = "10.244.2.11:3128"
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	tunnelProxy(t, proxyAddr)
	connect1, post1 := &model.Tunnel{Host: "a.example.com", Port: 443}, &model.Tunnel{Host: "2001:db8::1", Port: 443, Post: true}
	connect2, post2 := &model.Tunnel{Host: "a.example.com", Port: 443, HTTP2: true}, &model.Tunnel{Host: "a.example.com", Port: 443, Post: true, HTTP2: true}
	all := []*model.Tunnel{connect1, post1, connect2, post2}
	r.push(rows(connectionsTo("", opaqueVIP(9), tcpA), modeListeners())...)
	usual := connect(t, alpha, opaqueVIP(9))
	line(t, usual)

	opaque := &plan.Listener{Name: "out/opaque/alpha", Mode: plan.Opaque, Identity: alphaID, Selects: []string{"p1"}, Class: "alpha"}
	for i, to := range all {
		r.push(rows(proxiedBy("alpha", opaqueVIP(i+1), to, proxyAddr))...)
		r.push(rows(connectionsTo("", opaqueVIP(i+1), tcpA))...)
		opaque.Tunnels = append(opaque.Tunnels, ledOn(plan.ConnectionCluster("alpha", netip.MustParseAddrPort(opaqueVIP(i+1))), opaqueVIP(i+1), to))
	}
	r.push(opaque)
	for i, want := range []string{"HTTP/1.1 CONNECT a.example.com:443", "HTTP/1.1 POST [2001:db8::1]:443", "HTTP/2.0 CONNECT a.example.com:443", "HTTP/2.0 POST a.example.com:443"} {
		c := connect(t, alpha, opaqueVIP(i+1))
		if got := line(t, c); got != want+" from "+alpha {
			t.Errorf("%q, want %q", got, want)
		}
		pings(t, want, c)
		r.wantGreeting("another class", beta, opaqueVIP(i+1), "a "+beta)
	}
	r.wantGreeting("another address of the port", alpha, opaqueVIP(9), "a "+alpha)
	pings(t, "tunnels have come", usual)
	inside := connect(t, alpha, opaqueVIP(1))
	line(t, inside)
	opaque.Tunnels = nil
	r.push(opaque)
	pings(t, "tunnels have gone", usual)
	pings(t, "a tunnel that is open", inside)
}

// Of TLS those are led on that ask for the names of the route; of what is detected those
// that are no requests.
func TestTunnelsByWhatIsRead(t *testing.T) {
	const proxyAddr = "10.244.2.11:3128"
	r := newRig(t)
	tlsServer(t, "b", tlsB)
	server(t, serverA, nil)
	tunnelProxy(t, proxyAddr)
	through := &model.Tunnel{Host: "a.example.com", Port: 443}
	dst := tlsVIP(1, 443)
	wide, narrow := plan.ServerNameCluster("*.example.com", "", netip.MustParseAddrPort(dst)), plan.ServerNameCluster("b.example.com", "", netip.MustParseAddrPort(dst))
	listeners := modeListeners("*.example.com", "a.example.com", "b.example.com")
	for _, l := range listeners {
		switch l := l.(*plan.Listener); l.Mode {
		case plan.TLS:
			l.Tunnels = []plan.Tunnelled{ledOn(wide, dst, through), ledOn(narrow, dst, nil)}
		case plan.Detect:
			l.Tunnels = []plan.Tunnelled{ledOn(plan.ConnectionCluster("", netip.MustParseAddrPort(detectVIP(1, 80))), detectVIP(1, 80), through)}
		}
	}
	r.push(rows(clusterOf(plan.Cluster{Name: "a", App: model.AppHTTP}, serverA),
		[]any{&plan.RouteTable{Name: "r", Routes: []plan.Route{to("a")}}, &plan.Scope{Key: detectVIP(1, 80), RouteTable: "r"}},
		clusterOf(plan.Cluster{Name: wide, App: model.AppTCP, Traffic: &model.TrafficPolicy{Tunnel: through}}, proxyAddr),
		clusterOf(plan.Cluster{Name: narrow, App: model.AppTCP}, tlsB),
		proxiedBy("", detectVIP(1, 80), through, proxyAddr), listeners)...)

	// The proxy speaks before TLS does: its words come out as they are.
	hello := func(name string) *tls.Conn {
		return tls.Client(connect(t, alpha, dst), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	}
	c := hello("x.example.com")
	if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "first record does not look like a TLS handshake") {
		t.Errorf("through the tunnel: %v", err)
	}
	if got, err := bufio.NewReader(hello("b.example.com")).ReadString('\n'); got != "b "+alpha+"\n" {
		t.Errorf("straight: %q, %v", got, err)
	}

	opaque := connect(t, alpha, detectVIP(1, 80))
	io.WriteString(opaque, "\x00\x01\n")
	if got := line(t, opaque); got != "HTTP/1.1 CONNECT a.example.com:443 from "+alpha {
		t.Errorf("what is no request: %q", got)
	}
	request := connect(t, alpha, detectVIP(1, 80))
	io.WriteString(request, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := line(t, request); got != "HTTP/1.1 200 OK\r" {
		t.Errorf("a request: %q", got)
	}
}

// What is no request has the times of its address, too, where requests are told from it.
func TestTimesOfWhatIsDetected(t *testing.T) {
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	listeners := modeListeners()
	for _, l := range listeners {
		if l := l.(*plan.Listener); l.Mode == plan.Detect {
			l.Times = []plan.ConnectionTimes{{To: netip.MustParseAddrPort(detectVIP(1, 80)), Idle: time.Second}}
		}
	}
	r.push(rows(connectionsTo("", detectVIP(1, 80), tcpA), connectionsTo("", detectVIP(2, 80), tcpA), listeners)...)
	open := func(i int) net.Conn {
		c := connect(t, alpha, detectVIP(i, 80))
		io.WriteString(c, "\x00\n")
		if got := line(t, c); got != "a "+alpha {
			t.Fatalf("%d: %q", i, got)
		}
		if got := line(t, c); got != "\x00" {
			t.Fatalf("%d: what comes back is %q", i, got)
		}
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		return c
	}
	usual := open(2)
	if _, err := io.Copy(io.Discard, open(1)); err != nil {
		t.Errorf("silent for a second: %v", err)
	}
	pings(t, "another address", usual)
}
