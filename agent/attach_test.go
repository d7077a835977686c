// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/model/plan"
)

// fakePods is what the kernel's part says of pods.
type fakePods struct {
	places map[netip.Addr]datapath.Place
	pods   map[string]datapath.PodStatus
}

func (f *fakePods) SetPlaces(p map[netip.Addr]datapath.Place) { f.places = p }

func (f *fakePods) Pod(name string) (datapath.PodStatus, bool) {
	st, ok := f.pods[name]
	return st, ok
}

const newPod = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: u-1}
spec: {nodeName: n1, containers: [{name: c}]}
status: %s
`

func attachRig(t *testing.T, files map[string]string) (*rig, *fakePods) {
	r := newRig(t, files)
	pods := &fakePods{pods: map[string]datapath.PodStatus{}}
	r.pods = pods
	r.attached.run = t.TempDir()
	return r, pods
}

func (r *rig) plug(rec cni.Record) {
	r.t.Helper()
	if err := cni.Write(r.attached.run, rec); err != nil {
		r.t.Fatal(err)
	}
	r.attached.read()
}

func told(uid string, addrs ...string) cni.Record {
	rec := cni.Record{ID: cni.ID{Container: "c-" + uid, IfName: "eth0"}, Namespace: "shop", Pod: "web", UID: uid, Link: cni.Link{Index: 7, Name: "veth7", Cookie: 9}, At: time.Now()}
	for _, a := range addrs {
		rec.Addresses = append(rec.Addresses, netip.MustParseAddr(a))
	}
	return rec
}

// has are the addresses of the node's pods in the plan.
func (r *rig) has() string {
	var out []string
	for _, row := range r.pipe.Rows(plan.Pods) {
		out = append(out, row.Key)
	}
	return strings.Join(out, " ")
}

// A pod is in the plan as soon as its runtime has told of it, and what its status says
// holds when it says something.
func TestPodsThatAreTold(t *testing.T) {
	r, pods := attachRig(t, map[string]string{"node.yaml": theNode, "pod.yaml": fmt.Sprintf(newPod, "{}")})
	r.took(r.reload)
	rec := told("u-1", "10.244.1.5", "fd44:1::5")
	r.plug(rec)
	if seen := r.took(r.reattach); r.has() != "10.244.1.5 fd44:1::5" || !strings.Contains(seen, "kernel: pod shop/web") {
		t.Errorf("the node has %q, and the kernel saw %s", r.has(), seen)
	}
	if want := (datapath.Place{Index: 7, Name: "veth7", Cookie: 9}); pods.places[rec.Addresses[0]] != want || pods.places[rec.Addresses[1]] != want {
		t.Errorf("the places are %v", pods.places)
	}
	if seen := r.took(r.reattach); seen != "" {
		t.Errorf("what is known is written again: %s", seen)
	}
	const said = "{podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.5}, {ip: 'fd44:1::5'}]}"
	r.write("pod.yaml", fmt.Sprintf(newPod, said))
	if seen := r.took(r.reload); strings.Contains(seen, "pod shop/web") {
		t.Errorf("status that says the same changes something: %s", seen)
	}
	// Status says something else.
	r.write("pod.yaml", fmt.Sprintf(newPod, "{podIP: 10.244.1.6, podIPs: [{ip: 10.244.1.6}]}"))
	r.took(r.reload)
	if r.has() != "10.244.1.6" || !strings.Contains(fmt.Sprint(r.pipe.Diagnostics()), "addresses-differ") {
		t.Errorf("the node has %q, and it is said %v", r.has(), r.pipe.Diagnostics())
	}
	// Its network is made anew: status has the address of before.
	if err := cni.Remove(r.attached.run, rec.ID); err != nil {
		t.Fatal(err)
	}
	again := told("u-1", "10.244.1.7")
	r.plug(again)
	r.took(r.reattach)
	if r.has() != "10.244.1.7" {
		t.Errorf("the node has %q", r.has())
	}
	if err := cni.Remove(r.attached.run, again.ID); err != nil {
		t.Fatal(err)
	}
	r.attached.read()
	r.took(r.reattach)
	if r.has() != "10.244.1.6" || len(pods.places) != 0 {
		t.Errorf("without a record the node has %q, and the places are %v", r.has(), pods.places)
	}
}

// What is told of another pod of the name does not count, nor of one that is not known.
func TestToldOfAnotherPod(t *testing.T) {
	r, _ := attachRig(t, map[string]string{"node.yaml": theNode})
	r.plug(told("u-1", "10.244.1.5"))
	r.took(r.reload)
	r.took(r.reattach)
	if r.has() != "" {
		t.Errorf("the node has %q", r.has())
	}
	r.write("pod.yaml", fmt.Sprintf(strings.ReplaceAll(newPod, "u-1", "u-2"), "{}"))
	r.took(r.reload)
	if r.has() != "" {
		t.Errorf("of another one of the name the node has %q", r.has())
	}
	r.write("pod.yaml", fmt.Sprintf(newPod, "{}"))
	r.took(r.reload)
	if r.has() != "10.244.1.5" {
		t.Errorf("of one that is known by now the node has %q", r.has())
	}
}

// An agent that starts has the records before it writes the kernel for the first time: a
// pod that has no status yet keeps what it has.
func TestToldBeforeTheAgentStarts(t *testing.T) {
	r, pods := attachRig(t, map[string]string{"node.yaml": theNode, "pod.yaml": fmt.Sprintf(newPod, "{}")})
	r.plug(told("u-1", "10.244.1.5"))
	seen := r.took(r.reload)
	if first := strings.Index(seen, "kernel"); first < 0 || !strings.HasPrefix(seen[first:], "kernel: pod shop/web") {
		t.Errorf("the kernel saw %s", seen)
	}
	if len(pods.places) != 1 {
		t.Errorf("the places are %v", pods.places)
	}
}

// Two records of one address: what the runtime gave last counts.
func TestToldTwice(t *testing.T) {
	other := strings.ReplaceAll(strings.ReplaceAll(fmt.Sprintf(newPod, "{}"), "name: web", "name: api"), "u-1", "u-2")
	r, _ := attachRig(t, map[string]string{"node.yaml": theNode, "pod.yaml": fmt.Sprintf(newPod, "{}") + "---" + other[strings.Index(other, "---")+3:]})
	r.took(r.reload)
	old := told("u-1", "10.244.1.5")
	old.At = old.At.Add(-time.Minute)
	r.plug(old)
	now := told("u-2", "10.244.1.5")
	now.Pod = "api"
	r.plug(now)
	r.took(r.reattach)
	if p, _ := r.pipe.Get(plan.Pods, "10.244.1.5").(*plan.Pod); p == nil || p.Name != "shop/api" {
		t.Errorf("the address is %v's", p)
	}
}

// What plugins are told follows what is so, until it is done.
func TestAnswersToPlugins(t *testing.T) {
	r, pods := attachRig(t, map[string]string{"node.yaml": theNode})
	rec := told("u-1", "10.244.1.5")
	r.plug(rec)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan cni.Answer)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.attached.answers(ctx, rec.ID, func(a cni.Answer) bool { got <- a; return !a.Ready })
	}()
	<-r.attached.wake // by the record
	expect := func(what string, want cni.Answer) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			r.attached.tell(r.judgeAttachment)
			select {
			case a := <-got:
				if !reflect.DeepEqual(a, want) {
					t.Errorf("%s: %+v, want %+v", what, a, want)
				}
				return
			default:
			}
		}
		t.Fatalf("%s: nothing is said", what)
	}
	expect("before the objects", cni.Answer{State: "the agent has not read this node's objects yet"})
	r.took(r.reload)
	expect("before the pod", cni.Answer{State: "the pod is not known yet from the objects"})
	r.write("pod.yaml", fmt.Sprintf(newPod, "{}"))
	r.took(r.reload)
	expect("before the kernel", cni.Answer{State: "the pod is not in the kernel yet"})
	st := datapath.PodStatus{Name: "shop/web", Addresses: rec.Addresses, Guarded: true, Reason: "no listener"}
	pods.pods["shop/web"] = st
	expect("without routes", cni.Answer{Guarded: true, State: "no listener"})
	r.broken = fmt.Errorf("map is full")
	r.write("pod.yaml", fmt.Sprintf(newPod, "{}")+"---"+theOther)
	r.took(r.reload)
	expect("the kernel is not as wanted", cni.Answer{State: r.says(aboutKernel)})
	r.broken = nil
	r.took(r.lookAfter)
	expect("it is again", cni.Answer{Guarded: true, State: "no listener"})
	r.broken = fmt.Errorf("map is broken")
	r.rewrite()
	r.took(r.lookAfter)
	expect("it is not, again", cni.Answer{State: r.says(aboutKernel)})
	r.broken = fmt.Errorf("write kernel maps: %w", datapath.ErrLeftOut)
	r.took(r.lookAfter)
	expect("it lacks rows of others", cni.Answer{Guarded: true, State: "no listener"})
	r.broken = nil
	r.rewrite()
	r.took(r.lookAfter)
	st.Ready, st.Reason = true, ""
	pods.pods["shop/web"] = st
	expect("done", cni.Answer{Guarded: true, Ready: true})
	<-done
	if r.attached.tell(r.judgeAttachment) {
		t.Error("somebody still waits")
	}
}

const theOther = `
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, uid: u-3}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.244.1.9, podIPs: [{ip: 10.244.1.9}]}
`

// A record goes with its interface; that the kernel was not asked (no descriptors are left,
// say) is no word of that.
func TestRecordsOfWhatIsGone(t *testing.T) {
	r, _ := attachRig(t, nil)
	rec := told("u-1", "10.0.0.1")
	rec.At = time.Now().Add(-2 * goneAfter)
	r.plug(rec)
	left := func() int {
		r.attached.read()
		records, _ := r.attached.get()
		return len(records)
	}
	for name, c := range map[string]struct {
		name string
		err  error
		left int
	}{
		"there":         {"veth7", nil, 1},
		"not asked":     {"", syscall.EMFILE, 1},
		"another's":     {"veth8", nil, 0},
		"no such index": {"", nil, 0},
	} {
		r.plug(rec)
		r.attached.linkName = func(int) (string, error) { return c.name, c.err }
		r.attached.prune(time.Now())
		if n := left(); n != c.left {
			t.Errorf("%s: %d records, want %d", name, n, c.left)
		}
	}
	if name, err := linkName(1); name != "lo" || err != nil {
		t.Errorf("1: %q, %v", name, err)
	}
	if name, err := linkName(1 << 30); name != "" || err != nil {
		t.Errorf("no such index: %q, %v", name, err)
	}
}
