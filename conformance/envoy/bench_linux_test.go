// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// BenchmarkTCP compares, in one run, a cluster named by destination with a tunnel:
// what a connection costs, and a gigabyte, and
// what of it does not arrive.
func BenchmarkTCP(b *testing.B) {
	const gigabyte = 1 << 30
	listen(b, serverA+":9000", greet("a"))
	listen(b, serverA+":9001", func(c *net.TCPConn) {
		block := make([]byte, 256<<10)
		for range gigabyte / len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	end := tunnels("HTTP2")
	p := start(b, strings.Replace(end, "\n  listeners:", "\n  listeners:"+opaque(15103, "a"), 1))
	for i, addr := range []string{serverA + ":9000", serverA + ":9001"} {
		name, routes := "tcp|a|"+vip(3, i, 80), fmt.Sprint("r", i)
		p.push(edsCluster(b, name, "", addr)...)
		p.push(tunnelRoutes(b, routes, "*\tcluster: "+"'"+name+"'"), tunnelScope(b, vip(0, i, 80), routes))
	}
	for _, way := range []struct {
		name string
		n    int
	}{{"named", 3}, {"tunnel", 0}, {"named again", 3}} {
		b.Run("connect/"+way.name, func(b *testing.B) {
			for b.Loop() {
				c, err := dialErr(b.Context(), alpha, vip(way.n, 0, 80))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 64)); err != nil {
					b.Fatal(err)
				}
				c.SetLinger(0)
				c.Close()
			}
		})
		b.Run("transfer/"+way.name, func(b *testing.B) {
			b.SetBytes(gigabyte)
			var lost int64
			for b.Loop() {
				c, err := dialErr(b.Context(), alpha, vip(way.n, 1, 80))
				if err != nil {
					b.Fatal(err)
				}
				n, _ := io.Copy(io.Discard, c) // a tunnel may reset in the end
				c.Close()
				lost += gigabyte - n
			}
			b.ReportMetric(float64(lost)/float64(b.N), "lost-bytes/op")
		})
	}
}

// BenchmarkFilters compares, in one run, a chain in which the filters for faults and
// CORS are enabled, with nothing to do, with one in which routes would have to enable them.
func BenchmarkFilters(b *testing.B) {
	httpEcho(b, "a", hostPort(serverA, 8080))
	chain := func(more string) string {
		return loadFirst + fmt.Sprintf(`
          - {name: fault, %[1]styped_config: {"@type": E/filters.http.fault.v3.HTTPFault, disable_downstream_cluster_stats: true}}
          - {name: cors, %[1]styped_config: {"@type": E/filters.http.cors.v3.Cors}}`, more)
	}
	p := start(b, listeners+strings.Replace(requests(15100, "spiffe://alpha", ""), loadFirst, chain("disabled: true, "), 1)+
		strings.Replace(requests(15101, "spiffe://alpha", ""), loadFirst, chain(""), 1))
	p.push(edsCluster(b, "a", "", serverA+":8080")...)
	p.push(to(b, "r", "a"), scopeTo(b, vip(0, 1, 80), "r", false), scopeTo(b, vip(1, 1, 80), "r", false))
	for i, way := range []string{"disabled", "enabled", "disabled again", "enabled again"} {
		b.Run(way, func(b *testing.B) {
			c := httpFrom(b, alpha, vip(i%2, 1, 80), false)
			request := func() {
				if a, err := fetch(c, "/"); err != nil || a.Server != "a" {
					b.Fatalf("%+v, %v", a, err)
				}
			}
			for range 500 {
				request()
			}
			before := p.cpu(b)
			for b.Loop() {
				request()
			}
			b.ReportMetric(float64(p.cpu(b)-before)/1e3/float64(b.N), "envoy-us/op")
		})
	}
}
