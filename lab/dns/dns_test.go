// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"fairlead.io/fairlead/translators/objects"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const web = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIPs: ["10.96.0.1", "fd96::1"], ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
`

const others = `apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-ipv4, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432, protocol: TCP}]
endpoints:
- {addresses: [10.244.1.11], hostname: db-0}
- {addresses: [10.244.1.12], conditions: {ready: true}}
- {addresses: [10.244.1.13], conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: away}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: loop}
spec: {type: ExternalName, externalName: loop.default.svc.cluster.local}
---
kind: broken
`

func ask(z *Zone, name string, kind uint16) string {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	return summary(z.Answer(q))
}

func summary(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return strings.TrimSpace(fmt.Sprintf("%s %s", dns.RcodeToString[m.Rcode], strings.Join(out, ", ")))
}

func TestZone(t *testing.T) {
	z := NewZone([]objects.Input{{Name: "a.yaml", Data: []byte(web)}, {Name: "b.yaml", Data: []byte(others)}})
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.1"},
		{"WEB.shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR fd96::1"},
		{"web.shop.svc.cluster.local.", dns.TypeTXT, "NOERROR"},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 80 web.shop.svc.cluster.local."},
		{"_dns._udp.web.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 53 web.shop.svc.cluster.local."},
		{"db.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.244.1.11, 10.244.1.12"},
		{"db.shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR"},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.244.1.11"},
		{"10-244-1-12.db.shop.svc.cluster.local.", dns.TypeA, "NOERROR 10.244.1.12"},
		{"_sql._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, "NOERROR 0 100 5432 10-244-1-12.db.shop.svc.cluster.local., 0 100 5432 db-0.db.shop.svc.cluster.local."},
		{"away.default.svc.cluster.local.", dns.TypeA, "NOERROR example.com."},
		{"alias.default.svc.cluster.local.", dns.TypeA, "NOERROR 10.96.0.1, web.shop.svc.cluster.local."},
		{"alias.default.svc.cluster.local.", dns.TypeCNAME, "NOERROR web.shop.svc.cluster.local."},
		{"loop.default.svc.cluster.local.", dns.TypeCNAME, "NOERROR loop.default.svc.cluster.local."},
		{"shop.svc.cluster.local.", dns.TypeA, "NOERROR"},
		{"web.shop.svc.cluster.local.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"web.", dns.TypeA, "NXDOMAIN"},
		{"example.com.", dns.TypeA, "NXDOMAIN"},
	} {
		if got := ask(z, c.name, c.kind); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, slog.New(slog.DiscardHandler), addr, dir) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait := func(network, want string) {
		t.Helper()
		got := ""
		for range 300 {
			q := new(dns.Msg)
			q.SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
			m, _, err := (&dns.Client{Net: network}).Exchange(q, addr)
			if err == nil {
				if got = summary(m); got == want {
					return
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("over %s: %s, want %s", network, got, want)
	}
	wait("udp", "NXDOMAIN")
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(web), 0o644); err != nil {
		t.Fatal(err)
	}
	wait("udp", "NOERROR 10.96.0.1")
	wait("tcp", "NOERROR 10.96.0.1")
	if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	wait("udp", "NXDOMAIN")
}
