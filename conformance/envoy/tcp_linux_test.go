// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
)

// opaque is a listener for bytes that nobody looks into: the cluster's name is the
// class of the client and the address that it dialled, so that one filter chain
// serves all destinations.
func opaque(port int, class string) string {
	return strings.NewReplacer("CLASS", class, "NAME", fmt.Sprintf("out/opaque/%d", port)).Replace(`
  - name: NAME` + loopback(port) + keepSource + `
    - name: envoy.filters.listener.set_filter_state
      typed_config:
        "@type": E/filters.listener.set_filter_state.v3.Config
        on_accept:
        - {object_key: envoy.tcp_proxy.cluster, format_string: {text_format_source: {inline_string: "tcp|CLASS|%DOWNSTREAM_LOCAL_ADDRESS%"}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": E/filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: opaque
          cluster: none
          idle_timeout: 0s
          on_demand: {odcds_config: {ads: {}, resource_api_version: V3}, timeout: 1s}
          access_log:
          - name: file
            typed_config:
              "@type": E/access_loggers.file.v3.FileAccessLog
              path: "%d/tcp.log"
              log_format: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %RESPONSE_FLAGS% rx=%BYTES_RECEIVED% tx=%BYTES_SENT%\n"}}
`)
}

func opaqueListeners() string {
	return "static_resources:\n  listeners:" + opaque(15100, "a") + opaque(15110, "b")
}

// readLine is a line that a server sends.
func readLine(t testing.TB, c net.Conn) string {
	t.Helper()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// soon is less than the shortest timeout in the tests' configuration, and enough on a
// busy machine for what has none to wait for.
const soon = 800 * time.Millisecond

// closedSoon fails unless the connection is closed without data and without delay.
func closedSoon(t testing.TB, what string, c net.Conn) {
	t.Helper()
	begin := time.Now()
	b, err := io.ReadAll(c)
	if len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: got %q, %v", what, b, err)
	}
	if d := time.Since(begin); d > soon {
		t.Errorf("%s: closed after %v", what, d)
	}
}

// One chain leads everywhere; servers speak first and see the client's address;
// listeners of other clients lead elsewhere from the same address.
func TestTCPClusterNamedByDestination(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverB+":9000", greet("b"))
	listen(t, "["+serverA6+"]:9000", greet("a6"))
	p := start(t, opaqueListeners())
	p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), "", serverA+":9000")...)
	p.push(edsCluster(t, "tcp|b|"+vip(0, 1, 80), "", serverB+":9000")...)
	p.push(edsCluster(t, "tcp|a|"+vip6(0, 1, 80), "", "["+serverA6+"]:9000")...)
	equal(t, "IPv4", readLine(t, dial(t, alpha, vip(0, 1, 80))), "a "+alpha)
	equal(t, "other client", readLine(t, dial(t, gamma, vip(0, 1, 80))), "a "+gamma)
	equal(t, "other class", readLine(t, dial(t, beta, vip(0, 1, 80))), "b "+beta)
	equal(t, "IPv6", readLine(t, dial(t, alpha6, vip6(0, 1, 80))), "a6 "+alpha6)
}

// The names that connections lead to are asked for, once for good: a name that is
// not answered, or answered by "there is none", costs every connection the timeout,
// and a cluster that is taken away is not asked for again. So a name that was asked
// for must always be answered by a cluster, which may have no endpoints, and stays
// as long as connections are sent to it.
func TestTCPClustersOnDemand(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, opaqueListeners())
	name := "tcp|a|" + vip(0, 1, 80)
	a := edsCluster(t, name, "", serverA+":9000")
	p.asked(xds.ClusterType) // the wildcard

	c := dial(t, alpha, vip(0, 1, 80))
	var names []string
	p.waitFor("cluster is asked for", func() bool {
		names = append(names, p.asked(xds.ClusterType)...)
		return len(names) > 0
	})
	equal(t, "asked for", names, []string{name})
	p.push(a...)
	equal(t, "the connection that asked", readLine(t, c), "a "+alpha)

	waits := func(what string) {
		t.Helper()
		c, begin := dial(t, alpha, vip(0, 1, 80)), time.Now()
		b, err := io.ReadAll(c)
		if d := time.Since(begin); len(b) > 0 || err != nil || d < soon || d > 5*time.Second {
			t.Errorf("%s: %q, %v after %v", what, b, err, d)
		}
		equal(t, what+": asked for", p.asked(xds.ClusterType), []string(nil))
	}
	p.remove(a...)
	waits("taken away")
	waits("taken away, again")

	p.push(edsCluster(t, name, "")...)
	closedSoon(t, "no endpoints", dial(t, alpha, vip(0, 1, 80)))
	p.push(a...)
	equal(t, "given again", readLine(t, dial(t, alpha, vip(0, 1, 80))), "a "+alpha)
}

// Either side may end its half first, and resets stay resets.
func TestTCPCloses(t *testing.T) {
	got := make(chan string, 1)
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverA+":9001", func(c *net.TCPConn) { // ends its half first
		io.WriteString(c, "bye\n")
		c.CloseWrite()
		b, err := io.ReadAll(c)
		got <- fmt.Sprintf("%s %v", b, err)
	})
	listen(t, serverA+":9002", resetting)
	listen(t, serverA+":9003", func(c *net.TCPConn) {
		io.WriteString(c, "x\n")
		_, err := io.ReadAll(c)
		got <- fmt.Sprint(errors.Is(err, syscall.ECONNRESET))
	})
	p := start(t, opaqueListeners())
	for i, addr := range []string{serverA + ":9000", serverA + ":9001", serverA + ":9002", serverA + ":9003", serverA + ":9004", "10.255.0.1:80"} {
		p.push(edsCluster(t, "tcp|a|"+vip(0, i, 80), "", addr)...)
	}

	c := dial(t, alpha, vip(0, 0, 80))
	io.WriteString(c, "hello")
	c.CloseWrite()
	b, err := io.ReadAll(c)
	equal(t, "client ends first", fmt.Sprintf("%s %v", b, err), "a "+alpha+"\nhello <nil>")

	c = dial(t, alpha, vip(0, 1, 80))
	b, err = io.ReadAll(c)
	equal(t, "server ends first", fmt.Sprintf("%s %v", b, err), "bye\n <nil>")
	for range 3 {
		io.WriteString(c, "more ")
		time.Sleep(20 * time.Millisecond)
	}
	c.CloseWrite()
	equal(t, "after the server ended", <-got, "more more more  <nil>")

	c = dial(t, alpha, vip(0, 2, 80))
	equal(t, "before the reset", readLine(t, c), "x")
	io.WriteString(c, "1")
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server resets: %v", err)
	}

	c = dial(t, alpha, vip(0, 3, 80))
	equal(t, "before the reset", readLine(t, c), "x")
	c.SetLinger(0)
	c.Close()
	equal(t, "client resets", <-got, "true")

	closedSoon(t, "refused", dial(t, alpha, vip(0, 4, 80)))
	closedSoon(t, "unreachable", dial(t, alpha, vip(0, 5, 80)))
}

// resetting is a server that sends a line, and resets when it is sent a byte.
func resetting(c *net.TCPConn) {
	io.WriteString(c, "x\n")
	io.ReadFull(c, make([]byte, 1))
	c.SetLinger(0)
}

// A split is a cluster with a locality for each part: the parts' weights are those
// of the localities, whatever number of endpoints they have.
func TestTCPSplit(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverB+":9000", greet("b"))
	listen(t, serverB+":9001", greet("b"))
	listen(t, serverB+":9002", greet("b"))
	p := start(t, opaqueListeners())
	name := "tcp|a|" + vip(0, 1, 80)
	cluster := edsCluster(t, name, `common_lb_config: {locality_weighted_lb_config: {}}
lb_policy: RANDOM`)[0]
	split := func(a, b int) xds.Resource {
		return resource(t, xds.EndpointType, fmt.Sprintf(`
cluster_name: %q
endpoints:
- {locality: {sub_zone: a}, load_balancing_weight: %d, lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: 9000}}}}]}
- locality: {sub_zone: b}
  load_balancing_weight: %d
  lb_endpoints:
  - {endpoint: {address: {socket_address: {address: %s, port_value: 9000}}}}
  - {endpoint: {address: {socket_address: {address: %s, port_value: 9001}}}}
  - {endpoint: {address: {socket_address: {address: %s, port_value: 9002}}}}
`, name, a, serverA, b, serverB, serverB, serverB))
	}
	p.push(cluster, split(80, 20))
	share := func(n int) map[string]int {
		got := map[string]int{}
		for range n {
			c := dial(t, alpha, vip(0, 1, 80))
			server, _, _ := strings.Cut(readLine(t, c), " ")
			got[server]++
			c.Close()
		}
		return got
	}
	// Wrong once in a million by chance: five standard deviations.
	const n = 400
	if got := share(n); math.Abs(float64(got["a"])-0.8*n) > 5*math.Sqrt(0.8*0.2*n) {
		t.Errorf("80/20 of %d: %v", n, got)
	}
	// A change of weights alone is a change of endpoints, which closes nothing.
	c := dial(t, alpha, vip(0, 1, 80))
	readLine(t, c)
	p.push(split(1, 99))
	if got := share(n); math.Abs(float64(got["a"])-0.01*n) > 5*math.Sqrt(0.01*0.99*n) {
		t.Errorf("1/99 of %d: %v", n, got)
	}
	echoes(t, "over a change of weights", c)
}

// echoes fails unless an open connection to a server that echoes works.
func echoes(t testing.TB, what string, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping\n" {
		t.Fatalf("%s: %q, %v", what, b, err)
	}
}

// Connections outlive a change of their cluster, and their endpoint.
func TestTCPLongLived(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	listen(t, serverB+":9000", greet("b"))
	p := start(t, opaqueListeners())
	name := "tcp|a|" + vip(0, 1, 80)
	p.push(edsCluster(t, name, "", serverA+":9000")...)
	c := dial(t, alpha, vip(0, 1, 80))
	equal(t, "first", readLine(t, c), "a "+alpha)

	p.push(edsCluster(t, name, "lb_policy: RANDOM", serverA+":9000")...)
	echoes(t, "cluster changed", c)
	p.push(edsCluster(t, name, "lb_policy: RANDOM", serverB+":9000")...)
	echoes(t, "endpoint replaced", c)
	equal(t, "a new one", readLine(t, dial(t, alpha, vip(0, 1, 80))), "b "+alpha)
	p.remove(edsCluster(t, name, "")...)
	p.waitFor("cluster is gone", func() bool { return !strings.Contains(p.get("/clusters"), name) })
	echoes(t, "cluster taken away", c)
}

// The access log says who spoke to whom and how it ended.
func TestTCPAccessLog(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, opaqueListeners())
	name := "tcp|a|" + vip(0, 1, 80)
	p.push(edsCluster(t, name, "", serverA+":9000")...)
	c := dial(t, alpha, vip(0, 1, 80))
	io.WriteString(c, "hello")
	c.CloseWrite()
	io.ReadAll(c)
	equal(t, "log", p.logged("tcp.log"), fmt.Sprintf("%s %s %s %s:9000 - rx=5 tx=%d", vip(0, 1, 80), alpha, name, serverA, len("a "+alpha+"\nhello")))
}
