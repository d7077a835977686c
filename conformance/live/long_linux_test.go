// SPDX-License-Identifier: Apache-2.0

package live

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/lab/load"
)

const longName = "long"

// longPolicy guards web: methods may ask, ports may be dialled, by the client alone.
func longPolicy(rules string) txtar.File {
	return txtar.File{Name: "policy.yaml", Data: []byte(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: long}
spec:
  selector: {matchLabels: {app: web}}
  rules:
` + rules)}
}

const (
	longClient = "  - from: [{source: {principals: [cluster.local/ns/long/sa/client]}}]\n"
	longAs     = longClient + "    to: [{operation: {methods: [GET, POST], ports: [\"8080\", \"8081\"]}}]\n" + // allows no connection
		longClient + "    to: [{operation: {ports: [\"9000\"]}}]\n"
	longWider = longAs + "  - to: [{operation: {paths: [/more]}}]\n"
	longNone  = "  - from: [{source: {principals: [cluster.local/ns/long/sa/nobody]}}]\n"
)

// TestLongConnections keeps connections over changes of policy. They live on when it
// says the same in other words, and when it allows more. When it allows the client
// nothing, nothing more gets through: requests are refused on the connection that is
// there, streams and plain connections come to their end.
func TestLongConnections(t *testing.T) {
	w := lives(t)
	base, err := os.ReadFile("../cases/base/guarded.yaml")
	if err != nil {
		t.Fatal(err)
	}
	app := txtar.File{Name: "app.yaml", Data: []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: long, labels: {fairlead.io/capture: enabled}}\n---\n" +
		strings.ReplaceAll(string(base), "$ns", longName) + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: long}
spec:
  hosts: [web]
  tcp:
  - match: [{port: 9000, sourceLabels: {app: client}}]
    route: [{destination: {host: web}}]
`)}
	t.Cleanup(func() { w.delete(t, longPolicy(longNone), app); w.nothingLeft(t) })
	w.apply(t, app, longPolicy(longAs))
	lines, err := ParseLines(strings.ReplaceAll(`
		client GET http://web/ MANY -> 200
		client GET h2c://web/ MANY v6 -> 200
		client grpc://web:8081/long.Service/Call MANY -> OK
		client ws://web/ MANY -> 101
		client ws://web/ MANY v6 -> 101
		client tcp://web:9000 body=hello MANY v6 -> ok`, "MANY", "*240 keepalive every=40ms timeout=1s"))
	if err != nil {
		t.Fatal(err)
	}
	results := make([][]load.Result, len(lines))
	var senders sync.WaitGroup
	for i, l := range lines {
		senders.Go(func() {
			got, err := w.send(longName, []Line{l})
			if err != nil {
				t.Errorf("%s: %v", l.Text, err)
				return
			}
			results[i] = got[0]
		})
	}
	pause := func() { time.Sleep(700 * time.Millisecond) }
	pause()
	w.apply(t, longPolicy(strings.ReplaceAll(longAs, "GET, POST", "POST, GET")))
	pause()
	w.apply(t, longPolicy(longWider))
	pause()
	narrowed := time.Now()
	w.apply(t, longPolicy(longNone))
	closed := time.Now()
	senders.Wait()
	for i, l := range lines {
		answered, ends := 0, map[string]int{}
		for _, r := range results[i] {
			good := l.Want.status(r)
			switch {
			case good:
				answered++
			case r.Time.Before(closed):
				ends["closing: "+outcome(r)]++ // the node with the destination may be the first to know
			default:
				ends[outcome(r)]++
			}
			switch ended := r.Time.Add(time.Duration(r.Millis * float64(time.Millisecond))); {
			case good && r.Time.After(closed):
				t.Errorf("%s: got through %v after it was closed", l.Text, r.Time.Sub(closed))
			case !good && ended.Before(narrowed):
				t.Errorf("%s: failed %v before anything was forbidden: %s", l.Text, narrowed.Sub(r.Time), describe(r))
			case good && r.Time.Before(narrowed) && r.Local != results[i][0].Local:
				t.Errorf("%s: sent from %s, before from %s: not the same connection", l.Text, r.Local, results[i][0].Local)
			}
		}
		t.Logf("%s: %d were answered, then %v", l.Text, answered, ends)
		if answered < 10 || answered == len(results[i]) {
			t.Errorf("%s: %d of %d were answered", l.Text, answered, len(results[i]))
		}
		for end := range ends {
			if l.requests() && !strings.HasPrefix(end, "closing: ") && end != "403" && end != "PERMISSION_DENIED" {
				t.Errorf("%s: refused by %v", l.Text, ends)
			}
		}
	}
}

// requests reports whether a line's repetitions are requests of their own.
func (l *Line) requests() bool {
	return !strings.HasPrefix(l.URL, "ws:") && !strings.HasPrefix(l.URL, "tcp:")
}
