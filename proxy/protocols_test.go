// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Requests are told from all else by the first bytes: in any version of HTTP, and not
// if they are inside TLS. A server that speaks first is waited for as long as the mode
// says, which may be for ever.
func TestDetect(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	tcpServer(t, tcpB, greeting("b"))
	tlsServer(t, "tls", tlsB)
	addr := detectVIP(1, 80)
	r.push(rows(clusterOf(plan.Cluster{Name: "a", App: model.AppDetect}, serverA),
		[]any{&plan.RouteTable{Name: "r", Routes: []plan.Route{to("a")}},
			&plan.Scope{Key: addr, RouteTable: "r"}, &plan.Scope{Key: detectVIP(2, 443), RouteTable: "r"}},
		connectionsTo("alpha", addr, tcpB), connectionsTo("alpha", detectVIP(2, 443), tlsB), connectionsTo("alpha", detect2VIP(1, 80), tcpB),
		modeListeners())...)
	soon := func(what string, begin time.Time) {
		t.Helper()
		if d := time.Since(begin); d > shortDetect*8/10 {
			t.Errorf("%s: after %v", what, d)
		}
	}

	for _, h2 := range []bool{false, true} {
		begin := time.Now()
		got := r.ask(alpha, addr, "web", h2)
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]; got.Status != 200 || got.Proto != want {
			t.Errorf("HTTP/2 %v: %+v", h2, got)
		}
		soon("request", begin)
	}
	if got, err := rawRequest(t.Context(), alpha, addr, "GET / HTTP/1.0\r\n\r\n"); err != nil || got.Status != 200 {
		t.Errorf("HTTP/1.0: %+v, %v", got, err)
	}
	for _, bytes := range []string{"EHLO example.com\r\n", "\x00\x01\x02\x03\n", "PING\r\n", "x y\r\n", "*1\r\n$4\r\nPING\r\n", "get a b c\r\n"} {
		begin := time.Now()
		c := connect(t, alpha, addr)
		io.WriteString(c, bytes)
		in := bufio.NewReader(c)
		hello, err := in.ReadString('\n')
		back := make([]byte, len(bytes))
		_, err2 := io.ReadFull(in, back)
		if err := errors.Join(err, err2); err != nil || hello != "b "+alpha+"\n" || string(back) != bytes {
			t.Errorf("%q: %q, %q, %v", bytes, hello, back, err)
		}
		soon(fmt.Sprintf("%q", bytes), begin)
	}
	for _, alpn := range []string{"", "http/1.1", "h2"} {
		begin := time.Now()
		var protocols []string
		if alpn != "" {
			protocols = []string{alpn, "http/1.1"}
		}
		if got := tlsLine(t, detectVIP(2, 443), "example.com", protocols...); got != "tls "+alpha {
			t.Errorf("TLS with %q inside: %q", alpn, got)
		}
		soon("TLS", begin)
	}

	begin := time.Now()
	if got := line(t, connect(t, alpha, addr)); got != "b "+alpha {
		t.Errorf("server speaks first: %q", got)
	}
	if d := time.Since(begin); d < shortDetect*8/10 || d > 5*time.Second {
		t.Errorf("server spoke after %v", d)
	}
	c := connect(t, alpha, detect2VIP(1, 80))
	c.SetReadDeadline(time.Now().Add(2 * shortDetect))
	if b, err := io.ReadAll(c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waited for for ever: %q, %v", b, err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, "EHLO x\r\n")
	if got := line(t, c); got != "b "+alpha {
		t.Errorf("client spoke late: %q", got)
	}
}

// CONNECT is for nobody: not through routes for everything, nor to connections.
func TestConnectIsRefused(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	tcpServer(t, tcpA, greeting("a"))
	startKeys(r, map[string]string{tcpA: plan.PassKey, "web:80": plan.PassKey})
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")),
		byAuthority(2, []string{"web"}, to("a")), connectionsTo("alpha", vip(1), tcpA), connectionsTo("", vip(1), tcpA), pass(t), modeListeners())...)
	for _, dst := range []string{vip(1), vip(2)} {
		for _, authority := range []string{"web:80", tcpA, vip(1)} {
			got, err := rawRequest(t.Context(), alpha, dst, fmt.Sprintf("CONNECT %s HTTP/1.1\r\nhost: %[1]s\r\n\r\n", authority))
			if err != nil || got.Status != http.StatusNotFound {
				t.Errorf("CONNECT %s at %s: %d %q, %v", authority, dst, got.Status, got.Body, err)
			}
			q, err := http.NewRequestWithContext(t.Context(), "CONNECT", "http://"+authority, nil)
			if err != nil {
				t.Fatal(err)
			}
			tr := transport(alpha, dst, true)
			resp, err := tr.RoundTrip(q)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			tr.CloseIdleConnections()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("CONNECT %s at %s over HTTP/2: %s", authority, dst, resp.Status)
			}
		}
	}
}

// Streams that talk both ways, as gRPC's do, go on over changes of their route table,
// of their clusters and of policy, and those that are under way are not judged again.
func TestStreamsOutliveChanges(t *testing.T) {
	r := newRig(t)
	talkers := func(w http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("X-Stream") == "" {
			return false
		}
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		w.Header().Set("trailer", "grpc-status")
		rc.Flush()
		for lines := bufio.NewScanner(q.Body); lines.Scan(); rc.Flush() {
			fmt.Fprintf(w, "%s\n", lines.Text())
		}
		w.Header().Set("grpc-status", "0")
		return true
	}
	server(t, serverA, talkers)
	server(t, serverB, talkers)
	route := to("a")
	route.ID, route.Timeout = "first", 0
	r.push(rows(clusterOf(plan.Cluster{Name: "a", App: model.AppGRPC}, serverA), service(1, route), listeners())...)

	tr := transport(alpha, vip(1), true)
	defer tr.CloseIdleConnections()
	body, out := io.Pipe()
	q, err := http.NewRequestWithContext(t.Context(), "POST", "http://web/", body)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("x-stream", "1")
	q.Header.Set("content-type", "application/grpc")
	resp, err := tr.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	n := 0
	talk := func(what string) {
		t.Helper()
		for range 10 {
			n++
			fmt.Fprintf(out, "%d\n", n)
			if got, err := in.ReadString('\n'); err != nil || got != fmt.Sprintf("%d\n", n) {
				t.Fatalf("%s: %q, %v", what, got, err)
			}
		}
	}
	talk("first")
	other := to("b")
	other.ID = "second"
	r.push(rows(clusterOf(plan.Cluster{Name: "b", App: model.AppGRPC}, serverB), service(1, other))...)
	if got := r.get(alpha, vip(1), "/"); got.Server != serverB {
		t.Fatalf("after the change: %+v", got)
	}
	talk("route changed")
	denied := plan.Cluster{Name: "a", App: model.AppGRPC, Policy: &plan.Policy{Deny: []model.AuthRule{{}}}}
	r.push(rows(clusterOf(denied, serverB), service(1, route))...)
	if got := r.get(alpha, vip(1), "/"); got.Status != 403 {
		t.Fatalf("after the denial: %+v", got)
	}
	talk("policy and endpoints changed")
	// The client's connection is the same, and serves what is asked now.
	if again, err := tr.RoundTrip(q2(t)); err != nil {
		t.Error(err)
	} else {
		again.Body.Close()
		if again.StatusCode != 403 {
			t.Errorf("on the old connection: %s", again.Status)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 || resp.Trailer.Get("grpc-status") != "0" {
		t.Errorf("end: %q, %v, %v", rest, err, resp.Trailer)
	}
}

func q2(t *testing.T) *http.Request {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), "GET", "http://web/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// HTTP/1.0 clients are served, with and without a host, and connections end as they
// expect.
func TestHTTP10(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA), service(1, to("a")), listeners())...)
	for request, host := range map[string]string{
		"GET /x HTTP/1.0\r\n\r\n":                         "none.invalid",
		"GET /x HTTP/1.0\r\nhost: web\r\n\r\n":            "web",
		"POST /x HTTP/1.0\r\ncontent-length: 2\r\n\r\nab": "none.invalid",
	} {
		c := connect(t, alpha, vip(1))
		io.WriteString(c, request)
		b, err := io.ReadAll(c) // the server ends the connection
		if err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.0 200 OK\r\n")) || !strings.Contains(string(b), `"Host":"`+host+`"`) {
			t.Errorf("%q: %s, %v", request, b, err)
		}
	}
}

// A denial that stands on a route holds for the very request that has its routes
// loaded, of a body or none.
func TestPolicyOfFirstRequest(t *testing.T) {
	r := newRig(t)
	server(t, podC, nil)
	deny := &plan.Policy{Deny: []model.AuthRule{{}}}
	var all []any
	const n = 10
	for i := range n {
		all = append(all, service(i+1, plan.Route{ID: "r", Original: true, App: model.AppHTTP, Policy: deny})...)
	}
	r.push(append(all, listeners()...)...)
	for i := range n {
		method, body := "GET", ""
		if i%2 == 1 {
			method, body = "POST", "hello"
		}
		got, err := rawRequest(t.Context(), alpha, vip(i+1), fmt.Sprintf("%s / HTTP/1.1\r\nhost: web\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s", method, len(body), body))
		if err != nil || got.Status != http.StatusForbidden {
			t.Errorf("%s: %+v, %v", method, got, err)
		}
	}
}
