// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
	"fairlead.io/fairlead/xds/serve"
)

// rig is an agent whose kernel and Envoy are fakes that note what comes, in order.
type rig struct {
	*agent
	t      *testing.T
	seen   []string
	there  bool // Envoy is
	silent bool // so is it, but does not say so
	broken error
	syncs  int   // of the kernel
	stuck  error // of pushes
	reject func(serve.Change) string
	taken  []string // proxies that take what another one rejects
	leads  string   // the proxy in charge
	// What the kernel has.
	services map[string]plan.Mode
	to       map[string]uint16 // port by "pod mode"
}

func newRig(t *testing.T, files map[string]string) *rig {
	t.Helper()
	r := &rig{t: t, there: true, services: map[string]plan.Mode{}, to: map[string]uint16{}}
	o := Options{Node: "n1", Source: t.TempDir(), Log: slog.New(slog.DiscardHandler), Pipeline: pipeline.Options{Node: "n1"}}
	pipe, err := pipeline.New(o.Pipeline)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPorts(filepath.Join(t.TempDir(), "ports.json"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	r.agent = newAgent(o, folder{o.Source, o.Log}, pipe, p)
	r.kernel, r.feed = (*fakeKernel)(r), (*fakeFeed)(r)
	r.envoy = func(context.Context) (string, bool) { return "fake", r.there }
	r.inCharge = func() string { return r.leads }
	r.present = func(context.Context) presence {
		switch {
		case r.silent:
			return silent
		case r.there:
			return ready
		}
		return gone
	}
	r.serveFeed = func() { r.seen = append(r.seen, "feed served") }
	for name, text := range files {
		r.write(name, text)
	}
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.opts.Source, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(name string) {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.opts.Source, name)); err != nil {
		r.t.Fatal(err)
	}
}

// took returns what came since the last call and begins anew.
func (r *rig) took(do func(context.Context)) string {
	r.t.Helper()
	r.seen = nil
	do(r.t.Context())
	return strings.Join(r.seen, "\n")
}

// lingered lets pass as long as Envoy keeps what has retired, and looks.
func (r *rig) lingered(ctx context.Context) {
	for k, due := range r.retiring {
		r.retiring[k] = due.Add(-linger)
	}
	r.lookAfter(ctx)
}

func (r *rig) isApplied() bool { return r.applied == r.revision && r.applied != "" }

func (r *rig) says(about topic) string { return r.problems[about] }

type fakeKernel rig

func (k *fakeKernel) SetInbound(uint16) error {
	if errors.Is(k.broken, datapath.ErrLeftOut) { // it is no row
		return nil
	}
	return k.broken
}

// note writes down pods with their HTTP port, and what the services have become.
func (k *fakeKernel) note(v any, gone bool, ports func(string) uint16) {
	switch v := v.(type) {
	case *plan.Pod:
		if !gone {
			k.seen = append(k.seen, fmt.Sprintf("kernel: pod %s to %d", v.Name, ports(v.Listeners[plan.HTTP])))
			for _, m := range plan.Modes() {
				k.to[v.Name+" "+string(m)] = ports(v.Listeners[m])
			}
		}
	case *plan.Service:
		if delete(k.services, v.Key()); !gone {
			k.services[v.Key()] = v.Mode
		}
	}
}

func (k *fakeKernel) Apply(_ context.Context, changes []incr.Change, ports func(string) uint16) error {
	for _, c := range changes {
		if c.New != nil {
			k.note(c.New, false, ports)
		} else {
			k.note(c.Old, true, ports)
		}
	}
	k.seen = append(k.seen, "kernel")
	return k.broken
}

func (k *fakeKernel) Sync(_ context.Context, rows []incr.Row, ports func(string) uint16) error {
	k.syncs++
	clear(k.services)
	for _, r := range rows {
		k.note(r.Value, false, ports)
	}
	k.seen = append(k.seen, "kernel")
	return k.broken
}

type fakeFeed rig

func (f *fakeFeed) Push(_ context.Context, changes []serve.Change) (serve.Outcome, error) {
	out := serve.Outcome{}
	if f.there {
		out.Clients = 1
	}
	for _, c := range changes {
		what := "set "
		if c.Resource == nil {
			what = "delete "
		}
		f.seen = append(f.seen, what+xds.Short(c.Type)+" "+c.Name)
		if f.reject != nil && c.Resource != nil {
			if why := f.reject(c); why != "" {
				out.Rejected = append(out.Rejected, serve.Rejection{Type: c.Type, Name: c.Name, Version: c.Resource.Version, Detail: why, Accepted: f.taken})
			}
		}
	}
	return out, f.stuck
}

func (f *fakeFeed) Sync(ctx context.Context, all []xds.Resource) (serve.Outcome, error) {
	var changes []serve.Change
	for _, r := range all {
		changes = append(changes, serve.Set(r))
	}
	return f.Push(ctx, changes)
}

const (
	theNode = `
apiVersion: v1
kind: Node
metadata: {name: n1, annotations: {fairlead.io/agent: "true"}}
status: {addresses: [{type: InternalIP, address: 10.240.0.1}]}
`
	theApp = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`
	thePolicy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {rules: [{to: [{operation: {paths: [/ok]}}]}]}
`
)

func lines(s string) []string { return strings.Split(s, "\n") }

// before fails unless a line that starts with first comes before every one that
// starts with second, and both are there.
func before(t *testing.T, log, first, second string) {
	t.Helper()
	at := func(what string) int {
		return slices.IndexFunc(lines(log), func(l string) bool { return strings.HasPrefix(l, what) })
	}
	if i, j := at(first), at(second); i < 0 || j < 0 || i > j {
		t.Errorf("%q should come before %q in\n%s", first, second, log)
	}
}

func TestASourceWithoutTheNodeChangesNothing(t *testing.T) {
	r := newRig(t, nil)
	if log := r.took(r.reload); log != "" {
		t.Errorf("an empty source changed\n%s", log)
	}
	if log := r.took(r.lookAfter); log != "" || r.isApplied() || !strings.Contains(r.says(aboutSource), "no Node n1") {
		t.Errorf("applied %q, problem %q, did\n%s", r.applied, r.says(aboutSource), log)
	}
	r.write("node.yaml", theNode)
	r.write("app.yaml", theApp)
	if log := r.took(r.reload); !strings.Contains(log, "kernel: pod shop/web to 15101") || !r.isApplied() || r.says(aboutSource) != "" {
		t.Errorf("applied %q of %q, problem %q, did\n%s", r.applied, r.revision, r.says(aboutSource), log)
	}
	r.remove("node.yaml")
	r.remove("app.yaml")
	if log := r.took(r.reload) + r.took(r.lookAfter); log != "" || r.isApplied() {
		t.Errorf("a source that became empty changed\n%s", log)
	}
	r.write("node.yaml", theNode)
	r.write("app.yaml", theApp)
	r.write("policy.yaml", thePolicy)
	if log := r.took(r.reload); !strings.Contains(log, "kernel: pod shop/web") || !strings.Contains(log, "set Cluster shop/web:80") || !r.isApplied() {
		t.Errorf("what came back was not applied:\n%s", log)
	}
}

func TestAFolderThatGoesLeavesAllAsItIs(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	if err := os.RemoveAll(r.opts.Source); err != nil {
		t.Fatal(err)
	}
	if log := r.took(r.reload); strings.Contains(log, "set") || strings.Contains(log, "delete") || strings.Contains(log, "pod") {
		t.Errorf("did\n%s", log)
	}
	if !strings.Contains(r.says(aboutSource), "stays in use") {
		t.Errorf("problem = %q", r.says(aboutSource))
	}
}

func TestEnvoyThenKernelThenWhatGoes(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "policy.yaml": thePolicy})
	log := r.took(r.reload)
	before(t, log, "set Listener", "feed served")
	before(t, log, "feed served", "kernel")
	r.write("app.yaml", strings.ReplaceAll(theApp, "10.96.0.1", "10.96.0.2"))
	log = r.took(r.reload)
	before(t, log, "set ScopedRouteConfiguration 10.96.0.2:80", "kernel")
	if log += "\n" + r.took(r.lingered); !r.isApplied() {
		t.Error("not applied")
	}
	before(t, log, "kernel", "delete ScopedRouteConfiguration 10.96.0.1:80")
	if log = r.took(r.reload) + r.took(r.lookAfter); strings.Contains(log, "set") || strings.Contains(log, "pod") {
		t.Errorf("an idle reload did\n%s", log)
	}
}

// Policy must not wait for an Envoy that never comes, nor for a kernel that failed
// once; and nobody may believe that all is well.
func TestKernelIsTriedAgainWithoutEnvoy(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.there, r.broken = false, errors.New("map is full")
	r.took(r.reload)
	if r.isApplied() || r.says(aboutEnvoy) == "" || !strings.Contains(r.says(aboutKernel), "map is full") {
		t.Errorf("applied %q, problems %v", r.applied, r.problems)
	}
	r.broken = nil
	if log := r.took(r.lookAfter); !strings.Contains(log, "kernel: pod shop/web to 0") || r.says(aboutKernel) != "" {
		t.Errorf("problems %v, did\n%s", r.problems, log)
	}
	if r.took(r.lookAfter); r.isApplied() {
		t.Error("applied, without Envoy")
	}
	if got := r.readiness(); got.Ready || got.Why == "" || got.Revision != r.revision || got.Applied == r.revision {
		t.Errorf("readiness %+v", got)
	}
	r.there = true
	if log := r.took(r.lookAfter); !strings.Contains(log, "kernel: pod shop/web to 15101") || !r.isApplied() || len(r.problems) != 0 {
		t.Errorf("applied %q of %q, problems %v, did\n%s", r.applied, r.revision, r.problems, log)
	}
	if want, got := (Readiness{Ready: true, Revision: r.revision, Applied: r.revision}), r.readiness(); got != want {
		t.Errorf("readiness %+v, want %+v", got, want)
	}
}

// What a change could not write, no later change hides, neither one of something else nor one
// that the kernel hears nothing of.
func TestWhatWasNotWrittenIsNotForgotten(t *testing.T) {
	const elsewhere = "\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"
	for what, next := range map[string]string{
		"nothing of the kernel's": elsewhere,
		"something else":          strings.NewReplacer("name: web,", "name: two,", "10.244.1.2", "10.244.1.3").Replace(theApp),
	} {
		r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
		r.reload(t.Context())
		r.broken = errors.New("write kernel maps: no")
		r.write("policy.yaml", thePolicy)
		r.reload(t.Context())
		r.broken = nil
		before := r.syncs
		r.write("next.yaml", next)
		r.reload(t.Context())
		if r.syncs == before || r.resync {
			t.Errorf("%s: the kernel was compared %d times, still to be: %t", what, r.syncs-before, r.resync)
		}
	}
}

// Rows that find no room are tried again now and then, and at once with whatever else is to
// be written: a change, or going around an Envoy that is gone.
func TestRowsWithoutRoomAreTriedNowAndThen(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	r.broken = fmt.Errorf("write kernel maps: %w", datapath.ErrLeftOut)
	r.write("policy.yaml", thePolicy)
	r.reload(t.Context())
	syncs := func(what string, want int, do func(context.Context)) {
		t.Helper()
		before := r.syncs
		if do(t.Context()); r.syncs-before != want || !r.resync || r.isApplied() {
			t.Errorf("%s: compared %d times, want %d; still to be: %t", what, r.syncs-before, want, r.resync)
		}
	}
	syncs("at once", 0, r.lookAfter)
	r.notBefore = time.Now()
	syncs("after a while", 1, r.lookAfter)
	syncs("at once again", 0, r.lookAfter)
	r.rewrite()
	syncs("for another reason", 1, r.lookAfter)
	r.write("other.yaml", theOther)
	syncs("by a change", 1, r.reload)
}

func TestWhatIsNotAcknowledgedIsPushedAgain(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	r.write("policy.yaml", thePolicy)
	for name, set := range map[string]func(bool){
		"stuck": func(on bool) {
			if r.stuck = nil; on {
				r.stuck = context.DeadlineExceeded
			}
		},
		"gone": func(on bool) { r.there = !on },
	} {
		set(true)
		r.write("policy.yaml", strings.ReplaceAll(thePolicy, "/ok", "/"+name))
		before(t, r.took(r.reload), "set Cluster", "kernel") // it is written all the same
		if r.took(r.lookAfter); r.isApplied() || r.says(aboutEnvoy) == "" {
			t.Errorf("%s: applied, problems %v", name, r.problems)
		}
		set(false)
		if log := r.took(r.lookAfter); !strings.Contains(log, "set Cluster shop/web:80") || !r.isApplied() || len(r.problems) != 0 {
			t.Errorf("%s: applied %q of %q, problems %v, did\n%s", name, r.applied, r.revision, r.problems, log)
		}
	}
}

// Envoy keeps a cluster's last good version, with the policy of before. The kernel
// of the destination must not believe that the new one was judged.
func TestARejectedPolicyIsNotClaimedToBeJudged(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.reload(t.Context())
	bare, err := render.Cluster(&plan.Cluster{Name: "shop/web:80", App: "http"})
	if err != nil {
		t.Fatal(err)
	}
	r.reject = func(c serve.Change) string {
		if c.Type == xds.ClusterType && c.Resource.Version != bare.Version {
			return "regex too large"
		}
		return ""
	}
	r.write("policy.yaml", thePolicy)
	log := r.took(r.reload)
	if n := strings.Count(log[:strings.Index(log, "kernel")], "set Cluster shop/web:80"); n != 2 {
		t.Errorf("%d clusters before the kernel:\n%s", n, log)
	}
	k := resourceKey{xds.ClusterType, "shop/web:80"}
	if r.res.want[k].Version != bare.Version || len(r.rejected) != 1 || r.rejected[k].Serving != WithoutPolicy || r.rejected[k].Detail != "regex too large" {
		t.Errorf("rejected %+v", r.rejected[k])
	}
	r.reject = func(c serve.Change) string { return "no" } // not for ever
	r.write("policy.yaml", strings.ReplaceAll(thePolicy, "/ok", "/fine"))
	r.reload(t.Context())
	r.reject = nil
	r.write("policy.yaml", strings.ReplaceAll(thePolicy, "/ok", "/good"))
	r.reload(t.Context())
	if r.res.want[k].Version == bare.Version || len(r.rejected) != 0 {
		t.Errorf("a good policy does not take its place: %+v", r.rejected[k])
	}
}

// While a proxy follows another, one of them may reject what the other serves.
func TestWhatOneOfTwoProxiesTakesIsInUse(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp, "policy.yaml": thePolicy})
	r.reject, r.taken, r.leads = func(serve.Change) string { return "not known to this version" }, []string{"old"}, "old"
	r.reload(t.Context())
	if len(r.rejected) != 0 || !r.isApplied() || !r.ports.anyLive() {
		t.Errorf("rejected %+v, applied %t, live %t", r.rejected, r.isApplied(), r.ports.anyLive())
	}
}

// The one that takes it must be the one in charge: another may never be ready, and what
// the kernel sends goes to who has not got it.
func TestWhatANewcomerTakesIsNotInUse(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.leads = "old"
	r.reload(t.Context())
	r.reject, r.taken = badRegex, []string{"new"}
	r.write("routes.yaml", theRoutes)
	r.reload(t.Context())
	if got := r.one(); got.Name != "shop/web:80" {
		t.Errorf("rejected %+v", got)
	}
	r.lookAfter(t.Context())
	r.one()

	r.leads = "new" // it takes over
	r.lookAfter(t.Context())
	if len(r.rejected) != 0 || !r.isApplied() {
		t.Errorf("rejected %+v, applied %t, though the proxy in charge has it", r.rejected, r.isApplied())
	}
	if log := r.took(r.lookAfter); log != "" {
		t.Errorf("without need:\n%s", log)
	}
	r.leads = "old" // and ends
	r.lookAfter(t.Context())
	r.one()
}

// A listener that the proxy in charge has not got is not given to the kernel, and is as
// soon as the one that has it is in charge.
func TestAListenerOfANewcomer(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.leads, r.taken = "old", []string{"new"}
	r.reject = func(c serve.Change) string {
		if c.Type == xds.ListenerType {
			return "no such filter"
		}
		return ""
	}
	r.reload(t.Context())
	if r.ports.anyLive() {
		t.Error("the kernel sends to what is not there")
	}
	r.leads = "new"
	r.lookAfter(t.Context())
	if !r.ports.anyLive() || r.to["shop/web http"] == 0 {
		t.Errorf("live %t, kernel sends to %v", r.ports.anyLive(), r.to)
	}
}

// A proxy that was killed is in charge again, under its name, before anything else has changed.
func TestAProxyThatIsBackIsNotSaidToBeGone(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	r.leads = "proxy"
	r.reload(t.Context())
	r.leads, r.there = "", false
	r.lookAfter(t.Context())
	if r.says(aboutEnvoy) == "" {
		t.Error("nothing is said of an Envoy that is gone")
	}
	r.leads = "proxy"
	r.lookAfter(t.Context())
	r.there = true
	r.lookAfter(t.Context())
	if got := r.says(aboutEnvoy); got != "" {
		t.Errorf("Envoy is back, and still: %s", got)
	}
	if log := r.took(r.lookAfter); log != "" {
		t.Errorf("without need:\n%s", log)
	}
}

func TestAPolicyThatCannotBeRenderedIsNotClaimedToBeJudged(t *testing.T) {
	p, err := openPorts(filepath.Join(t.TempDir(), "ports.json"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	r := newResources(p)
	take := func(c *plan.Cluster) []serve.Change {
		return r.take([]incr.Change{{Table: plan.Clusters, Key: c.Name, New: c}})
	}
	take(&plan.Cluster{Name: "a", App: "http", Checked: true})
	bare, err := render.Cluster(&plan.Cluster{Name: "a", App: "http"})
	if err != nil {
		t.Fatal(err)
	}
	bad := &plan.Policy{Allow: [][]model.AuthRule{{{To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Regex, Value: "("}}}}}}}}
	got := take(&plan.Cluster{Name: "a", App: "http", Checked: true, Policy: bad})
	if len(got) != 1 || got[0].Resource.Version != bare.Version || len(r.bad) != 1 {
		t.Errorf("changes = %+v, bad = %v", got, r.bad)
	}
}

func TestPortsOfAnEarlierAgentsListenersAreGivenBack(t *testing.T) {
	r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
	if _, err := r.ports.allocate("out/http/old"); err != nil {
		t.Fatal(err)
	}
	r.ports.setLive("out/http/old")
	log := r.took(r.reload)
	before(t, log, "set Listener", "kernel: pod shop/web to 15102")
	if r.ports.get("out/http/old") != 0 || !r.isApplied() {
		t.Errorf("listeners = %q", r.ports.listeners())
	}
	r.write("app.yaml", "")
	before(t, r.took(r.reload)+"\n"+r.took(r.lingered), "kernel", "delete Listener")
	if l := r.ports.listeners(); len(l) != 0 {
		t.Errorf("the last pod has gone, but not the ports of %q", l)
	}
}
