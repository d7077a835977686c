// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/kubetest"
)

// An API server is a source as a folder is: nothing is applied before all is there, then
// each change; and while it is away all stays as it is, and status tells.
func TestObjectsOfAnAPIServer(t *testing.T) {
	server := kubetest.New(t)
	r := newRig(t, nil)
	src, err := kube.New(kube.Options{Config: &kube.Config{Host: server.TCP()}, Registry: r.pipe.Registry(), Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	r.src = apiServer{src}
	ctx, cancel := context.WithCancel(t.Context())
	changed, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- r.src.run(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(what string) {
		t.Helper()
		select {
		case <-changed:
			r.reload(t.Context())
		case <-time.After(20 * time.Second):
			t.Fatalf("not woken by %s; %s", what, r.src.health())
		}
	}
	server.Interrupt(func(q *http.Request) (int, bool) { return 0, strings.HasSuffix(q.URL.Path, "/pods") })
	server.Apply(theNode + "---" + theApp)
	select {
	case <-changed:
		t.Fatal("woken before all was there")
	case <-time.After(300 * time.Millisecond):
	}
	if h := r.src.health(); h.Complete || r.begun {
		t.Errorf("health %+v, begun %t", h, r.begun)
	}
	server.Interrupt(nil)
	server.Away() // who hangs lets go
	server.Back()
	await("the first picture")
	n := r.pipe.Objects()
	if !r.begun || n < 4 || r.revision == "" {
		t.Errorf("begun %t, %d objects", r.begun, n)
	}
	before := r.revision
	server.Apply("apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: shop}\nspec: {clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80}]}\n")
	await("a service")
	if r.revision == before || r.services["TCP/10.96.0.9:80"] == "" || r.pipe.Objects() != n+1 {
		t.Errorf("services %v", r.services)
	}
	server.Away()
	for end := time.Now().Add(20 * time.Second); len(r.src.health().Problems) == 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if h := r.src.health(); !h.Complete || len(h.Problems) == 0 || r.pipe.Objects() != n+1 {
		t.Errorf("health %s, complete %t, %d objects, want %d", h, h.Complete, r.pipe.Objects(), n+1)
	}
}
