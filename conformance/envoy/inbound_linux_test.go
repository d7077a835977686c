// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"testing"

	"fairlead.io/fairlead/xds"
)

// twice is an Envoy that leads requests to a pod straight (15100), through a listener of
// its own that the kernel hands the connection to (15101), and through an internal one
// (15102). The second knows what the client had dialled by the socket, the third by the
// endpoint's metadata.
func twice(t testing.TB) *proxy {
	httpEcho(t, "pod", hostPort(pod, 8080))
	const checked = "upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 4294962760, state: STATE_PREBIND}]}"
	const unchecked = "upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 2687016000, state: STATE_PREBIND}]}" // 40000 to 41000
	in := connectionManager("in|%DOWNSTREAM_LOCAL_ADDRESS%", "")
	cluster := func(name, bind, endpoint, more string) string {
		return fmt.Sprintf(`
  - name: %[1]s
    type: STATIC
    %[2]s
    load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [%[3]s]}]}%[4]s`, name, bind, endpoint, more)
	}
	straight := fmt.Sprintf("{endpoint: {address: {socket_address: {address: %s, port_value: 8080}}}}", pod)
	p := start(t, `
bootstrap_extensions:
- {name: envoy.bootstrap.internal_listener, typed_config: {"@type": E/bootstrap.internal_listener.v3.InternalListener}}
`+listeners+requests(15100, "spiffe://alpha", "")+requests(15101, "spiffe://alpha", "")+requests(15102, "spiffe://alpha", "")+
		"\n  - name: in"+loopback(inboundPort)+keepSource+"\n    filter_chains:\n    - filters:"+in+`
  - name: internal
    internal_listener: {}
    listener_filters:
    - {name: envoy.filters.listener.original_dst, typed_config: {"@type": E/filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
    - filters:`+in+`
  clusters:`+cluster("straight", checked, straight, "")+cluster("kernel", unchecked, straight, "")+
		cluster("internal", "", fmt.Sprintf("{endpoint: {address: {envoy_internal_address: {server_listener_name: internal}}}, metadata: {filter_metadata: {envoy.filters.listener.original_dst: {local: %q}}}}", hostPort(pod, 8080)), `
    transport_socket:
      name: envoy.transport_sockets.internal_upstream
      typed_config:
        "@type": E/transport_sockets.internal_upstream.v3.InternalUpstreamTransport
        passthrough_metadata: [{kind: {host: {}}, name: envoy.filters.listener.original_dst}]
        transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {"@type": E/transport_sockets.raw_buffer.v3.RawBuffer}}`)+`
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    `+checked)
	for i, name := range []string{"straight", "kernel", "internal"} {
		p.push(to(t, "r"+name, name), scopeTo(t, vip(i, 0, 80), "r"+name, false))
	}
	p.push(to(t, "in", "original"), resource(t, xds.ScopeType, fmt.Sprintf("{name: %q, route_configuration_name: in, key: {fragments: [{string_key: %[1]q}]}}", "in|"+hostPort(pod, 8080))))
	return p
}

// Requests may pass a second listener of the same Envoy, by the kernel or inside.
func TestTwoListeners(t *testing.T) {
	twice(t)
	for i, want := range []string{alpha, alpha, ""} { // the last does not keep the address by itself
		a := mustFetch(t, vip(i, 0, 80), "/")
		if a.Status != 200 || a.Server != "pod" || want != "" && a.Client != want {
			t.Errorf("way %d: %+v, want the client %s", i, a, want)
		}
	}
}

// BenchmarkTwoListeners compares, in one run, what the ways of twice cost: requests on a
// connection that is kept, and connections.
func BenchmarkTwoListeners(b *testing.B) {
	p := twice(b)
	for _, kept := range []bool{true, false} {
		for _, way := range []struct {
			name string
			n    int
		}{{"straight", 0}, {"kernel", 1}, {"internal", 2}, {"straight again", 0}, {"kernel again", 1}, {"internal again", 2}} {
			b.Run(fmt.Sprintf("kept=%v/%s", kept, way.name), func(b *testing.B) {
				c := httpFrom(b, alpha, vip(way.n, 0, 80), false)
				request := func() {
					if a, err := fetch(c, "/"); err != nil || a.Server != "pod" {
						b.Fatalf("%+v, %v", a, err)
					}
					if !kept {
						c.CloseIdleConnections()
					}
				}
				for range 200 {
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
}
