// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube/kubetest"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

func TestMain(m *testing.M) {
	silence()
	os.Exit(m.Run())
}

// rig is a source on a server, and what it has handed out.
type rig struct {
	*kubetest.Server
	source   *Source
	objects  map[objects.Ref]*objects.Object
	said     map[objects.Ref]string
	updates  chan Update
	all      []Update
	revision string
}

func registry(t *testing.T) *objects.Registry {
	t.Helper()
	p, err := pipeline.New(pipeline.Options{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return p.Registry()
}

// run is a test on a clock of its own: nothing in it takes time.
func run(t *testing.T, test func(t *testing.T, r *rig)) {
	reg := registry(t)
	synctest.Test(t, func(t *testing.T) {
		r := &rig{Server: kubetest.New(t), objects: map[objects.Ref]*objects.Object{}, said: map[objects.Ref]string{}}
		r.start(t, reg)
		test(t, r)
	})
}

// start makes a source; the test's end stops it.
func (r *rig) start(t *testing.T, reg *objects.Registry) {
	s, err := New(Options{Config: r.Config(), Registry: reg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.source, r.updates = s, make(chan Update, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	go func() {
		time.Sleep(time.Millisecond) // the test prepares the server
		done <- s.Run(ctx, func() {
			if u, ok := s.Take(); ok {
				r.updates <- u
			}
		})
	}()
}

// after lets time pass and takes in what was handed out.
func (r *rig) after(d time.Duration) []Update {
	time.Sleep(d)
	synctest.Wait()
	var got []Update
	for len(r.updates) > 0 {
		u := <-r.updates
		got = append(got, u)
		r.revision = u.Revision
		for _, e := range u.Edits {
			delete(r.objects, e.Ref)
			delete(r.said, e.Ref)
			if e.New != nil {
				r.objects[e.Ref] = e.New
			}
			for _, d := range e.Diagnostics {
				r.said[e.Ref] += d.Code + " " + d.Source.String() + ": " + d.Message + "\n"
			}
		}
	}
	r.all = append(r.all, got...)
	return got
}

// names lists what was handed out and stands.
func (r *rig) names() string {
	var out []string
	for ref := range r.objects {
		out = append(out, ref.String())
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (r *rig) want(t *testing.T, names string) {
	t.Helper()
	if got := r.names(); got != names {
		t.Errorf("objects are\n  %s\nwant\n  %s\nhealth: %s", got, names, r.source.Health())
	}
}

// problems is what Health tells, without advice.
func (r *rig) problems() string {
	var out []string
	for _, p := range r.source.Health().Problems {
		out = append(out, strings.TrimPrefix(strings.Join(p.Kinds, ",")+": "+p.What, ": "))
	}
	return strings.Join(out, "; ")
}

const node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"

func service(name string, port int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{port: %d}]}\n", name, port)
}

func vs(name, timeout string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s, namespace: shop}\nspec: {hosts: [web], http: [{timeout: %s, route: [{destination: {host: web}}]}]}\n", name, timeout)
}

func TestTheFirstPictureIsWhole(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node + "---\n" + service("web", 80))
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1beta1", "v1")
		r.Apply(vs("web", "5s"))
		r.Interrupt(func(q *http.Request) (int, bool) { return 0, strings.HasSuffix(q.URL.Path, "/virtualservices") })
		r.after(30 * time.Second)
		r.want(t, "")
		if h := r.source.Health(); h.Complete || r.problems() != "VirtualService.networking.istio.io: no answer yet" || !h.Problems[0].Holds {
			t.Errorf("health %+v", h)
		}
		r.Interrupt(nil)
		r.after(3 * time.Minute)
		r.want(t, "Node n1, Service shop/web, VirtualService.networking.istio.io shop/web")
		if len(r.all) != 1 || r.problems() != "" {
			t.Errorf("%d updates, %s", len(r.all), r.problems())
		}
		o := r.objects[objects.Ref{Kind: objects.Kind{Group: "networking.istio.io", Kind: "VirtualService"}, Namespace: "shop", Name: "web"}]
		if o.Version != "v1" || o.Created.IsZero() || o.Invalid || o.Source("istio", "spec.http[0]").String() != "VirtualService shop/web spec.http[0]" {
			t.Errorf("object %+v", o)
		}
		if n := r.Asked("/secrets"); n > 0 {
			t.Errorf("secrets were asked for %d times", n)
		}
	})
}

func TestDiscoveryOfOldServers(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Old()
		r.Apply(node)
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1alpha3", "v1beta1")
		r.Apply(vs("web", "5s"))
		r.after(time.Second)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
		for _, o := range r.objects {
			if o.Kind.Group != "" && o.Version != "v1beta1" {
				t.Errorf("version %s", o.Version)
			}
		}
	})
}

func TestKindsComeAndGo(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node)
		r.after(time.Minute)
		r.want(t, "Node n1")
		r.Add(&kubetest.Resource{Group: "networking.istio.io", Kind: "VirtualService", Plural: "virtualservices", Versions: []string{"v1"}, Hidden: true})
		for i := range 10 {
			r.Apply(vs(fmt.Sprintf("web%d", i), "5s"))
		}
		r.Apply(kubetest.Definition("virtualservices.networking.istio.io"))
		r.after(1500 * time.Millisecond) // a server takes a moment
		r.Hide("networking.istio.io/virtualservices", false)
		if got := r.after(10 * time.Second); len(got) != 1 || len(got[0].Edits) != 10 {
			t.Errorf("%d updates of a new kind, want one with all of it", len(got))
		}
		// What a server says that it serves is not enough to forget a kind.
		r.Hide("networking.istio.io/virtualservices", true)
		r.after(time.Hour)
		if len(r.objects) != 11 {
			t.Errorf("%d objects, want 11: a kind was forgotten that is still there", len(r.objects))
		}
		r.Undefine("networking.istio.io", "virtualservices")
		r.after(10 * time.Second)
		r.want(t, "Node n1")
		if h := r.source.Health(); h.Kinds != 6 || r.problems() != "" || h.Objects != 1 {
			t.Errorf("health %+v", h)
		}
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
		r.Apply(vs("web", "5s"))
		r.after(10 * time.Second)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
	})
}

// Each definition that comes, and each word about it, has the server looked at: that it does
// not serve them yet each time is no reason to wait longer.
func TestDefinitionsThatComeInABurst(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node)
		r.after(time.Minute)
		r.Add(&kubetest.Resource{Group: "networking.istio.io", Kind: "VirtualService", Plural: "virtualservices", Versions: []string{"v1"}, Hidden: true})
		r.Apply(vs("web", "5s"))
		for i := range 10 {
			r.Apply(kubetest.Definition("virtualservices.networking.istio.io") + fmt.Sprintf("\nstatus: {seen: %d}\n", i))
			r.after(50 * time.Millisecond)
		}
		r.Hide("networking.istio.io/virtualservices", false)
		r.after(5 * time.Second)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
	})
}

// A kind is watched on in a better version when there is one, and nothing is gone meanwhile.
func TestABetterVersionComes(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node)
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1beta1")
		r.Apply(vs("web", "5s"))
		r.after(time.Second)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
		r.Alter("networking.istio.io/virtualservices", func(res *kubetest.Resource) { res.Versions = []string{"v1beta1", "v1"} })
		r.Apply(kubetest.Definition("virtualservices.networking.istio.io"))
		got := r.after(10 * time.Second)
		if len(got) != 1 || len(got[0].Edits) != 1 || got[0].Edits[0].New == nil || got[0].Edits[0].New.Version != "v1" {
			t.Errorf("updates %+v", got)
		}
	})
}

func TestALoneChangeAtOnceAndBurstsInBatches(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node)
		r.after(time.Second)
		r.Apply(service("web", 80))
		if got := r.after(settle); len(got) != 1 || len(got[0].Edits) != 1 {
			t.Errorf("a lone change: %d updates", len(got))
		}
		before := r.revision
		for i := range 1000 {
			r.Apply(service(fmt.Sprintf("s%d", i%100), i+1))
			time.Sleep(time.Millisecond)
		}
		if got := r.after(time.Second); len(got) > 3 || len(r.objects) != 102 {
			t.Errorf("a burst: %d updates, %d objects", len(got), len(r.objects))
		}
		for i := range 100 {
			r.Remove("", "services", fmt.Sprintf("shop/s%d", i))
		}
		if got := r.after(time.Second); len(got) != 1 || r.revision != before {
			t.Errorf("%d updates; revision %s of the same objects, want %s", len(got), r.revision, before)
		}
	})
}

// What changes without meaning anything wakes nobody.
func TestIdleChanges(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, finalizers: [%[1]s], annotations: {kubectl.kubernetes.io/last-applied-configuration: '%[1]s'}}\n" +
		"spec: {nodeName: n1, containers: [{name: main, image: %[1]s, env: [{name: PASSWORD, value: %[1]s}], somethingNew: %[1]s}]}\n" +
		"status: {phase: Running, podIP: 10.0.0.1, startTime: %[1]s, conditions: [{type: Ready, status: 'True', lastProbeTime: %[1]s}]}\n"
	run(t, func(t *testing.T, r *rig) {
		r.Apply(fmt.Sprintf(node+"status: {images: [{names: [%[1]s]}], conditions: [{type: Ready, lastHeartbeatTime: %[1]s}]}\n---\n"+pod, "a"))
		r.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: shop}\ndata: {a: b}\n")
		r.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: ''}\n")
		r.after(time.Second)
		r.want(t, "ConfigMap istio-system/istio, Node n1, Pod shop/web")
		if len(r.said) > 0 {
			t.Errorf("diagnostics %v", r.said)
		}
		r.Apply(fmt.Sprintf(node+"status: {images: [{names: [%[1]s]}], conditions: [{type: Ready, lastHeartbeatTime: %[1]s}]}\n---\n"+pod, "b"))
		if got := r.after(time.Hour); len(got) != 0 {
			t.Errorf("updates %+v", got)
		}
	})
}

func TestObjectsThatDoNotDecode(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node)
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
		r.Apply(vs("web", "5s"))
		r.after(time.Second)
		r.Apply(vs("web", "soon"))
		r.after(time.Second)
		ref := objects.Ref{Kind: objects.Kind{Group: "networking.istio.io", Kind: "VirtualService"}, Namespace: "shop", Name: "web"}
		if want := "wrong-type VirtualService shop/web spec.http[0].timeout: \"soon\" is not a duration such as 250ms\n"; !r.objects[ref].Invalid || r.said[ref] != want {
			t.Errorf("said %q, want %q", r.said[ref], want)
		}
		r.Apply(vs("web", "6s"))
		r.after(time.Second)
		if r.objects[ref].Invalid || r.said[ref] != "" {
			t.Errorf("repaired: said %q", r.said[ref])
		}
	})
}

// Which version of an object stands is settled by the pipeline's set; one of the same name
// is another object.
func TestRecreatedObjectsAreOthers(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Apply(node)
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
		r.Apply(vs("web", "5s"))
		set := objects.NewSet(func(*objects.Object) []model.Diagnostic { return nil })
		valid := func() bool {
			for _, u := range r.after(time.Second) {
				set.Apply(u.Edits)
			}
			return !set.All()[1].Invalid
		}
		if !valid() {
			t.Error("the first is not valid")
		}
		r.Apply(vs("web", "soon"))
		if !valid() {
			t.Error("the last good version does not stand")
		}
		r.Remove("networking.istio.io", "virtualservices", "shop/web")
		r.Apply(vs("web", "soon"))
		if valid() {
			t.Error("the last good version of a deleted object stands for another")
		}
	})
}

func TestReadSaysWhyItCannot(t *testing.T) {
	reg := registry(t)
	synctest.Test(t, func(t *testing.T) {
		s := kubetest.New(t)
		s.Away()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := Read(ctx, Options{Config: s.Config(), Registry: reg, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), "read the objects of http://api.test: the API server does not answer: dial 192.0.2.1:6443: connection refused") {
			t.Error(err)
		}
		s.Back()
		s.Apply(node)
		again, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		edits, err := Read(again, Options{Config: s.Config(), Registry: reg, Log: slog.New(slog.DiscardHandler)})
		if err != nil || len(edits) != 1 {
			t.Errorf("%d objects, %v", len(edits), err)
		}
	})
}
