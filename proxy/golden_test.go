// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/coder/websocket"
	"golang.org/x/tools/txtar"
	"google.golang.org/grpc"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds/serve"
)

// eager is a real Envoy that is given all that there is, used or not.
type eager struct {
	t      *testing.T
	server *serve.Server
}

func newEager(t *testing.T) *eager {
	t.Helper()
	need.Root(t)
	envoy := need.Envoy(t)
	if err := setUp(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	paths := PathsIn(dir)
	if err := os.Mkdir(paths.Envoy, 0o755); err != nil {
		t.Fatal(err)
	}
	content, err := Bootstrap("n1", 0, paths)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(config, content, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(paths.XDS[0], -1)
	if err != nil {
		t.Fatal(err)
	}
	e := &eager{t, serve.New(serve.Options{StandIn: StandIn}, resources(t, listeners()...))}
	g := grpc.NewServer(serve.GRPCOptions()...)
	e.server.Register(g)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	t.Cleanup(func() { g.Stop(); done.Wait() })

	cmd := exec.Command(envoy, "--config-path", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--component-log-level", "misc:error")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose end would be the parent's
	t.Cleanup(runtime.UnlockOSThread)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); e.push().Clients == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("envoy does not connect")
		}
	}
	return e
}

func (e *eager) push(rows ...any) serve.Outcome {
	e.t.Helper()
	var changes []serve.Change
	for _, r := range resources(e.t, rows...) {
		changes = append(changes, serve.Set(r))
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	defer cancel()
	o, err := e.server.Push(ctx, changes)
	if err != nil {
		e.t.Fatal(err)
	}
	return o
}

// accepts fails unless Envoy takes the rows.
func (e *eager) accepts(what string, rows ...any) {
	e.t.Helper()
	if o := e.push(rows...); len(o.Rejected) > 0 || o.Clients != 1 {
		e.t.Errorf("%s: %+v", what, o)
	}
}

// led is a table and a scope that leads there: Envoy looks at no other routes.
func led(i int, t *plan.RouteTable) []any {
	return []any{t, &plan.Scope{Key: plan.DestinationKey(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 98, byte(i >> 8), byte(i)}), 80)), RouteTable: t.Name}}
}

// TestGoldensLoad gives everything in the renderer's test data to a real Envoy.
func TestGoldensLoad(t *testing.T) {
	e := newEager(t)
	files, err := filepath.Glob("../xds/render/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for i, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var all []any
		for _, f := range a.Files {
			name, ok := strings.CutSuffix(f.Name, ".json")
			if !ok {
				continue
			}
			kind, _, _ := strings.Cut(name, "-")
			row := map[string]any{
				"cluster": &plan.Cluster{}, "endpoints": &plan.ClusterEndpoints{}, "routes": &plan.RouteTable{},
				"scope": &plan.Scope{}, "listener": &plan.Listener{},
			}[kind]
			if err := json.Unmarshal(f.Data, row); err != nil {
				t.Fatal(err)
			}
			switch row := row.(type) {
			case *plan.Cluster: // with endpoints, or Envoy waits for them
				all = append(all, row, &plan.ClusterEndpoints{Cluster: row.Name})
			case *plan.RouteTable:
				row.Name += "/" + name
				all = append(all, led(16*i+len(all), row)...)
			default:
				all = append(all, row)
			}
		}
		e.accepts(file, all...)
	}
}

// TestRegexesLoad: what the renderer takes for a regular expression Envoy takes, too;
// and all classes of characters by the names that they have both in Go and in Envoy.
func TestRegexesLoad(t *testing.T) {
	e := newEager(t)
	list, err := os.ReadFile("../xds/render/testdata/regexes.txt")
	if err != nil {
		t.Fatal(err)
	}
	exprs := strings.Split(strings.TrimSpace(string(list)), "\n")
	for _, classes := range []map[string]*unicode.RangeTable{unicode.Scripts, unicode.Categories} {
		for name := range classes {
			expr := `\p{` + name + `}\P{^` + name + `}`
			if _, err := regexp.Compile(expr); err == nil && name != "Cn" && name != "LC" { // Go's own
				exprs = append(exprs, expr)
			}
		}
	}
	for i, expr := range exprs {
		e.accepts(expr, led(i, &plan.RouteTable{Name: fmt.Sprintf("regex-%d", i), Routes: []plan.Route{{ID: "r", Match: pathMatch(model.Regex, expr)}}})...)
	}
}

func TestWebSocket(t *testing.T) {
	r := newRig(t)
	server(t, serverA, func(w http.ResponseWriter, q *http.Request) bool {
		c, err := websocket.Accept(w, q, nil)
		if err != nil {
			return true
		}
		defer c.CloseNow()
		kind, b, err := c.Read(q.Context())
		if err == nil {
			c.Write(q.Context(), kind, append([]byte("echo "), b...))
		}
		return true
	})
	r.push(rows(clusterOf(plan.Cluster{Name: "a", App: model.AppHTTP}, serverA), service(1, to("a")), listeners())...)
	hc := &http.Client{Transport: &http.Transport{DialContext: dialer(alpha).DialContext, DisableKeepAlives: true}}
	c, _, err := websocket.Dial(t.Context(), "ws://"+vip(1)+"/", &websocket.DialOptions{HTTPClient: hc})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(t.Context()); err != nil || string(b) != "echo hi" {
		t.Errorf("%q %v", b, err)
	}
}

// TestKeepAliveIsBalancedPerRequest: requests of one connection go to all backends.
func TestKeepAliveIsBalancedPerRequest(t *testing.T) {
	r := newRig(t)
	server(t, serverA, nil)
	server(t, serverB, nil)
	r.push(rows(clusterOf(plan.Cluster{Name: "a"}, serverA, serverB), service(1, to("a")), listeners())...)
	c, err := dialer(alpha).Dial("tcp", vip(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	seen := map[string]int{}
	for range 40 {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nhost: web\r\n\r\n")
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		var e echo
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		seen[e.Server]++
	}
	if len(seen) != 2 {
		t.Errorf("requests went to %v", seen)
	}
}
