// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab"
)

// bypasses are ways around a policy, each with requests that must not get through.
var bypasses = []struct{ way, requests string }{
	{"nothing", `
		# That what follows fails for the right reason.
		client GET http://web/api/x *4 v4 -> 200 peer=self
		client GET http://web/api/x *4 v6 keepalive -> 200 peer=self
		client GET http://{web-1}:8080/api/x -> 200
		client GET http://{web-2|6}:8080/api/x -> 200
		client tcp://web:9000 -> ok
		other-1 GET http://web/api/x *4 -> 403
		other-2 GET http://web/api/x *4 -> 403
		other-1 GET http://open/ -> 200`},
	{"address of a pod", `
		other-1 GET http://{web-1}:8080/api/x -> 403
		other-1 GET http://{web-2}:8080/api/x -> 403
		other-2 GET http://{web-1}:8080/api/x *4 keepalive -> 403
		other-1 tcp://{web-1}:9000 -> refused
		other-1 tcp://{web-2}:9000 -> refused
		other-1 udp://{web-1}:5353 timeout=300ms -> failed
		other-1 udp://{web-2}:5353 timeout=300ms -> failed
		client POST http://{web-1}:8080/api/x -> 403
		client GET http://{web-2}:8080/private -> 403`},
	{"IPv6", `
		other-1 GET http://web/api/x v6 *4 -> 403
		other-1 GET http://{service/web|6}/api/x -> 403
		other-1 GET http://{web-1|6}:8080/api/x -> 403
		other-2 GET http://{web-1|6}:8080/api/x -> 403
		other-1 tcp://{web-1|6}:9000 -> refused
		other-1 tcp://{service/web|6}:9000 -> refused
		other-2 udp://{service/web|6}:53 timeout=300ms -> failed
		client POST http://{web-1|6}:8080/api/x -> 403`},
	{"IPv4 in IPv6", `
		client GET http://{service/web|mapped}/api/x from=:: -> 200
		other-1 GET http://{service/web|mapped}/api/x from=:: -> 403
		other-1 GET http://{web-1|mapped}:8080/api/x from=:: -> 403
		other-2 GET http://{web-1|mapped}:8080/api/x from=:: -> 403
		other-1 tcp://{web-1|mapped}:9000 from=:: -> refused
		other-2 tcp://{service/web|mapped}:9000 from=:: -> refused
		other-1 udp://{service/web|mapped}:53 from=:: timeout=200ms -> failed`},
	{"forged headers", `
		other-1 GET http://web/api/x x-fl-dst:{service/open}:80 -> 403
		other-1 GET http://open/api/x x-fl-dst:{service/web}:80 -> 200 open header.x-fl-dst=
		client GET http://open/api/x x-fl-dst:{service/web}:80 -> 200 open header.x-fl-dst=
		client GET http://{web-1}:8080/api/x x-fl-dst:{service/open}:80 -> 200 web-1 header.x-fl-dst=
		other-1 GET http://web/api/x x-forwarded-for:{client} -> 403
		other-1 GET http://web/api/x x-forwarded-for:{client} x-real-ip:{client} forwarded:for={client} -> 403
		other-1 GET http://web/api/x x-envoy-external-address:{client} x-envoy-internal:true -> 403
		other-1 GET http://web/api/x "x-forwarded-client-cert:By=spiffe://cluster.local/ns/bypass/sa/web;URI=spiffe://cluster.local/ns/bypass/sa/client" -> 403
		client GET http://web/private x-envoy-original-path:/api/x -> 403
		client GET http://web/private x-original-url:/api/x x-rewrite-url:/api/x -> 403
		client POST http://web/api/x x-http-method-override:GET x-method-override:GET -> 403
		client GET http://web/api/../private -> 403
		client GET http://web/api/%2e%2e/private -> 403
		client GET http://web/api%2f..%2fprivate -> 400-403
		client GET http://web/api\..\private -> 400-403
		client GET http://web/private#/api/x -> 403
		client GET http://web/private?/api/x -> 403`},
	{"another authority", `
		other-1 GET http://open/api/x host=web -> 200-404 open
		other-1 GET http://open/api/x host=web.bypass.svc.cluster.local -> 200-404 open
		other-1 GET http://web/api/x host=open -> 403`},
	{"a pod of the host's network", `
		host GET http://{web-1}:8080/api/x -> 4xx|failed
		host GET http://{web-2}:8080/api/x -> 403
		host GET http://{web-2|6}:8080/api/x -> 403
		host GET http://web/api/x *4 -> 4xx|failed
		host tcp://{web-1}:9000 -> refused
		host tcp://{web-2}:9000 -> refused
		host udp://{web-1}:5353 timeout=300ms -> failed
		host udp://{web-2}:5353 timeout=200ms -> failed`},
	{"a pod that is not captured", `
		uncaptured GET http://web/api/x *4 -> 403
		uncaptured GET http://web/api/x *4 v6 -> 403
		uncaptured GET http://{web-1}:8080/api/x -> 403
		uncaptured GET http://{web-2|6}:8080/api/x -> 403
		uncaptured tcp://web:9000 *4 -> refused
		uncaptured udp://web:53 *4 timeout=200ms -> failed`},
	{"outside the cluster", `
		outside GET http://{web-1}:8080/api/x -> 403
		outside GET http://{web-2|6}:8080/api/x -> 403
		outside tcp://{web-1}:9000 -> refused
		outside tcp://{web-2|6}:9000 -> refused
		outside udp://{web-1}:5353 timeout=300ms -> failed
		outside GET http://{service/web}/api/x timeout=250ms -> failed`},
	{"the proxy's source ports", `
		other-1 GET http://{web-1}:8080/api/x sourceport=61000 timeout=300ms -> failed
		other-1 GET http://{web-2}:8080/api/x sourceport=61001 timeout=300ms -> failed
		other-1 GET http://{web-2|6}:8080/api/x sourceport=61002 timeout=300ms -> failed
		other-1 tcp://{web-2}:9000 sourceport=63500 timeout=300ms -> failed
		other-1 GET http://web/api/x sourceport=61003 timeout=300ms -> failed
		uncaptured GET http://{web-1}:8080/api/x sourceport=61004 timeout=300ms -> failed
		uncaptured GET http://{web-2}:8080/api/x sourceport=62000 timeout=300ms -> failed
		host GET http://{web-1}:8080/api/x sourceport=61005 timeout=300ms -> 4xx|failed
		host GET http://{web-2}:8080/api/x sourceport=61006 timeout=300ms -> 4xx|failed
		host GET http://{web-2|6}:8080/api/x sourceport=61007 timeout=300ms -> 4xx|failed
		node-2 GET http://{web-1}:8080/api/x sourceport=61008 timeout=300ms -> 4xx|failed
		node-1 GET http://{web-1}:8080/api/x sourceport=61009 timeout=300ms -> 4xx|failed
		outside GET http://{web-1}:8080/api/x sourceport=61010 timeout=300ms -> 4xx|failed
		outside tcp://{web-1}:9000 sourceport=61011 timeout=200ms -> failed`},
}

func TestNoWayAround(t *testing.T) {
	w := lives(t)
	b, err := os.ReadFile("testdata/bypass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifests := txtar.File{Name: "bypass.yaml", Data: b}
	t.Cleanup(func() { w.delete(t, manifests); w.nothingLeft(t) })
	w.apply(t, manifests)
	for _, b := range bypasses {
		t.Run(b.way, func(t *testing.T) { w.runText(t, "bypass", b.requests) })
	}
	t.Run("a port of the proxy", w.testProxyPorts)
	t.Run("another's source address", w.testForgedAddress)
}

func (w *world) runText(t *testing.T, namespace, requests string) {
	t.Helper()
	lines, err := ParseLines(requests)
	if err != nil {
		t.Fatal(err)
	}
	w.runLines(t, namespace, lines, false)
}

// testProxyPorts connects to every port that a node's proxy listens on, from pods,
// from the node itself and from outside: by the node's address, by loopback, and by
// the address of a pod.
func (w *world) testProxyPorts(t *testing.T) {
	for _, node := range w.nodes() {
		s, err := w.agents[node].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Ports) < 2 {
			t.Fatalf("%s has the ports %v", node, s.Ports)
		}
		var text strings.Builder
		for _, port := range s.Ports {
			for _, to := range []string{"{" + node + "}", "{" + node + "|6}", "127.0.0.1", "[::1]", "{web-1}", "{open}"} {
				for _, from := range []string{"other-1", "outside"} {
					fmt.Fprintf(&text, "%s GET http://%s:%d/api/x host=web timeout=250ms -> 4xx|5xx|failed\n", from, to, port)
				}
			}
			for _, header := range []string{"", "x-fl-dst:{service/web}:80", "x-fl-dst:{web-1}:8080"} {
				fmt.Fprintf(&text, "%s GET http://127.0.0.1:%d/api/x host=web %s timeout=250ms -> 4xx|5xx|failed\n", node, port, header)
				fmt.Fprintf(&text, "%s GET http://[::1]:%d/api/x host=web %s timeout=250ms -> 4xx|5xx|failed\n", node, port, header)
			}
		}
		w.runText(t, "bypass", text.String())
	}
}

// testForgedAddress has a pod speak with the address of one that may, which it gives
// to itself.
func (w *world) testForgedAddress(t *testing.T) {
	for _, thief := range []string{"other-1", "other-2", "uncaptured"} {
		for _, a := range w.addresses("bypass", "client") {
			w.steal(t, thief, a)
		}
	}
	before := w.asked(t)
	text := ""
	for _, thief := range []string{"other-1", "other-2", "uncaptured"} {
		text += strings.ReplaceAll(`
			THIEF GET http://{service/web}/api/x from={client} timeout=250ms -> failed
			THIEF GET http://{service/web|6}/api/x from={client|6} timeout=250ms -> failed
			THIEF GET http://{web-1}:8080/api/x from={client} timeout=250ms -> failed
			THIEF GET http://{web-2|6}:8080/api/x from={client|6} timeout=250ms -> failed
			THIEF tcp://{web-1}:9000 from={client} timeout=250ms -> failed
			THIEF udp://{web-1}:5353 from={client} timeout=200ms *3 -> failed
			THIEF udp://{web-2|6}:5353 from={client|6} timeout=200ms *3 -> failed
		`, "THIEF", thief)
	}
	w.runText(t, "bypass", text)
	if after := w.asked(t); after != before {
		t.Errorf("the servers counted %s before and %s after", before, after)
	}
}

// steal gives an address to a pod that has no right to it.
func (w *world) steal(t *testing.T, pod string, a netip.Addr) {
	t.Helper()
	for _, verb := range []string{"add", "del"} {
		run := func() {
			var out bytes.Buffer
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			code, err := lab.Exec(ctx, labName, "bypass/"+pod, []string{"ip", "addr", verb, netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo"}, lab.Stdio{Out: &out, Err: &out})
			if err != nil || code != 0 {
				t.Errorf("ip addr %s %s in %s: %d %v %s", verb, a, pod, code, err, out.String())
			}
		}
		if verb == "add" {
			run()
		} else {
			t.Cleanup(run)
		}
	}
}

// asked is how many requests the servers have had.
func (w *world) asked(t *testing.T) string {
	t.Helper()
	lines, err := ParseLines("web-1 GET http://127.0.0.1:8080/count -> 200\nweb-2 GET http://127.0.0.1:8080/count -> 200")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range lines {
		results, err := w.send("bypass", lines[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, count(results[0][0]))
	}
	return strings.Join(out, " and ")
}
