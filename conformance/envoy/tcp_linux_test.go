// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"testing"
)

// The rig itself: a plain TCP proxy without a chain per destination.
func TestRig(t *testing.T) {
	listen(t, serverA+":9000", greet("a"))
	p := start(t, `
static_resources:
  listeners:
  - name: plain
    address: {socket_address: {address: 127.0.0.1, port_value: 15100}}
    additional_addresses: [{address: {socket_address: {address: "::1", port_value: 15100}}}]
    transparent: true
    listener_filters:
    - {name: envoy.filters.listener.original_dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    - {name: envoy.filters.listener.original_src, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a}
`)
	p.push(edsCluster(t, "a", "", serverA+":9000")...)
	c := dial(t, alpha, vip(0, 1, 80))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "greeting", line, "a "+alpha+"\n")
}
