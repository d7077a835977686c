// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/proxy"
)

// TestFirstRequests asks for services that nobody has used yet while the proxy that
// Envoy has to ask for them is killed and started again: the requests wait, and are
// answered as soon as there is one; those that are forbidden are refused.
func TestFirstRequests(t *testing.T) {
	w := lives(t)
	const unused = 40
	app, istio := shop(t, "app.yaml"), shop(t, "istio.yaml")
	services := txtar.File{Name: "unused.yaml"}
	requests := []string{ // several wait for the same at a time; each twice, to go on for a while
		"frontend-1 GET http://unused-%d/api/x *2 every=50ms timeout=10s -> 200 took<4s peer=self\n",
		"frontend-1 GET http://unused-%d/api/y v6 *2 every=50ms timeout=10s -> 200 took<4s peer=self\n",
		"frontend-1 POST http://unused-%d/api/x *2 every=50ms timeout=10s -> 403 took<4s\n",
		"batch GET http://unused-%d/api/x v6 *2 every=50ms timeout=10s -> 403 took<4s\n",
	}
	texts := make([]string, len(requests))
	for i := range unused {
		services.Data = fmt.Appendf(services.Data, `---
apiVersion: v1
kind: Service
metadata: {name: unused-%d, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: http}]}
`, i)
		for n, r := range requests {
			texts[n] += fmt.Sprintf(r, i)
		}
	}
	t.Cleanup(func() { w.delete(t, services, istio, app); w.nothingLeft(t) })
	w.apply(t, app, istio, services)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	asked := make(chan struct{})
	kills := make(chan int)
	go func() {
		n := 0
		defer func() { kills <- n }()
		for {
			if err := lab.Stop(ctx, labName, "node-1", "proxy", syscall.SIGKILL); err != nil {
				t.Error(err)
				return
			}
			n++
			time.Sleep(time.Duration(n%4) * 100 * time.Millisecond)
			if err := lab.Start(ctx, labName, "node-1", "proxy"); err != nil {
				t.Error(err)
				return
			}
			w.proxyServes(ctx, "node-1", 3*time.Second)
			select {
			case <-asked:
				return
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	begin := time.Now()
	var clients sync.WaitGroup
	for _, text := range texts {
		lines, err := ParseLines(text)
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			results, err := w.send("shop", lines)
			if err != nil {
				t.Error(err)
				return
			}
			for i, l := range lines {
				if err := l.Want.Judge(results[i], w.self("shop", l.Source)); err != nil {
					t.Errorf("%s:\n%v", l.Text, err)
				}
			}
		})
	}
	clients.Wait()
	close(asked)
	n := <-kills
	t.Logf("%d first requests, and as many again, in %v, %d proxies were killed meanwhile", len(requests)*unused, time.Since(begin).Round(time.Millisecond), n)
	if n < 3 {
		t.Errorf("%d proxies were killed, want 3 at least", n)
	}
	if err := w.applied(ctx); err != nil {
		t.Error(err)
	}
}

// proxyServes waits until a node's proxy has Envoy and agent, which takes it longer where
// others want the processors, or until the time is over.
func (w *world) proxyServes(ctx context.Context, node string, limit time.Duration) {
	for begin := time.Now(); time.Since(begin) < limit; time.Sleep(20 * time.Millisecond) {
		if s, err := proxy.ReadStatus(ctx, filepath.Join(w.run, node)); err == nil && s.Envoy.Connected && s.Feed.Connected {
			return
		}
	}
}
