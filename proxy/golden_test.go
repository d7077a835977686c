// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// TestGoldensLoad gives everything in the renderer's test data to a real Envoy.
func TestGoldensLoad(t *testing.T) {
	r := newRig(t)
	files, err := filepath.Glob("../xds/render/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	r.push(listeners()...)
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
				all = append(all, &plan.ClusterEndpoints{Cluster: row.Name})
			case *plan.RouteTable: // Envoy looks at routes that a scope leads to
				all = append(all, &plan.Scope{Key: plan.DestinationKey(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 9, byte(i)}), 80)), RouteTable: row.Name})
			}
			all = append(all, row)
		}
		o := r.pushOutcome(all...)
		if len(o.Rejected) > 0 {
			t.Errorf("%s: %+v", file, o.Rejected)
		}
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
