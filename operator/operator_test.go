// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/kubetest"
)

func TestMain(m *testing.M) {
	kube.Prepare(&kube.Config{}) // whose logging is set up once, outside of any test's clock
	os.Exit(m.Run())
}

// rig is an API server and the operators on it, on a clock of its own.
type rig struct {
	*kubetest.Server
	t    *testing.T
	seen int // writes that were looked at
}

func run(t *testing.T, test func(t *testing.T, r *rig)) {
	if _, err := newOperator(Options{Config: &kube.Config{Host: "http://api.test"}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err) // and the registry's caches are filled
	}
	synctest.Test(t, func(t *testing.T) {
		r := &rig{Server: kubetest.New(t), t: t}
		for _, k := range [][2]string{{"VirtualService", "virtualservices"}, {"DestinationRule", "destinationrules"}} {
			r.Define("networking.istio.io", k[0], k[1], "v1")
			r.Alter("networking.istio.io/"+k[1], func(res *kubetest.Resource) { res.Status = true })
		}
		r.Define("split.smi-spec.io", "TrafficSplit", "trafficsplits", "v1alpha4")
		r.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n" + service("web", 1) + "\n---\n" + service("web-v2", 2))
		test(t, r)
	})
}

func service(name string, i int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\nspec: {clusterIP: 10.0.0.%d, selector: {app: %s}, ports: [{name: http, port: 80}]}", name, i, name)
}

// route is a VirtualService; one with a bad expression is invalid.
func route(name, match string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + name + ", namespace: shop}\nspec: {hosts: [web], http: [{match: [{uri: {regex: \"" + match + "\"}}], route: [{destination: {host: web}}]}]}"
}

func split(name, backend string) string {
	return "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: " + name + ", namespace: shop}\nspec: {service: web, backends: [{service: " + backend + ", weight: 1}]}"
}

// process is an operator that runs.
type process struct {
	log  *buffer
	stop func()
}

// buffer is a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs an operator until it is stopped, or the test ends.
func (r *rig) start(identity, namespace string, options ...func(*Options)) *process {
	p := &process{log: &buffer{}}
	o := Options{Config: r.Config(), Namespace: namespace, Identity: identity, Log: slog.New(slog.NewTextHandler(p.log, nil))}
	for _, f := range options {
		f(&o)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("%s: %v", identity, err)
		}
	})
	r.t.Cleanup(p.stop)
	return p
}

// after lets time pass and returns what was written to objects: not the renewals of
// Leases.
func (r *rig) after(d time.Duration) []kubetest.Write {
	time.Sleep(d)
	synctest.Wait()
	all := r.Writes()
	out := slices.DeleteFunc(slices.Clone(all[r.seen:]), func(w kubetest.Write) bool { return strings.Contains(w.Path, "/leases") })
	r.seen = len(all)
	return out
}

// condition is one of a VirtualService: "status reason generation".
func (r *rig) condition(name, typ string) string {
	for _, e := range r.conditions(name) {
		if c := e.(map[string]any); c["type"] == typ {
			return fmt.Sprint(c["status"], " ", c["reason"], " ", c["observedGeneration"])
		}
	}
	return ""
}

func (r *rig) conditions(name string) []any {
	status, _ := r.Get("networking.istio.io", "virtualservices", "shop/"+name)["status"].(map[string]any)
	list, _ := status["conditions"].([]any)
	return list
}

func (r *rig) want(name, typ, want string) {
	r.t.Helper()
	if got := r.condition(name, typ); got != want {
		r.t.Errorf("%s %s: %q, want %q", name, typ, got, want)
	}
}

// events are those that are stored, "type reason kind/name".
func (r *rig) events() string {
	var out []string
	for _, key := range r.Keys("events.k8s.io", "events") {
		e := r.Get("events.k8s.io", "events", key)
		about := e["regarding"].(map[string]any)
		out = append(out, fmt.Sprint(e["type"], " ", e["reason"], " ", about["kind"], "/", about["name"]))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

const accepted, serving = "fairlead.io/Accepted", "fairlead.io/Serving"

func TestWritesWhatDiffersAndNothingElse(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("good", "/.*") + "\n---\n" + route("bad", "("))
		p := r.start("one", "fairlead-system")
		if w := r.after(20 * time.Second); len(w) != 2 {
			t.Errorf("writes: %v\n%s", w, p.log)
		}
		r.want("good", accepted, "True Accepted 1")
		r.want("good", serving, "True Serving 1")
		r.want("bad", accepted, "False Invalid 1")
		// Idle: nothing, for hours, whatever pods do.
		for i := range 300 {
			r.Apply(fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {nodeName: n%d}", i))
			if w := r.after(time.Minute); len(w) > 0 {
				t.Fatalf("idle, and it writes %v", w)
			}
		}
		r.Apply(route("bad", "/b"))
		if w := r.after(10 * time.Second); len(w) != 1 || !strings.HasSuffix(w[0].Path, "/virtualservices/bad/status") || w[0].Code != 200 {
			t.Errorf("one object is mended, writes: %v", w)
		}
		r.want("bad", accepted, "True Accepted 2")
		// Words of another controller stay, and are no reason to write.
		r.foreign("good", append([]any{map[string]any{"type": "Reconciled", "status": "True"}}, r.conditions("good")...))
		if w := r.after(10 * time.Second); len(w) > 0 {
			t.Errorf("another has written beside it, and it writes %v", w)
		}
		r.Apply(route("good", "("))
		r.after(10 * time.Second)
		r.want("good", accepted, "False LastValidVersionInUse 2")
		if r.condition("good", "Reconciled") == "" {
			t.Error("the condition of another is gone")
		}
	})
}

// foreign writes an object's conditions as another controller does.
func (r *rig) foreign(name string, list []any) {
	r.SetStatus("networking.istio.io", "virtualservices", "shop/"+name, map[string]any{"conditions": list})
}

func TestRestartsWriteNothing(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("good", "/.*") + "\n---\n" + split("self", "web"))
		p := r.start("one", "fairlead-system")
		if w := r.after(20 * time.Second); len(w) != 3 { // a status, and two Events
			t.Errorf("writes: %v", w)
		}
		for i := range 20 {
			p.stop()
			p = r.start(fmt.Sprint("next", i), "fairlead-system")
			if w := r.after(30 * time.Second); len(w) > 0 {
				t.Fatalf("a restart writes %v", w)
			}
		}
	})
}

func TestAStoppedLeaderGivesItsLeaseBack(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		one := r.start("one", "fairlead-system")
		r.after(5 * time.Second)
		r.start("two", "fairlead-system")
		r.after(10 * time.Second)
		one.stop()
		r.Apply(route("a", "/.*"))
		r.after(6 * time.Second)
		r.want("a", accepted, "True Accepted 1")
	})
}

func TestOfTwoInstallationsTheFirstWrites(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*"))
		first := r.start("one", "fairlead-system")
		r.after(10 * time.Second)
		second := r.start("two", "another")
		if w := r.after(time.Hour); len(w) > 0 {
			t.Errorf("writes: %v", w)
		}
		if got := second.log.String(); strings.Count(got, "there is another installation of Fairlead, in namespace fairlead-system") != 1 {
			t.Errorf("it says %s", got)
		}
		first.stop()
		r.Apply(route("b", "/.*"))
		r.after(30 * time.Second)
		r.want("b", accepted, "True Accepted 1")
	})
}

func TestServersThatRefuse(t *testing.T) {
	for _, code := range []int{409, 410, 429, 500, 503, 403} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				refuse := true
				r.Interrupt(func(req *http.Request) (int, bool) {
					if refuse && req.Method == http.MethodPatch {
						return code, false
					}
					return 0, false
				})
				r.Apply(route("a", "/.*"))
				p := r.start("one", "fairlead-system")
				r.after(time.Minute)
				if asked := r.Asked("/virtualservices/a/status"); asked == 0 || asked > 200 {
					t.Errorf("it was tried %d times in a minute", asked)
				}
				r.Apply(route("b", "/.*")) // the computation goes on
				r.after(time.Minute)
				if code == 403 && !strings.Contains(p.log.String(), "allow patch of the status subresource") {
					t.Errorf("it says %s", p.log)
				}
				refuse = false
				r.after(6 * time.Minute)
				r.want("a", accepted, "True Accepted 1")
				r.want("b", accepted, "True Accepted 1")
			})
		})
	}
}

func TestAServerThatIsAway(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*"))
		r.start("one", "fairlead-system")
		r.after(10 * time.Second)
		r.Away()
		r.after(5 * time.Minute)
		r.Back()
		r.Apply(route("b", "/.*"))
		r.after(2 * time.Minute)
		r.want("b", accepted, "True Accepted 1")
		r.Forgets()
		r.Apply(route("c", "/.*"))
		if w := r.after(2 * time.Minute); len(w) != 1 {
			t.Errorf("a server that forgets, and writes: %v", w)
		}
		r.want("c", accepted, "True Accepted 1")
	})
}

func TestAnObjectThatIsReplaced(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "("))
		r.start("one", "fairlead-system")
		r.after(10 * time.Second)
		for range 20 {
			r.Remove("networking.istio.io", "virtualservices", "shop/a")
			r.Apply(route("a", "/.*"))
			r.after(100 * time.Millisecond)
			r.Remove("networking.istio.io", "virtualservices", "shop/a")
			r.after(100 * time.Millisecond)
			r.Apply(route("a", "("))
			r.after(time.Second)
		}
		r.after(5 * time.Second)
		r.want("a", accepted, "False Invalid 1")
		r.Remove("networking.istio.io", "virtualservices", "shop/a")
		if w := r.after(time.Hour); len(w) > 0 {
			t.Errorf("it is gone, and writes: %v", w)
		}
	})
}

// One who takes Fairlead's conditions away each time is not answered each time.
func TestTwoWritersDoNotFight(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*"))
		p := r.start("one", "fairlead-system")
		r.after(10 * time.Second)
		writes := 0
		for range 3600 {
			if r.condition("a", accepted) != "" {
				r.foreign("a", []any{map[string]any{"type": "Reconciled", "status": "True"}})
			}
			writes += len(r.after(time.Second))
		}
		if writes > 30 {
			t.Errorf("%d writes in an hour", writes)
		}
		if !strings.Contains(p.log.String(), "another writer takes Fairlead's part of a status away") {
			t.Errorf("it says %s", p.log)
		}
		r.Apply(route("a", "/b")) // what is new is written at once
		r.after(2 * time.Second)
		r.want("a", accepted, "True Accepted 2")
	})
}

func TestEvents(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(split("s", "web"))
		r.start("one", "fairlead-system")
		r.after(10 * time.Second)
		const problem = "Warning OwnBackend TrafficSplit/s; Warning SplitUnused TrafficSplit/s"
		if got := r.events(); got != problem {
			t.Errorf("events: %s", got)
		}
		if w := r.after(time.Hour); len(w) > 0 {
			t.Errorf("idle, and it writes %v", w)
		}
		r.Apply(split("s", "web-v2"))
		r.after(10 * time.Second)
		if got := r.events(); got != "Normal Mended TrafficSplit/s; Normal Mended TrafficSplit/s" {
			t.Errorf("mended: %s", got)
		}
		if w := r.after(time.Hour); len(w) > 0 {
			t.Errorf("idle, and it writes %v", w)
		}
		for _, key := range r.Keys("events.k8s.io", "events") { // as a server does after an hour
			r.Remove("events.k8s.io", "events", key)
		}
		if w := r.after(time.Hour); len(w) > 0 {
			t.Errorf("what was mended is told again: %v", w)
		}
		r.Apply(split("s", "web"))
		r.after(10 * time.Second)
		if got := r.events(); got != "Warning LastGoodKept TrafficSplit/s; Warning OwnBackend TrafficSplit/s" {
			t.Errorf("again: %s", got)
		}
		r.Remove("split.smi-spec.io", "trafficsplits", "shop/s")
		r.after(10 * time.Second)
		if got := r.events(); got != "" {
			t.Errorf("of what is gone: %s", got)
		}
	})
}

func TestCleanupLeavesNothing(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*") + "\n---\n" + route("b", "/.*") + "\n---\n" + split("s", "web"))
		r.Apply("apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {name: other, namespace: shop, labels: {app.kubernetes.io/managed-by: fairlead}}\nreportingController: other\ntype: Warning\nreason: Other\nregarding: {kind: Pod, name: p}")
		one, two := r.start("one", "fairlead-system"), r.start("two", "fairlead-system")
		r.after(20 * time.Second)
		r.foreign("b", append([]any{map[string]any{"type": "Reconciled", "status": "True"}}, r.conditions("b")...))
		r.after(10 * time.Second)
		removed, err := Cleanup(t.Context(), Options{Config: r.Config(), Namespace: "fairlead-system", Identity: "cleanup", Log: slog.New(slog.DiscardHandler)})
		if err != nil || removed != (Removed{Statuses: 2, Events: 2}) {
			t.Errorf("%+v, %v", removed, err)
		}
		r.Apply(route("a", "("))
		r.seen = len(r.Writes())
		if w := r.after(time.Hour); len(w) > 0 {
			t.Errorf("cleaned up, and it writes %v", w)
		}
		if status := r.Get("networking.istio.io", "virtualservices", "shop/a")["status"]; status != nil {
			t.Errorf("left over: %v", status)
		}
		if r.condition("b", accepted) != "" || r.condition("b", "Reconciled") == "" {
			t.Error("of another's status and ours, the wrong one is gone")
		}
		if got := r.events(); got != "Warning Other Pod/p" {
			t.Errorf("events: %s", got)
		}
		if l := r.Keys("coordination.k8s.io", "leases"); len(l) > 0 {
			t.Errorf("leases: %v", l)
		}
		for _, p := range []*process{one, two} {
			if !strings.Contains(p.log.String(), "was cleaned up") {
				t.Errorf("it says %s", p.log)
			}
			p.stop()
		}
		// A new installation writes again.
		r.start("three", "fairlead-system")
		r.after(10 * time.Second)
		r.want("a", accepted, "False Invalid 2")
	})
}

// cleanUp cleans up after the installation of a namespace.
func (r *rig) cleanUp(namespace string) Removed {
	r.t.Helper()
	removed, err := Cleanup(r.t.Context(), Options{Config: r.Config(), Namespace: namespace, Identity: "cleanup", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Error(err)
	}
	return removed
}

// A cleanup that cannot finish says what it has done and what is to be done; it can be done
// again, or taken back by restarting the operators.
func TestCleanupThatFails(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*") + "\n---\n" + route("b", "/.*") + "\n---\n" + split("s", "web"))
		one := r.start("one", "fairlead-system")
		r.after(20 * time.Second)
		r.Interrupt(func(q *http.Request) (int, bool) {
			if q.Method == http.MethodPatch && strings.HasSuffix(q.URL.Path, "/b/status") {
				return 500, false
			}
			return 0, false
		})
		o := Options{Config: r.Config(), Namespace: "fairlead-system", Identity: "cleanup", Log: slog.New(slog.DiscardHandler)}
		_, err := Cleanup(t.Context(), o)
		for _, want := range []string{"shop/b", "so far: 1 statuses, 2 Events", "restart them"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it says %v, without %q", err, want)
			}
		}
		r.Interrupt(func(*http.Request) (int, bool) { return 0, false })
		r.seen = len(r.Writes())
		if w := r.after(time.Minute); len(w) > 0 {
			t.Errorf("and then: %v", w)
		}
		one.stop()
		two := r.start("two", "fairlead-system") // who is restarted goes on
		r.after(time.Minute)
		r.want("a", accepted, "True Accepted 1")
		r.want("b", accepted, "True Accepted 1")
		two.stop()
		if removed, err := Cleanup(t.Context(), o); err != nil || removed != (Removed{Statuses: 2, Events: 2}) {
			t.Errorf("again: %+v, %v", removed, err)
		}
	})
}

// Another installation's statuses and Events are its own, whether it led so far or is to
// lead now: nothing is written for its sake, to be written again.
func TestCleanupBesideAnotherInstallation(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*") + "\n---\n" + split("s", "web"))
		r.start("one", "fairlead-system")
		r.after(10 * time.Second)
		second := r.start("two", "another")
		r.after(10 * time.Second)
		if got := r.cleanUp("another"); got != (Removed{Other: "fairlead-system"}) {
			t.Errorf("%+v", got)
		}
		if w := r.after(time.Minute); len(w) > 0 {
			t.Errorf("writes: %v", w)
		}
		r.want("a", accepted, "True Accepted 1")
		if l := r.Keys("coordination.k8s.io", "leases"); len(l) != 1 || !strings.HasPrefix(l[0], "fairlead-system/") {
			t.Errorf("leases: %v", l)
		}
		if !strings.Contains(second.log.String(), "was cleaned up") {
			t.Errorf("it says %s", second.log)
		}
		second.stop()

		r.start("three", "another")
		r.after(10 * time.Second)
		if got := r.cleanUp("fairlead-system"); got != (Removed{Other: "another"}) {
			t.Errorf("%+v", got)
		}
		if w := r.after(time.Minute); len(w) > 0 {
			t.Errorf("writes: %v", w)
		}
		r.Apply(route("a", "("))
		r.after(30 * time.Second)
		r.want("a", accepted, "False LastValidVersionInUse 2")
	})
}

// A leader whose clock is wrong is one for as long as it renews its Lease, and no longer,
// whether it is of this installation or of another.
func TestALeaderWithAnotherClock(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		for _, namespace := range []string{"fairlead-system", "another"} {
			t.Run(fmt.Sprint(skew, " in ", namespace), func(t *testing.T) {
				run(t, func(t *testing.T, r *rig) {
					renew := func() {
						r.Apply(fmt.Sprintf("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: fairlead-operator\n  namespace: %s\n"+
							"  labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: operator}\n"+
							"spec: {holderIdentity: theirs, leaseDurationSeconds: 15, renewTime: %q}", namespace, time.Now().Add(skew).Format("2006-01-02T15:04:05.000000Z07:00")))
					}
					renew()
					r.Apply(route("a", "/.*"))
					r.after(0)
					r.start("one", "fairlead-system")
					for range 60 {
						if w := r.after(5 * time.Second); len(w) > 0 {
							t.Fatalf("another leads, and it writes %v", w)
						}
						renew()
					}
					r.after(40 * time.Second)
					r.want("a", accepted, "True Accepted 1")
				})
			})
		}
	}
}

// A Lease that nobody renews any more is no installation, and neither is one that nobody
// holds, or that is being cleaned up itself.
func TestCleanupBesideLeasesOfNobody(t *testing.T) {
	for name, spec := range map[string]string{
		"left":       "spec: {holderIdentity: gone, leaseDurationSeconds: 15}",
		"given back": "spec: {holderIdentity: ''}",
		"cleaned up": "  annotations: {fairlead.io/retired: other}\nspec: {holderIdentity: other}",
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				r.Apply(route("a", "/.*"))
				one := r.start("one", "fairlead-system")
				r.after(10 * time.Second)
				one.stop()
				r.Apply("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: fairlead-operator\n  namespace: old\n  labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: operator}\n" + spec)
				if got := r.cleanUp("fairlead-system"); got != (Removed{Statuses: 1}) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// Where the namespace is gone, or going, nobody can lead: what was written is taken back
// without the Lease.
func TestCleanupWithoutANamespace(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(route("a", "/.*") + "\n---\n" + split("s", "web"))
		one := r.start("one", "fairlead-system")
		r.after(20 * time.Second)
		one.stop()
		for _, key := range r.Keys("coordination.k8s.io", "leases") {
			r.Remove("coordination.k8s.io", "leases", key)
		}
		r.Interrupt(func(req *http.Request) (int, bool) {
			if req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, "/leases") {
				return http.StatusNotFound, false
			}
			return 0, false
		})
		removed, err := Cleanup(t.Context(), Options{Config: r.Config(), Namespace: "fairlead-system", Identity: "cleanup", Log: slog.New(slog.DiscardHandler)})
		if err != nil || removed.Statuses != 1 || removed.Events == 0 {
			t.Errorf("%+v, %v", removed, err)
		}
	})
}
