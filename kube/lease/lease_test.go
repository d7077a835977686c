// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/kubetest"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// peer is an agent of a node, but for what it does for the node.
type peer struct {
	node    string
	source  *kube.Source
	writer  *Writer
	state   State
	changes []string // what became of other nodes, as this one sees it
	stop    func()
}

type mesh struct {
	*kubetest.Server
	t *testing.T
}

func run(t *testing.T, test func(m mesh)) {
	synctest.Test(t, func(t *testing.T) {
		m := mesh{kubetest.New(t), t}
		test(m)
	})
}

// join starts an agent whose clock is wrong by skew in what it writes.
func (m mesh) join(node, instance string) *peer {
	m.t.Helper()
	tr := kubernetes.New(kubernetes.Options{Leases: kubernetes.SystemNamespace})
	s, err := kube.New(kube.Options{Config: m.Config(), Registry: objects.NewRegistry(tr.Types()...), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	p := &peer{node: node, source: s, state: State{Ready: true, Nodes: 2, Revision: "r1"}}
	p.writer, err = New(Options{Config: m.Config(), Namespace: kubernetes.SystemNamespace, Node: node, Instance: instance, Version: "v1",
		State: func(time.Time) State { return p.state }, Source: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{}, 2)
	go func() {
		_ = s.Run(ctx, func() {
			u, _ := s.Take()
			for _, e := range u.Edits {
				if e.Ref.Kind == objects.LeaseKind && e.Ref.Name != node {
					switch {
					case e.New == nil:
						p.changes = append(p.changes, e.Ref.Name+" gone")
					case e.New.Annotations[kubernetes.BehindKey] != "":
						p.changes = append(p.changes, e.Ref.Name+" behind")
					default:
						p.changes = append(p.changes, e.Ref.Name+" current")
					}
				}
			}
		})
		done <- struct{}{}
	}()
	go func() { _ = p.writer.Run(ctx); done <- struct{}{} }()
	p.stop = func() { cancel(); <-done; <-done }
	m.t.Cleanup(cancel)
	return p
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (m mesh) want(p *peer, changes string) {
	m.t.Helper()
	if got := strings.Join(p.changes, ", "); got != changes {
		m.t.Errorf("%s saw %q, want %q", p.node, got, changes)
	}
	p.changes = nil
}

func (m mesh) lease(node string) map[string]any {
	m.t.Helper()
	return m.Get("coordination.k8s.io", "leases", kubernetes.SystemNamespace+"/"+node)
}

func TestAgentsHearOfEachOther(t *testing.T) {
	run(t, func(m mesh) {
		a, b := m.join("a", "a_1"), m.join("b", "b_1")
		after(10 * time.Second)
		m.want(a, "b current")
		m.want(b, "a current")
		after(time.Hour) // and nobody hears of renewals
		m.want(a, "")
		m.want(b, "")
		if n := m.Asked("/leases/a"); n < 700 || n > 740 {
			m.t.Errorf("a wrote %d times in an hour", n)
		}
		l := m.lease("a")
		spec := l["spec"].(map[string]any)
		if spec["holderIdentity"] != "a_1" || fmt.Sprint(spec["leaseDurationSeconds"]) != "15" {
			m.t.Errorf("lease %v", l)
		}
		if got := b.source.Peers(); len(got) != 2 || got[0].Instance != "a_1" || got[0].Version != "v1" || got[0].Revision != "r1" || got[0].Behind != "" {
			m.t.Errorf("b knows %+v", got)
		}
		a.stop()
		after(20 * time.Second)
		m.want(b, "a behind")
		if got := b.source.Peers()[0].Behind; !strings.Contains(got, "not renewed") {
			m.t.Errorf("b says %q", got)
		}
		a = m.join("a", "a_2")
		after(10 * time.Second)
		m.want(b, "a current")
		client, err := clientOf(m.Config())
		if err == nil {
			err = client.Leases(kubernetes.SystemNamespace).Delete(m.t.Context(), "a", metav1.DeleteOptions{})
		}
		if err != nil {
			m.t.Error(err)
		}
		after(time.Second)
		if len(b.changes) == 0 || b.changes[0] != "a gone" {
			m.t.Errorf("b saw %v", b.changes)
		}
		a.stop()
	})
}

// An agent that does not come back, as after an uninstall that left its Lease, or on a node
// that was taken out: the node is one without Fairlead then, whose pods others guard.
func TestAnAgentThatIsGone(t *testing.T) {
	run(t, func(m mesh) {
		a, b := m.join("a", "a_1"), m.join("b", "b_1")
		after(10 * time.Second)
		m.want(b, "a current")
		a.stop()
		after(20 * time.Second)
		m.want(b, "a behind")
		m.Away() // for which nobody can blame it
		after(20 * time.Minute)
		m.want(b, "")
		m.Back()
		after(15 * time.Minute)
		m.want(b, "a gone")
		if got := b.source.Peers()[0].Behind; !strings.Contains(got, "without Fairlead") {
			m.t.Errorf("b says %q", got)
		}
		c := m.join("c", "c_1") // hears of it by a Lease that is old
		after(10 * time.Second)
		m.want(c, "b current")
		a = m.join("a", "a_2")
		after(10 * time.Second)
		m.want(b, "c current, a current")
		m.want(c, "a current")
	})
}

// An agent that follows another one of its node within the time costs nobody anything.
func TestARestart(t *testing.T) {
	run(t, func(m mesh) {
		a, b := m.join("a", "a_1"), m.join("b", "b_1")
		after(10 * time.Second)
		m.want(b, "a current")
		a.stop()
		after(8 * time.Second)
		m.join("a", "a_2")
		after(time.Minute)
		m.want(b, "")
		if got := b.source.Peers()[0].Instance; got != "a_2" {
			m.t.Errorf("the Lease is held by %s", got)
		}
		// A reader that restarts believes whom it finds in time, and nobody else.
		b.stop()
		after(time.Second)
		b = m.join("b", "b_2")
		after(time.Second)
		m.want(b, "a current")
	})
}

func TestAnAgentThatIsBehindSaysSo(t *testing.T) {
	run(t, func(m mesh) {
		a, b := m.join("a", "a_1"), m.join("b", "b_1")
		after(10 * time.Second)
		m.want(b, "a current")
		a.state.Behind = "Envoy has not acknowledged"
		after(3 * time.Second)
		m.want(b, "a behind")
		if got := b.source.Peers()[0].Behind; got != "Envoy has not acknowledged" {
			m.t.Errorf("b says %q", got)
		}
		after(time.Minute)
		m.want(b, "")
		a.state.Behind = ""
		after(3 * time.Second)
		m.want(b, "a current")
		a.state.Ready = false
		after(20 * time.Second)
		m.want(b, "a behind")
		if s := a.writer.Status(); s.Silent != starts {
			m.t.Errorf("a says %+v", s)
		}
	})
}

// While the API server is away nobody is told anything, and nobody takes that for a sign.
func TestTheServerIsAway(t *testing.T) {
	for _, away := range []time.Duration{3 * time.Second, time.Minute, time.Hour} {
		run(t, func(m mesh) {
			a, b := m.join("a", "a_1"), m.join("b", "b_1")
			after(10 * time.Second)
			m.want(a, "b current")
			m.want(b, "a current")
			m.Away()
			after(away)
			if away > 20*time.Second && a.writer.Status().Silent == "" {
				m.t.Errorf("away for %s: a is content", away)
			}
			m.Back()
			after(2 * time.Minute)
			m.want(a, "")
			m.want(b, "")
			if s := a.writer.Status(); s.Silent != "" || s.Behind != "" {
				m.t.Errorf("away for %s: a says %+v", away, s)
			}
			// One that has ended meanwhile is behind after its time.
			m.Away()
			a.stop()
			after(away)
			m.Back()
			after(2 * time.Minute)
			m.want(b, "a behind")
		})
	}
}

// A server that takes connections and says nothing is away, too.
func TestTheServerHangs(t *testing.T) {
	run(t, func(m mesh) {
		a, b := m.join("a", "a_1"), m.join("b", "b_1")
		after(10 * time.Second)
		a.changes, b.changes = nil, nil
		m.Interrupt(func(r *http.Request) (int, bool) { return 0, true })
		after(time.Minute)
		m.Interrupt(nil)
		after(2 * time.Minute)
		m.want(a, "")
		m.want(b, "")
	})
}

// Streams of which nothing comes while the server answers otherwise: who listens there
// does not hear its own renewals, and says so.
func TestAStreamThatSaysNothing(t *testing.T) {
	run(t, func(m mesh) {
		a, b := m.join("a", "a_1"), m.join("b", "b_1")
		after(10 * time.Second)
		a.changes, b.changes = nil, nil
		m.Mute("coordination.k8s.io/leases", true)
		after(40 * time.Second)
		m.want(b, "")
		if s := a.writer.Status(); !strings.Contains(s.Behind, "own renewals") {
			m.t.Errorf("a says %+v", s)
		}
		m.Mute("coordination.k8s.io/leases", false)
		after(time.Minute)
		if s := a.writer.Status(); s.Behind != "" || s.Silent != "" || b.source.Peers()[0].Behind != "" {
			m.t.Errorf("a says %+v, b %+v", s, b.source.Peers()[0])
		}
	})
}

func TestWithoutPermission(t *testing.T) {
	run(t, func(m mesh) {
		m.Interrupt(func(r *http.Request) (int, bool) {
			if r.Method != http.MethodGet || strings.HasSuffix(r.URL.Path, "/leases/a") {
				return 403, false
			}
			return 0, false
		})
		a := m.join("a", "a_1")
		after(10 * time.Second)
		if s := a.writer.Status(); !strings.Contains(s.Silent, "allow get, create and update of leases") {
			m.t.Errorf("a says %+v", s)
		}
		m.Interrupt(func(r *http.Request) (int, bool) {
			if strings.HasSuffix(r.URL.Path, "/leases") && r.Method == http.MethodGet {
				return 403, false
			}
			return 0, false
		})
		b := m.join("b", "b_1")
		after(20 * time.Second)
		if b.source.Health().Complete != true || len(b.source.Peers()) != 0 {
			m.t.Errorf("b: %+v, %v", b.source.Health(), b.source.Peers())
		}
	})
}

// Two agents of one name: the one that has come later has it, and the other says so.
func TestTwoOfOneName(t *testing.T) {
	run(t, func(m mesh) {
		a := m.join("a", "a_1")
		after(10 * time.Second)
		other := m.join("a", "a_2")
		after(time.Minute)
		if s := a.writer.Status(); !strings.Contains(s.Silent, "another agent, a_2") {
			m.t.Errorf("a_1 says %+v", s)
		}
		if s := other.writer.Status(); s.Silent != "" {
			m.t.Errorf("a_2 says %+v", s)
		}
		other.stop()
		after(time.Minute)
		if s := a.writer.Status(); s.Silent != "" {
			m.t.Errorf("a_1 says %+v", s)
		}
	})
}

// A node that was made anew is another one.
func TestANodeOfTheSameName(t *testing.T) {
	run(t, func(m mesh) {
		a := m.join("a", "a_1")
		a.state.NodeUID = "1"
		after(10 * time.Second)
		a.state.NodeUID = "2"
		after(10 * time.Second)
		meta := m.lease("a")["metadata"].(map[string]any)
		if meta["annotations"].(map[string]any)[kubernetes.NodeUIDKey] != "2" || meta["ownerReferences"].([]any)[0].(map[string]any)["uid"] != "2" {
			m.t.Errorf("lease %v", meta)
		}
	})
}

// A process that was stopped does not go on as if nothing had been: see also the test on a
// cluster, which stops one.
func TestAfterAPause(t *testing.T) {
	run(t, func(m mesh) {
		a := m.join("a", "a_1")
		after(10 * time.Second)
		a.stop()
		w := a.writer
		ctx := m.t.Context()
		after(time.Minute)
		a.state.Behind = "its loop has not gone on yet" // which is said at once, and soon over
		w.look(ctx, time.Now())
		if s := w.Status(); s.Behind == "" {
			m.t.Errorf("at once: %+v", s)
		}
		a.state.Behind = ""
		before := w.Status().Renewed
		after(time.Second)
		w.look(ctx, time.Now())
		if s := w.Status(); s.Silent != settles || s.Renewed.After(before) {
			m.t.Errorf("at once: %+v", s)
		}
		a2 := m.join("a", "a_1") // what listens again
		_ = a2
		a2.stop()
		for range 3 {
			after(time.Second)
			w.look(ctx, time.Now())
			if s := w.Status(); s.Silent != settles {
				m.t.Errorf("soon: %+v", s)
			}
		}
		after(time.Second)
		w.look(ctx, time.Now())
		if s := w.Status(); s.Silent == settles {
			m.t.Errorf("then: %+v", s)
		}
	})
}

// Clocks of machines differ.
func TestClocksDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, -20 * time.Second, 20 * time.Second, time.Hour} {
		run(t, func(m mesh) {
			b := m.join("b", "b_1")
			after(5 * time.Second)
			write := func() {
				m.Apply(fmt.Sprintf(`apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: a, namespace: fairlead-system, labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: agent}}
spec: {holderIdentity: a_1, leaseDurationSeconds: 15, renewTime: %q}
`, time.Now().Add(skew).Format("2006-01-02T15:04:05.000000Z07:00")))
			}
			write()
			after(time.Second)
			first := "a behind" // it may be an old one
			if skew == -time.Hour {
				first = "" // or one of long ago
			}
			m.want(b, first)
			for range 100 {
				after(5 * time.Second)
				write()
			}
			after(10 * time.Second)
			m.want(b, "a current")
			after(10 * time.Second)
			m.want(b, "a behind")
		})
	}
}

func TestRenewInLargeClusters(t *testing.T) {
	for nodes, want := range map[int]time.Duration{2: 5 * time.Second, 200: 5 * time.Second, 300: 9 * time.Second, 1000: 100 * time.Second} {
		if got := Renew(DefaultRenew, nodes); got != want {
			t.Errorf("%d nodes: %s, want %s", nodes, got, want)
		}
	}
}
