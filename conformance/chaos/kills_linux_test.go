// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/proxy"
)

// Kinds of what is killed.
const (
	killAgent = "agent"
	killProxy = "proxy"
	killEnvoy = "envoy"
)

// An Envoy's connections end a little before it does. One through another Envoy's may
// be used for so long before that Envoy hears of the end.
const slack = 250 * time.Millisecond

// maxDead is how long a proxy stays dead at most. Without its Envoy a new one then has
// until a client's connection has waited for 3 s, and is refused.
const maxDead = time.Second

// TestKills kills the processes of two nodes in random order, under load and while
// services are asked for that nobody has used before: nobody gets a wrong answer, and
// what fails had a connection open through an Envoy that was killed.
func TestKills(t *testing.T) { testKills(t) }

// TestKillsWithStandby is the same with an Envoy beside each that takes over.
func TestKillsWithStandby(t *testing.T) { testKills(t, "--standby") }

// kill is one that was done.
type kill struct {
	at, gone time.Time // gone: of an Envoy, no later than its end was seen
	node     string
	what     string
	together []string // what else was dead then
	failed   int      // requests that it explains
}

func (k *kill) String() string {
	s := k.node + " " + k.what
	if len(k.together) > 0 {
		s += " without " + strings.Join(k.together, ", ")
	}
	return s
}

// world is the lab.
type world struct{ *twonodes.Lab }

// killer decides what is killed, and keeps what is dead from staying so.
type killer struct {
	t     *testing.T
	w     *world
	rng   *rand.Rand
	extra []string        // arguments of proxies
	dead  map[string]bool // "node what"
	envoy map[string]int  // the last that is known to serve, by node
	kills []*kill
}

func testKills(t *testing.T, extra ...string) {
	w := &world{twonodes.Lives(t)}
	rng := random(t)
	k := &killer{t: t, w: w, rng: rng, extra: extra, dead: map[string]bool{}, envoy: map[string]int{}}
	app := shopManifests(t)
	fresh := freshManifests(*killsFlag + 1)
	t.Cleanup(func() {
		k.reviveAll() // as long as an agent is dead, nothing can be taken away
		w.Change(t, lab.Delete, app+"---\n"+fresh)
		if len(extra) > 0 { // the next test's proxies are as they were
			k.extra = nil
			k.startProxiesAnew()
		}
	})
	w.Change(t, lab.Apply, app+"---\n"+fresh)
	if len(extra) > 0 {
		k.startProxiesAnew()
	}
	for _, node := range w.Nodes() {
		k.awaitEnvoy(node)
	}

	clients := map[string]func() traffic.Result{}
	for i, node := range w.Nodes() {
		six := i == 1
		clients[node] = w.Client(t, fmt.Sprintf("shop/frontend-%d", i+1), w.allowed(t, six))
	}
	clients["batch"] = w.Client(t, "shop/batch", w.forbidden(t))
	time.Sleep(time.Second)
	begin := time.Now()
	var unused []traffic.Failure
	asked := 0
	for i := 0; len(k.kills) < *killsFlag; i++ {
		k.next()
		var revived sync.WaitGroup
		later := time.Duration(rng.Int64N(int64(maxDead)))
		revived.Go(func() { time.Sleep(later); k.revive(killProxy) })
		failures, n := w.first(t, i)
		revived.Wait()
		unused, asked = append(unused, failures...), asked+n
		if rng.IntN(3) == 0 {
			k.revive(killAgent)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
	}
	k.reviveAll()
	failures, n := w.first(t, *killsFlag)
	unused, asked = append(unused, failures...), asked+n
	time.Sleep(time.Second)
	took := time.Since(begin)

	sent := map[string]int{}
	total := 0
	slowest := time.Duration(0)
	all := unused
	for _, who := range slices.Sorted(maps.Keys(clients)) {
		r := clients[who]()
		all = append(all, r.Failures...)
		slowest = max(slowest, r.Slowest)
		for s, n := range r.Sent {
			sent[s] += n
			total += n
			if n < 20 {
				t.Errorf("%s: just %d requests %s", who, n, s)
			}
		}
	}
	k.judge(all)
	t.Logf("%d kills in %.0f s; %d requests %v, the slowest took %v; %d first ones for services that nobody had used", len(k.kills), took.Seconds(), total, sent, slowest.Round(time.Millisecond), asked)
	k.log()
}

// judge looks for the kill that explains each failure.
func (k *killer) judge(all []traffic.Failure) {
	k.t.Helper()
	wrong := 0
	for _, f := range all {
		// Without an answer, or with Envoy's own word that the connection to the next
		// one is gone; any other answer is wrong whatever has happened.
		if f.Status == 0 || f.Status == http.StatusServiceUnavailable && !strings.HasPrefix(f.By, "reviews") {
			if by := k.explains(f); by != nil {
				by.failed++
				continue
			}
		}
		if wrong++; wrong <= 20 {
			k.t.Errorf("%s; before: %s", f, k.before(f.Ended))
		}
	}
	if wrong > 0 {
		k.t.Errorf("%d requests failed, or were answered wrongly, that had nothing to do with an Envoy that was killed", wrong)
	}
}

// explains is the Envoy whose end cut the failed request's connection, or the one from
// the client's Envoy to the next.
func (k *killer) explains(f traffic.Failure) *kill {
	for _, by := range slices.Backward(k.kills) {
		if by.what != killEnvoy || f.Ended.Before(by.at) || f.Worked.After(by.gone.Add(slack)) {
			continue
		}
		open := f.Opened.Before(by.gone)
		next := f.Status == http.StatusServiceUnavailable && f.Began.Before(by.gone.Add(slack))
		if open || next {
			return by
		}
	}
	return nil
}

// before lists what was killed shortly before.
func (k *killer) before(at time.Time) string {
	var out []string
	for _, by := range k.kills {
		if d := at.Sub(by.at); d > 0 && d < 10*time.Second {
			out = append(out, fmt.Sprintf("%s %v ago", by, d.Round(time.Millisecond)))
		}
	}
	return strings.Join(out, ", ")
}

func (k *killer) log() {
	type row struct{ kills, failed, worst int }
	rows := map[string]row{}
	for _, by := range k.kills {
		name := by.what
		if len(by.together) > 0 {
			name += " while others were dead"
		}
		r := rows[name]
		rows[name] = row{r.kills + 1, r.failed + by.failed, max(r.worst, by.failed)}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		k.t.Logf("%d times %s: %d requests failed, %d at most at a time", r.kills, name, r.failed, r.worst)
	}
}

// next kills something that lives: of a proxy sometimes the Envoy, too.
func (k *killer) next() {
	k.t.Helper()
	for {
		node := k.w.Nodes()[k.rng.IntN(2)]
		what := []string{killAgent, killProxy, killEnvoy, killEnvoy}[k.rng.IntN(4)]
		if k.dead[node+" "+what] {
			continue
		}
		if what == killEnvoy && k.crashes(node) >= maxCrashes {
			continue
		}
		// A request may wait for one Envoy, but not for two in turn.
		for _, node := range k.w.Nodes() {
			k.awaitEnvoy(node)
		}
		k.kill(node, what)
		if what == killProxy && k.rng.IntN(3) == 0 && len(k.kills) < *killsFlag {
			k.kill(node, killEnvoy)
		}
		return
	}
}

// A proxy takes its time with an Envoy that ends again and again: each that lived less
// than shortLife doubles the pause, from 100 ms. After more than maxCrashes a client
// would wait too long.
const (
	shortLife  = 30 * time.Second
	maxCrashes = 4
)

// crashes counts the ends of a node's Envoys that its proxy holds against the next.
func (k *killer) crashes(node string) int {
	n := 0
	for _, by := range slices.Backward(k.kills) {
		if by.node != node {
			continue
		}
		if by.what == killProxy || time.Since(by.at) > shortLife {
			break
		}
		if by.what == killEnvoy {
			n++
		}
	}
	return n
}

func (k *killer) kill(node, what string) {
	k.t.Helper()
	by := &kill{at: time.Now(), node: node, what: what, together: slices.Sorted(maps.Keys(k.dead))}
	if what != killEnvoy {
		k.stop(node, what, syscall.SIGKILL)
	} else {
		if err := syscall.Kill(k.envoy[node], syscall.SIGKILL); err != nil {
			k.t.Errorf("kill Envoy of %s: %v", node, err)
		}
		awaitEnd(k.envoy[node])
		by.gone = time.Now()
	}
	k.kills = append(k.kills, by)
	k.t.Logf("%s killed", by)
}

// awaitEnd waits until all threads of a process have ended: so long connections are
// taken that are cut then.
func awaitEnd(pid int) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if string(f[0]) == "Z" && string(f[17]) <= "1" {
			return
		}
	}
}

// revive starts the dead of a kind.
func (k *killer) revive(what string) {
	for _, node := range k.w.Nodes() {
		if k.dead[node+" "+what] {
			k.start(node, what)
		}
	}
}

func (k *killer) startProxiesAnew() {
	k.t.Helper()
	for _, node := range k.w.Nodes() {
		k.stop(node, killProxy, syscall.SIGTERM)
		k.start(node, killProxy)
	}
}

func (k *killer) reviveAll() {
	k.revive(killAgent)
	k.revive(killProxy)
	for _, node := range k.w.Nodes() {
		k.awaitEnvoy(node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := k.w.Applied(ctx); err != nil {
		k.t.Error(err)
	}
}

func (k *killer) stop(node, what string, by syscall.Signal) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := lab.Stop(ctx, k.w.Name, node, what, by); err != nil {
		k.t.Errorf("stop %s of %s: %v", what, node, err)
	}
	k.dead[node+" "+what] = true
}

func (k *killer) start(node, what string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var extra []string
	if what == killProxy {
		extra = k.extra
	}
	if err := lab.Start(ctx, k.w.Name, node, what, extra...); err != nil {
		k.t.Errorf("start %s of %s: %v", what, node, err)
	}
	delete(k.dead, node+" "+what)
}

// awaitEnvoy waits until a node has an Envoy that serves, and the one that stands by
// if there is to be one.
func (k *killer) awaitEnvoy(node string) {
	k.t.Helper()
	var s proxy.Status
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s, err = proxy.ReadStatus(context.Background(), k.w.RunDir(node))
		if err != nil {
			continue
		}
		ready := 0
		for _, g := range s.Generations {
			if g.Ready && g.Role == proxy.Active {
				k.envoy[node] = g.PID
			}
			if g.Ready {
				ready++
			}
		}
		if s.Envoy.Connected && k.envoy[node] == s.Envoy.PID && ready == 1+len(k.extra) {
			return
		}
	}
	k.t.Errorf("%s has no Envoy that serves: %v, %+v", node, err, s)
}

const freshPort = 8000

func freshName(i int) string { return fmt.Sprintf("fresh-%d", i) }

// freshManifests are services that nobody uses before their time; each leads to one of
// the two versions.
func freshManifests(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, `apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec: {selector: {app: reviews, version: v%d}, ports: [{name: http, port: %d, targetPort: http}]}
---
`, freshName(i), 1+i%2, freshPort)
	}
	return out.String()
}

func shopManifests(t *testing.T) string {
	t.Helper()
	var all []string
	for _, name := range []string{"app.yaml", "istio.yaml"} {
		b, err := os.ReadFile(filepath.Join("..", "demo", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return strings.Join(all, "\n---\n")
}

// allowed are requests that have to succeed, and some that must not.
func (w *world) allowed(t *testing.T, six bool) []traffic.Stream {
	t.Helper()
	addr := net.JoinHostPort(w.Address(t, "shop", "reviews", six).String(), "80")
	both := []string{"reviews-v1", "reviews-v2"}
	return []traffic.Stream{
		{Name: "kept", Addr: addr, Host: "reviews", Method: "GET", Path: "/api/x", Keep: true, Workers: 4, Every: 30 * time.Millisecond, Want: 200, By: both},
		{Name: "fresh", Addr: addr, Host: "reviews", Method: "GET", Path: "/api/x", Workers: 4, Every: 40 * time.Millisecond, Want: 200, By: both},
		{Name: "forbidden by method", Addr: addr, Host: "reviews", Method: "POST", Path: "/api/x", Workers: 1, Every: 50 * time.Millisecond, Want: 403},
		{Name: "forbidden by path", Addr: addr, Host: "reviews", Method: "GET", Path: "/private", Keep: true, Workers: 1, Every: 50 * time.Millisecond, Want: 403},
	}
}

func (w *world) forbidden(t *testing.T) []traffic.Stream {
	t.Helper()
	var out []traffic.Stream
	for _, six := range []bool{false, true} {
		addr := net.JoinHostPort(w.Address(t, "shop", "reviews", six).String(), "80")
		for _, keep := range []bool{false, true} {
			out = append(out, traffic.Stream{Name: "forbidden by identity", Addr: addr, Host: "reviews", Method: "GET", Path: "/api/x", Keep: keep, Workers: 1, Every: 50 * time.Millisecond, Want: 403})
		}
	}
	return out
}

// first asks for a service that nobody has used, from both nodes and by somebody who
// must not: one request each.
func (w *world) first(t *testing.T, i int) (failures []traffic.Failure, asked int) {
	t.Helper()
	by := []string{fmt.Sprintf("reviews-v%d", 1+i%2)}
	var mu sync.Mutex
	var all sync.WaitGroup
	for n, pod := range []string{"shop/frontend-1", "shop/frontend-2", "shop/batch"} {
		addr := net.JoinHostPort(w.Address(t, "shop", freshName(i), n == 1).String(), fmt.Sprint(freshPort))
		s := traffic.Stream{Name: fmt.Sprintf("first of %s from %s", freshName(i), pod), Addr: addr, Host: freshName(i), Method: "GET", Path: "/api/x", Workers: 1, Once: true, Want: 200, By: by}
		if pod == "shop/batch" {
			s.Want, s.By = 403, nil
		}
		all.Go(func() {
			r := w.Once(t, pod, s)
			mu.Lock()
			defer mu.Unlock()
			failures = append(failures, r.Failures...)
			asked += r.Sent[s.Name]
		})
	}
	all.Wait()
	return failures, asked
}
