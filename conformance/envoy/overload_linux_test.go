// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"fairlead.io/fairlead/xds/serve"
)

// Trap: an Envoy whose last descriptor goes to a connection of a client has none for the
// backend, and ends, with all connections that it has. If it goes to a backend, it takes no
// connections any more, not of its admin interface either.
func TestDescriptorsRunOut(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	ended, deaf := 0, 0
	for few := range 2 {
		feed := serve.New(serve.Options{}, nil)
		p := launch(t, setup{bootstrap: opaqueListeners(), register: feed.Register, files: 100 + few})
		p.feed = feed
		p.waitLive()
		p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), "", serverA+":9000")...)
		answered := true
		for n := 0; n < 100 && answered; n++ {
			c, err := dialErr(t.Context(), alpha, vip(0, 1, 80))
			if answered = err == nil; answered {
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(time.Second))
				_, err = c.Read(make([]byte, 1))
				answered = err == nil
			}
		}
		if answered {
			t.Errorf("with %d descriptors it goes on", 100+few)
		}
		select {
		case <-p.ended:
			ended++
		case <-time.After(time.Second):
			p.admin.Timeout = time.Second
			if _, err := p.admin.Get("http://envoy/ready"); err != nil {
				deaf++
			}
			p.cmd.Process.Kill()
			<-p.ended
		}
	}
	if ended != 1 || deaf != 1 {
		t.Errorf("%d ended, %d were deaf", ended, deaf)
	}
}

// Connections of clients beyond a limit are closed at once, the others are served, and the
// admin interface answers.
func TestConnectionLimit(t *testing.T) {
	const most = 10
	listen(t, serverA+":9000", greet("a"))
	p := start(t, opaqueListeners()+fmt.Sprintf(`
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config: {"@type": E/resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: %d}
admin: {ignore_global_conn_limit: true}
`, most))
	p.push(edsCluster(t, "tcp|a|"+vip(0, 1, 80), "", serverA+":9000")...)
	var open []*net.TCPConn
	for len(open) < most {
		c := dial(t, alpha, vip(0, 1, 80))
		equal(t, "one of the first", readLine(t, c), "a "+alpha)
		open = append(open, c)
	}
	for range most {
		if line, err := bufio.NewReader(dial(t, alpha, vip(0, 1, 80))).ReadString('\n'); err == nil {
			t.Errorf("one too many: %q", line)
		}
	}
	equal(t, "state", p.get("/ready"), "LIVE\n")
	for _, c := range open {
		echoes(t, "one that was open", c)
	}
	open[0].Close()
	p.waitFor("room for another", func() bool {
		line, err := bufio.NewReader(dial(t, alpha, vip(0, 1, 80))).ReadString('\n')
		return err == nil && line == "a "+alpha+"\n"
	})
}
