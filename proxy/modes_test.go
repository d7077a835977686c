// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/render"
)

// Addresses whose connections are redirected to alpha's listener of a mode.
func tlsVIP(i, port int) string     { return fmt.Sprintf("10.97.2.%d:%d", i, port) }
func opaqueVIP(i int) string        { return fmt.Sprintf("10.97.3.%d:80", i) }
func anyVIP(i, port int) string     { return fmt.Sprintf("10.97.4.%d:%d", i, port) }
func detectVIP(i, port int) string  { return fmt.Sprintf("10.97.5.%d:%d", i, port) }
func detect2VIP(i, port int) string { return fmt.Sprintf("10.97.6.%d:%d", i, port) }

// Servers of connections; what they say first says who they are.
const (
	tcpA, tcpB, tcpA6 = "10.244.2.11:9000", "10.244.2.12:9000", "[fd44:2::11]:9000"
	tlsA, tlsB        = "10.244.2.11:9443", "10.244.2.12:9443"
)

const shortDetect = time.Second

// modeListeners are alpha's, and beta's for opaque connections.
func modeListeners(serverNames ...string) []any {
	of := func(m plan.Mode) *plan.Listener {
		return &plan.Listener{Name: "out/" + string(m) + "/alpha", Mode: m, Identity: alphaID, Selects: []string{"p1"}, Class: "alpha"}
	}
	tls, detect := of(plan.TLS), of(plan.Detect)
	tls.ServerNames, detect.DetectTimeout = serverNames, shortDetect
	return append(listeners(), tls, detect, of(plan.Opaque), of(plan.Any), of(plan.Detect2),
		&plan.Listener{Name: "out/opaque/beta", Mode: plan.Opaque, Identity: betaID, Class: "beta"})
}

func connectionsTo(class, dst string, backends ...string) []any {
	return clusterOf(plan.Cluster{Name: plan.ConnectionCluster(class, netip.MustParseAddrPort(dst)), App: model.AppTCP}, backends...)
}

func serverNameTo(pattern, dst string, backends ...string) []any {
	return clusterOf(plan.Cluster{Name: plan.ServerNameCluster(pattern, "alpha", netip.MustParseAddrPort(dst)), App: model.AppTCP}, backends...)
}

// tcpServer takes connections until the test ends.
func tcpServer(t *testing.T, addr string, handle func(*net.TCPConn)) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
}

// greeting says who the server is and whom it sees, at once, and then echoes.
func greeting(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintf(c, "%s %s\n", name, host)
		io.Copy(c, c)
	}
}

// tlsServer is greeting's like over TLS.
func tlsServer(t *testing.T, name, addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}}
	tcpServer(t, addr, func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		s := tls.Server(c, config)
		fmt.Fprintf(s, "%s %s\n", name, host)
		io.Copy(s, s)
	})
}

func connect(t *testing.T, from, to string) *net.TCPConn {
	t.Helper()
	c, err := dialer(from).DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(15 * time.Second))
	return c.(*net.TCPConn)
}

// line is the next that comes, "" if the connection ends before.
func line(t *testing.T, r io.Reader) string {
	t.Helper()
	s, err := bufio.NewReader(iotest.OneByteReader(r)).ReadString('\n') // and no byte more
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return strings.TrimSuffix(s, "\n")
}

func tlsLine(t *testing.T, to, serverName string, alpn ...string) string {
	t.Helper()
	return line(t, tls.Client(connect(t, alpha, to), &tls.Config{ServerName: serverName, InsecureSkipVerify: true, NextProtos: alpn}))
}

// pings fails unless the connection, to a server that echoes, works.
func pings(t *testing.T, what string, c net.Conn) {
	t.Helper()
	b := make([]byte, 5)
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping\n" {
		t.Fatalf("%s: %q, %v", what, b, err)
	}
}

// Servers speak first to clients whose bytes nobody looks at, and see their addresses;
// the class of the client is part of the way.
func TestOpaque(t *testing.T) {
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	tcpServer(t, tcpB, greeting("b"))
	tcpServer(t, tcpA6, greeting("a6"))
	r.push(rows(connectionsTo("alpha", opaqueVIP(1), tcpA), connectionsTo("beta", opaqueVIP(1), tcpB),
		connectionsTo("alpha", "[fd97:3::1]:80", tcpA6), connectionsTo("alpha", opaqueVIP(2)), modeListeners())...)
	for _, c := range []struct{ from, to, want string }{
		{alpha, opaqueVIP(1), "a " + alpha},
		{beta, opaqueVIP(1), "b " + beta},
		{alpha6, "[fd97:3::1]:80", "a6 " + alpha6},
		{alpha, opaqueVIP(2), ""}, // no endpoints
	} {
		if got := line(t, connect(t, c.from, c.to)); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
	// Halves end one by one.
	c := connect(t, alpha, opaqueVIP(1))
	io.WriteString(c, "hello")
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "a "+alpha+"\nhello" {
		t.Errorf("%q, %v", b, err)
	}
}

// A split is by weight whatever the number of endpoints, and a change of it, or of the
// endpoints, leaves connections where they are.
func TestSplitConnections(t *testing.T) {
	r := newRig(t)
	tcpServer(t, tcpA, greeting("a"))
	tcpServer(t, tcpB, greeting("b"))
	tcpServer(t, "10.244.2.12:9001", greeting("b"))
	name := plan.ConnectionCluster("alpha", netip.MustParseAddrPort(opaqueVIP(1)))
	at := func(addrs ...string) (out []plan.Backend) {
		for _, a := range addrs {
			out = append(out, plan.Backend{Addrs: []netip.AddrPort{netip.MustParseAddrPort(a)}})
		}
		return out
	}
	split := func(a, b uint32) *plan.ClusterEndpoints {
		return &plan.ClusterEndpoints{Cluster: name, Shares: []plan.EndpointShare{
			{Weight: a, Backends: at(tcpA)}, {Weight: b, Backends: at(tcpB, "10.244.2.12:9001")},
		}}
	}
	r.push(rows(modeListeners(), []any{&plan.Cluster{Name: name, App: model.AppTCP}, split(80, 20)})...)
	const n = 300
	share := func(want float64) {
		t.Helper()
		got := 0
		for range n {
			c := connect(t, alpha, opaqueVIP(1))
			if strings.HasPrefix(line(t, c), "a ") {
				got++
			}
			c.Close()
		}
		// Wrong once in a million by chance: five standard deviations.
		if math.Abs(float64(got)-want*n) > 5*math.Sqrt(want*(1-want)*n) {
			t.Errorf("%d of %d, want %v", got, n, want)
		}
	}
	share(0.8)
	c := connect(t, alpha, opaqueVIP(1))
	who := line(t, c)
	r.push(split(5, 95))
	share(0.05)
	pings(t, "weights changed: "+who, c)
	r.push(&plan.ClusterEndpoints{Cluster: name, Backends: at(tcpB)})
	share(0)
	pings(t, "endpoints replaced", c)
	// The same endpoint in two shares has the weight of both.
	r.push(&plan.ClusterEndpoints{Cluster: name, Shares: []plan.EndpointShare{
		{Weight: 50, Backends: at(tcpA)}, {Weight: 50, Backends: at(tcpA, tcpB)},
	}})
	share(0.75)
}

// TLS goes by the name that the client asks for: an exact one before wildcards, the
// narrower wildcard before the wider, and what none takes, or has no name, to the rest.
func TestServerNames(t *testing.T) {
	r := newRig(t)
	tlsServer(t, "a", tlsA)
	tlsServer(t, "b", tlsB)
	tlsServer(t, "c", "10.244.2.12:9444")
	r.push(rows(
		serverNameTo("a.example.com", tlsVIP(1, 443), tlsA),
		serverNameTo("*.example.com", tlsVIP(1, 443), tlsB),
		serverNameTo("", tlsVIP(1, 443)),
		serverNameTo("a.example.com", tlsVIP(2, 443), "10.244.2.12:9444"),
		serverNameTo("", tlsVIP(2, 443), "10.244.2.12:9444"),
		serverNameTo("*.x.example.com", tlsVIP(1, 443), "10.244.2.12:9444"),
		modeListeners("*.example.com", "*.x.example.com", "a.example.com"))...)
	for _, c := range []struct {
		i          int
		name, want string
	}{
		{1, "a.example.com", "a " + alpha},
		{1, "A.Example.COM", "a " + alpha},
		{1, "b.example.com", "b " + alpha},
		{1, "c.b.example.com", "b " + alpha},
		{1, "c.x.example.com", "c " + alpha},
		{1, "x.example.com", "b " + alpha},
		{1, "example.com", ""},
		{1, "", ""},
		{2, "a.example.com", "c " + alpha},
		{2, "other.org", "c " + alpha},
		{2, "", "c " + alpha},
	} {
		conn := tls.Client(connect(t, alpha, tlsVIP(c.i, 443)), &tls.Config{ServerName: c.name, InsecureSkipVerify: true})
		got, err := bufio.NewReader(conn).ReadString('\n')
		if got = strings.TrimSpace(got); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q at %d: %q, want %q (%v)", c.name, c.i, got, c.want, err)
		}
	}
	// A further name is a change in place: connections of the chain that had it stay.
	open := tls.Client(connect(t, alpha, tlsVIP(1, 443)), &tls.Config{ServerName: "b.example.com", InsecureSkipVerify: true})
	if got := line(t, open); got != "b "+alpha {
		t.Fatal(got)
	}
	r.push(rows(serverNameTo("b.example.com", tlsVIP(1, 443), tlsA), modeListeners("*.example.com", "*.x.example.com", "a.example.com", "b.example.com"))...)
	r.waitFor("the new name", func() bool { return tlsLine(t, tlsVIP(1, 443), "b.example.com") == "a "+alpha })
	time.Sleep(2 * time.Second) // longer than connections are drained for
	pings(t, "after the change of names", open)
}

// An entry of the access log says whose connection it was, what it asked for, where it
// went, and which of the plan's clusters decided, whatever Envoy calls that.
func TestConnectionsAreLogged(t *testing.T) {
	r := newRig(t)
	tlsServer(t, "a", tlsA)
	dst := netip.MustParseAddrPort(tlsVIP(1, 443))
	planned := plan.ServerNameCluster("*.example.com", "", dst)
	asked := plan.ServerNameCluster("a.example.com", "alpha", dst)
	r.push(rows([]any{renamed(t, planned, asked)}, endpointsOf(planned, tlsA), serverNameTo("", tlsVIP(1, 443)), modeListeners("a.example.com"))...)
	logged := func(serverName string) accesslog.Record {
		t.Helper()
		raw := connect(t, alpha, tlsVIP(1, 443))
		c := tls.Client(raw, &tls.Config{ServerName: serverName, InsecureSkipVerify: true})
		c.Handshake() // which may fail
		c.Close()
		select {
		case rec := <-r.logs.Records():
			return rec
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was logged")
			return accesslog.Record{}
		}
	}
	rec := logged("a.example.com")
	if !rec.Connection || rec.Route != planned || rec.Cluster != asked || rec.ServerName != "a.example.com" || rec.Identity != alphaID ||
		rec.Source.Addr().String() != alpha || rec.Destination != dst || rec.Upstream.String() != tlsA || rec.RequestBytes == 0 || rec.ResponseBytes == 0 {
		t.Errorf("%+v", rec)
	}
	// Where there is no endpoint Envoy forgets the cluster: the flags say why.
	if rec := logged("b.example.com"); !rec.Connection || rec.Upstream.IsValid() || !slices.Contains(rec.Flags, "UH") || rec.Route != "" {
		t.Errorf("%+v", rec)
	}
}

// renamed is a cluster of connections under the name that Envoy asks for.
func renamed(t *testing.T, planned, asked string) xds.Resource {
	t.Helper()
	r, err := render.Cluster(&plan.Cluster{Name: planned, App: model.AppTCP})
	if err != nil {
		t.Fatal(err)
	}
	var m cluster.Cluster
	if err := proto.Unmarshal(r.Body, &m); err != nil {
		t.Fatal(err)
	}
	m.Name = asked
	if r, err = xds.New(&m); err != nil {
		t.Fatal(err)
	}
	return r
}

func endpointsOf(name string, backends ...string) []any {
	return clusterOf(plan.Cluster{Name: name, App: model.AppTCP}, backends...)[1:]
}
