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
