// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"github.com/miekg/dns"

	"fairlead.io/fairlead/xds"
)

// byRange is a listener with chains for ranges of addresses that clients dial; of each
// range one for a server name, and one for all else. The cluster's name has the range and
// the port in place of the address.
func byRange(t testing.TB, ranges ...string) xds.Resource {
	text := "name: out/any" + strings.ReplaceAll(loopback(15101)+keepSource+inspectTLS, "\n    ", "\n") + "\nfilter_chains:"
	for _, r := range ranges {
		ip, bits, _ := strings.Cut(r, "/")
		for _, name := range []string{"", "a.example.com"} {
			names := ""
			if name != "" {
				names = ", server_names: [" + name + "]"
			}
			text += strings.NewReplacer("RANGE", r, "IP", ip, "BITS", bits, "NAMES", names, "PATTERN", name).Replace(`
- name: "RANGE PATTERN"
  filter_chain_match: {prefix_ranges: [{address_prefix: "IP", prefix_len: BITS}]NAMES}
  filters:
  - name: cluster
    typed_config:
      "@type": E/filters.network.set_filter_state.v3.Config
      on_new_connection:
      - {object_key: envoy.tcp_proxy.cluster, format_string: {text_format_source: {inline_string: "tls|PATTERN|RANGE:%DOWNSTREAM_LOCAL_PORT%"}}}
  - name: envoy.filters.network.tcp_proxy
    typed_config:
      "@type": E/filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: any
      cluster: none
      idle_timeout: 0s
      on_demand: {odcds_config: {ads: {}, resource_api_version: V3}, timeout: 1s}`)
		}
	}
	return resource(t, xds.ListenerType, text)
}

// A chain is chosen by the range of the address that the client has dialled, as it was
// restored: the longest. Of that range alone a server name is looked for: a chain of a
// wider one that has the name does not count.
func TestChainsByRange(t *testing.T) {
	for i, name := range []string{"wide", "narrow", "named", "six"} {
		addr := serverA
		if name == "six" {
			addr = serverA6
		}
		tlsGreet(t, name, hostPort(addr, 9000+i))
	}
	p := start(t, "")
	p.listener(byRange(t, "0.0.0.0/0", "10.96.1.128/25", "::/0"))
	set := func(cluster, endpoint string) {
		t.Helper()
		p.push(edsCluster(t, cluster, "", endpoint)...)
	}
	set("tls||0.0.0.0/0:443", hostPort(serverA, 9000))
	set("tls|a.example.com|0.0.0.0/0:443", hostPort(serverA, 9002))
	set("tls||10.96.1.128/25:443", hostPort(serverA, 9001))
	set("tls||::/0:443", hostPort(serverA6, 9003))
	for _, c := range []struct{ what, from, to, sni, want string }{
		{"another name", alpha, vip(1, 1, 443), "b.example.com", "wide " + alpha},
		{"the name", alpha, vip(1, 1, 443), "a.example.com", "named " + alpha},
		{"the longer range", alpha, vip(1, 200, 443), "b.example.com", "narrow " + alpha},
		{"the name, whose cluster the longer range has not", alpha, vip(1, 200, 443), "a.example.com", ""},
		{"another port", alpha, vip(1, 1, 444), "a.example.com", ""},
		{"IPv6", alpha6, vip6(1, 1, 443), "b.example.com", "six " + alpha6},
	} {
		got, err := tlsLine(t, c.from, c.to, c.sni)
		equal(t, c.what, got, c.want)
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	// A further range is a change in place.
	p.listener(byRange(t, "0.0.0.0/0", "10.96.1.128/25", "10.96.1.192/26", "::/0"))
	set("tls||10.96.1.192/26:443", hostPort(serverA, 9002))
	p.waitFor("the new range", func() bool {
		got, _ := tlsLine(t, alpha, vip(1, 200, 443), "b.example.com")
		return got == "named "+alpha
	})
}

// nameServer answers for names that end with "there." by an address, never for those that
// end with "silent.", and has no others.
func nameServer(t testing.TB, addr, answer string) {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := q.Question[0].Name
		if strings.HasSuffix(name, "silent.") {
			return
		}
		m := new(dns.Msg)
		m.SetReply(q)
		switch {
		case !strings.HasSuffix(name, "there."):
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(answer)}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown(); <-done })
}

// named is a cluster whose endpoint is a name.
func named(t testing.TB, name, host string) xds.Resource {
	return resource(t, xds.ClusterType, fmt.Sprintf(`
name: %q
connect_timeout: 1s
cluster_type:
  name: envoy.cluster.dns
  typed_config:
    "@type": E/clusters.dns.v3.DnsCluster
    respect_dns_ttl: true
    dns_lookup_family: V4_ONLY
    typed_dns_resolver_config:
      name: envoy.network.dns_resolver.cares
      typed_config:
        "@type": E/network.dns_resolver.cares.v3.CaresDnsResolverConfig
        resolvers: [{socket_address: {address: 127.0.0.1, port_value: 10053}}]
        dns_resolver_options: {no_default_search_domain: true}
        query_timeout_seconds: 1
        query_tries: 2
load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %q, port_value: 9000}}}}]}]}
upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 4294962760, state: STATE_PREBIND}]}`, name, host))
}

// A cluster of names is acknowledged when they were looked up: the first request has
// endpoints. A name that is not there is as good. One whose resolver is silent holds up
// all clusters that come with it or later, for as long as Envoy may ask.
func TestNamesLookedUp(t *testing.T) {
	httpEcho(t, "a", hostPort(serverA, 9000))
	nameServer(t, "127.0.0.1:10053", serverA)
	p := start(t, front())
	begin := time.Now()
	p.push(named(t, "there", "api.there"))
	p.push(to(t, "r", "there"), scopeTo(t, vip(0, 1, 80), "r", false))
	equal(t, "the first request", mustFetch(t, vip(0, 1, 80), "/").Server, "a")
	p.push(named(t, "gone", "api.gone"))
	p.push(to(t, "r2", "gone"), scopeTo(t, vip(0, 2, 80), "r2", false))
	equal(t, "a name that is not there", statusOf(t, vip(0, 2, 80)), 503)
	if d := time.Since(begin); d > 2*soon {
		t.Errorf("names that are answered for took %s", d)
	}
	begin = time.Now()
	p.push(named(t, "silent", "api.silent"))
	if d := time.Since(begin); d < time.Second || d > 4*time.Second {
		t.Errorf("a name whose resolver is silent was acknowledged after %s", d)
	}
	p.push(to(t, "r3", "silent"), scopeTo(t, vip(0, 3, 80), "r3", false))
	equal(t, "a resolver that is silent", statusOf(t, vip(0, 3, 80)), 503)
	equal(t, "the others", mustFetch(t, vip(0, 1, 80), "/").Server, "a")
}

// Where the client has dialled, another port may be meant.
func TestOriginalPort(t *testing.T) {
	httpEcho(t, "pod", hostPort(pod, 8080))
	inbound := "\n  - name: in" + loopback(inboundPort) + keepSource + `
    filter_chains:
    - filters:` + connectionManager("in|%DOWNSTREAM_LOCAL_ADDRESS%", "")
	p := start(t, listeners+inbound)
	p.push(resource(t, xds.ClusterType, `
name: original
type: ORIGINAL_DST
lb_policy: CLUSTER_PROVIDED
connect_timeout: 1s
original_dst_lb_config: {upstream_port_override: 8080}
upstream_bind_config: {socket_options: [{level: 0, name: 51, int_value: 4294962760, state: STATE_PREBIND}]}`))
	dst := hostPort(pod, 8181)
	p.push(to(t, "r", "original"), resource(t, xds.ScopeType, fmt.Sprintf("{name: %q, route_configuration_name: r, key: {fragments: [{string_key: %[1]q}]}}", "in|"+dst)))
	a, err := fetch(httpFrom(t, alpha, dst, false), "/")
	equal(t, dst, fmt.Sprint(a.Status, a.Server, err), "200pod<nil>")
}
