// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// drainTime is what these tests give Envoy for connections to end. It tells more and
// more of them, by the whole seconds that have gone: in one second it would tell none.
const drainTime = 2 * time.Second

// frontListener is the listener of front, by LDS.
func frontListener(t testing.TB, more string) xds.Resource {
	t.Helper()
	text, ok := strings.CutPrefix(requests(15100, "spiffe://alpha", more), "\n  - ")
	if !ok {
		t.Fatal("no listener")
	}
	return resource(t, xds.ListenerType, "    "+text)
}

// keepAlive is an HTTP/1.1 connection with a request done.
type keepAlive struct {
	net.Conn
	in *bufio.Reader
}

func openHTTP(t testing.TB, dst string) *keepAlive {
	t.Helper()
	c := dial(t, alpha, dst)
	k := &keepAlive{c, bufio.NewReader(c)}
	if close, err := k.request(); close || err != nil {
		t.Fatalf("first request: close %v, %v", close, err)
	}
	return k
}

// request reports whether the answer says that the connection will be closed.
func (k *keepAlive) request() (close bool, err error) {
	if _, err := io.WriteString(k, "GET / HTTP/1.1\r\nhost: h\r\n\r\n"); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(k.in, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return resp.Close, err
}

// closed reports whether the other side has closed an idle connection.
func (k *keepAlive) closed() bool {
	k.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	defer k.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err := k.in.Peek(1)
	ne, ok := err.(net.Error)
	return err != nil && !(ok && ne.Timeout())
}

// Changes of routes, policy, scopes, clusters and endpoints, and listeners that are
// sent again or added beside, end no connection. A trap: any change of a connection
// manager ends all connections of its listener.
func TestWhatDrains(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	httpEcho(t, "b", hostPort(serverB, 8080))
	_, s := startScript(t, "", "--drain-time-s", fmt.Sprint(int(drainTime/time.Second)))
	listener := frontListener(t, "")
	equal(t, "listener", s.outcome(s.send(listener)), "")
	s.waitFor("scopes are asked for", func() bool { return s.first()[xds.ScopeType] != nil })
	s.push(edsCluster(t, "a", "", serverA+":8080")...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	var idle, busy *keepAlive
	s.waitFor("listener", func() bool { return !refusedSoon(t, vip(0, 1, 80)) })
	idle, busy = openHTTP(t, vip(0, 1, 80)), openHTTP(t, vip(0, 1, 80))

	accepted := func(what string, nonce string) {
		t.Helper()
		if d := s.outcome(nonce); d != "" {
			t.Fatalf("%s: %s", what, d)
		}
	}
	again := listener
	again.Version = "other"
	accepted("listener sent again", s.send(again))
	other, _ := strings.CutPrefix(requests(15101, "spiffe://other", ""), "\n  - ")
	accepted("another listener", s.send(resource(t, xds.ListenerType, "    "+other)))
	accepted("listener removed", s.remove(xds.ListenerType, "out/15101"))
	s.push(edsCluster(t, "b", "", serverB+":8080")...)
	s.push(edsCluster(t, "b", "lb_policy: RANDOM", serverB+":8080")...)
	s.push(to(t, "r", "b"))
	s.push(routesOf(t, "r", "[{match: {prefix: /}, route: {cluster: b}, typed_per_filter_config: "+perRoute("policy", allow(isAlpha, anyPermission))+"}]"))
	s.push(scopeTo(t, vip(0, 2, 80), "r", false))
	accepted("scope removed", s.remove(xds.ScopeType, vip(0, 2, 80)))
	accepted("endpoints", s.send(edsCluster(t, "b", "", serverB+":8080", serverA+":8080")[1]))
	accepted("cluster removed", s.remove(xds.ClusterType, "a"))
	for end := time.Now().Add(drainTime * 5 / 4); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if close, err := busy.request(); close || err != nil {
			t.Fatalf("busy connection: close %v, %v", close, err)
		}
	}
	if idle.closed() {
		t.Fatal("the idle connection is closed")
	}

	accepted("connection manager", s.send(frontListener(t, "\n          server_name: other")))
	told := false
	s.waitFor("the busy connection is to end", func() bool {
		close, err := busy.request()
		told = told || close
		return close || err != nil
	})
	if !told {
		t.Error("the busy connection was closed and not told")
	}
	s.waitFor("the idle connection ends", idle.closed)
}

// refusedSoon reports whether a connection is not taken at once.
func refusedSoon(t testing.TB, dst string) bool {
	c, err := dialErr(t.Context(), alpha, dst)
	if err != nil {
		return true
	}
	defer c.Close()
	_, err = exchange(c, "GET / HTTP/1.1\r\nhost: h\r\n\r\n")
	return err != nil
}

// post is a command to Envoy's admin interface.
func (p *proxy) post(path string) {
	p.t.Helper()
	resp, err := p.admin.Post("http://admin"+path, "", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	equal(p.t, path, resp.StatusCode, http.StatusOK)
}

// Envoy that drains tells clients with the next response to close, takes connections
// all the while, also after the drain time, and runs on until it is told to end.
func TestDrain(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	p, s := startScript(t, front(), "--drain-time-s", fmt.Sprint(int(drainTime/time.Second)))
	s.push(edsCluster(t, "a", "", serverA+":8080")...)
	s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
	busy := openHTTP(t, vip(0, 1, 80))
	p.post("/healthcheck/fail")
	p.post("/drain_listeners?graceful&skip_exit")
	begin := time.Now()
	if close, err := busy.request(); !close || err != nil {
		t.Errorf("the next response: close %v, %v", close, err)
	}
	for time.Since(begin) < drainTime*5/4 {
		c, err := dialErr(t.Context(), alpha, vip(0, 1, 80))
		if err != nil {
			t.Fatalf("a new connection after %v: %v", time.Since(begin), err)
		}
		k := &keepAlive{c, bufio.NewReader(c)}
		if close, err := k.request(); !close || err != nil {
			t.Fatalf("a new connection after %v: close %v, %v", time.Since(begin), close, err)
		}
		c.Close()
		time.Sleep(20 * time.Millisecond)
	}
	busy.Close()
	p.waitFor("no connections", func() bool {
		return strings.Contains(p.get("/stats?filter=^listener.127.0.0.1_15100.downstream_cx_active$"), ": 0\n")
	})
	if p.hasEnded() {
		t.Error("it ended by itself")
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.waitFor("its end", p.hasEnded)
}

// A second Envoy beside the first takes over without a lost request: the kernel sends
// new connections to its ports, and the first drains until it has none.
func TestSecondGeneration(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 8080))
	run := func(port int) (*proxy, *script) {
		p, s := startScript(t, listeners+requests(port, "spiffe://alpha", ""))
		s.push(edsCluster(t, "a", "", serverA+":8080")...)
		s.push(to(t, "r", "a"), scopeTo(t, vip(0, 1, 80), "r", false))
		return p, s
	}
	first, _ := run(15100)
	var end atomic.Bool
	var all sync.WaitGroup
	var n, failed atomic.Int64
	for i := range 8 {
		all.Go(func() {
			c := httpFrom(t, alpha, vip(0, 1, 80), false)
			for !end.Load() {
				if a, err := fetch(c, "/"); err != nil || a.Status != 200 {
					failed.Add(1)
					t.Errorf("%d, %v", a.Status, err)
				}
				n.Add(1)
				if i%2 == 0 { // a connection for each request
					c.CloseIdleConnections()
				}
			}
		})
	}
	defer func() { end.Store(true); all.Wait() }()
	first.waitFor("load", func() bool { return n.Load() > 50 })
	second, _ := run(16100)
	nft(t, "add rule inet t flip meta l4proto tcp ip daddr 10.96.0.0/24 tproxy ip to 127.0.0.1:16100 meta mark set 0x200 accept")
	t.Cleanup(func() { exec.Command("nft", "flush", "chain", "inet", "t", "flip").Run() })
	first.post("/healthcheck/fail")
	first.post("/drain_listeners?graceful&skip_exit")
	active := func(p *proxy, port int) string {
		return p.get(fmt.Sprintf("/stats?filter=^listener.127.0.0.1_%d.downstream_cx_active$", port))
	}
	// Nobody for a while: what the kernel has taken, and Envoy not yet, is not counted.
	quiet := 0
	first.waitFor("the first has no connections", func() bool {
		if quiet++; !strings.Contains(active(first, 15100), ": 0\n") {
			quiet = 0
		}
		return quiet > 50
	})
	first.cmd.Process.Signal(syscall.SIGTERM)
	first.waitFor("the first ends", first.hasEnded)
	before := n.Load()
	second.waitFor("load on the second", func() bool { return n.Load() > before+50 })
	end.Store(true)
	all.Wait()
	t.Logf("%d requests, %d failed", n.Load(), failed.Load())
}

func nft(t testing.TB, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}
