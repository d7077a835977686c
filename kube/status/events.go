// SPDX-License-Identifier: Apache-2.0

package status

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/flowcontrol"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/translators/objects"
)

// EventsResource is where Events are.
var EventsResource = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

const (
	// ManagedBy marks what the operator has made.
	ManagedByLabel, ManagedBy = "app.kubernetes.io/managed-by", "fairlead"
	// topicKey is the annotation that says what an Event is about: see Event.Topic.
	topicKey = "fairlead.io/topic"
	// eventsPerSecond and eventsBurst bound what is written.
	eventsPerSecond = 10
	eventsBurst     = 50
	noteLimit       = 1024 // of events.k8s.io
	reporter        = "fairlead.io/operator"
)

// Event tells of something that is so with an object: that is wrong, or only to be known.
type Event struct {
	About      objects.Ref
	APIVersion string // of the object
	UID        string
	Reason     string // CamelCase
	Note       string // what is wrong; it is cut where Events end
	Normal     bool   // nothing is wrong
}

// Topic is the same for the Events of an object and reason, whatever they say.
func (e Event) Topic() string { return e.UID + " " + e.Reason }

// Name of the Event: it has its content in it, so that who finds it there need not write it.
func (e Event) Name(mended bool) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00", e.About, e.Topic(), map[bool]string{true: "mended", false: e.Note}[mended])
	name := e.About.Name
	if len(name) > 200 {
		name = strings.TrimRight(name[:200], "-.")
	}
	return name + "." + hex.EncodeToString(h.Sum(nil)[:8])
}

// namespace is where the Event is: those about an object without one are in "default".
func (e Event) namespace() string { return cmp.Or(e.About.Namespace, metav1.NamespaceDefault) }

// told is an Event that was written.
type told struct {
	event           Event
	namespace, name string
	mended          bool
}

// Events writes Events. What is wrong is told once; what is no more is taken back, and that
// it was mended is told, if the object is still there. Its methods are safe for concurrent
// use.
type Events struct {
	client   dynamic.Interface
	instance string
	log      *slog.Logger
	rate     flowcontrol.RateLimiter
	wake     chan struct{}

	mu     sync.Mutex
	known  bool // want was set
	want   map[string]Event
	alive  map[string]bool
	have   map[string]told
	failed map[string]failedEvent
	count  Counts
}

type failedEvent struct {
	again int
	next  time.Time
	why   string
}

// NewEvents returns what does nothing before Run. instance is the name of this process.
func NewEvents(cfg *kube.Config, instance string, log *slog.Logger) (*Events, error) {
	client, err := dial(cfg)
	if err != nil {
		return nil, err
	}
	return &Events{client: client, instance: instance, log: log, rate: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsBurst),
		wake: make(chan struct{}, 1), have: map[string]told{}, failed: map[string]failedEvent{}}, nil
}

// Want says what is wrong now, all of it, and which objects there are, by UID.
func (e *Events) Want(events []Event, alive map[string]bool) {
	want := make(map[string]Event, len(events))
	for _, ev := range events {
		want[ev.namespace()+"/"+ev.Name(false)] = ev
	}
	e.mu.Lock()
	e.want, e.alive, e.known = want, alive, true
	e.mu.Unlock()
	e.look()
}

// Counts tells what was done so far.
func (e *Events) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}

func (e *Events) look() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Run writes until the context ends. It reads first what was told before.
func (e *Events) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	inf := e.informer(ctx)
	group.Go(func() { inf.RunWithContext(ctx) })
	if !toolscache.WaitForCacheSync(ctx.Done(), inf.HasSynced) {
		return
	}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-again.C:
		}
		if wait := e.round(ctx); wait > 0 {
			again.Reset(wait)
		}
	}
}

// informer watches the Events that were told.
func (e *Events) informer(context.Context) toolscache.SharedIndexInformer {
	selector := ManagedByLabel + "=" + ManagedBy
	all := e.client.Resource(EventsResource)
	inf := toolscache.NewSharedIndexInformer(&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = selector
			return all.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = selector
			return all.Watch(ctx, o)
		},
	}, &unstructured.Unstructured{}, 0, toolscache.Indexers{})
	note := func(o any, there bool) {
		if unseen, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = unseen.Obj
		}
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		t, ok := toldBy(u)
		if !ok {
			return // another's, with our label
		}
		e.mu.Lock()
		if there {
			e.have[t.namespace+"/"+t.name] = t
		} else {
			delete(e.have, t.namespace+"/"+t.name)
		}
		e.mu.Unlock()
		e.look()
	}
	if _, err := inf.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { note(o, true) },
		UpdateFunc: func(_, o any) { note(o, true) },
		DeleteFunc: func(o any) { note(o, false) },
	}); err != nil {
		panic("status: " + err.Error()) // of an informer that has ended already
	}
	said := ""
	if err := inf.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *toolscache.Reflector, err error) {
		toolscache.DefaultWatchErrorHandler(ctx, r, err)
		if text := allow(err, "list and watch").Error(); apierrors.IsForbidden(err) && text != said {
			said = text
			e.log.Warn("no Events are written: those that were cannot be seen", "problem", text)
		}
	}); err != nil {
		panic("status: " + err.Error()) // of an informer that runs already
	}
	return inf
}

// round writes what is to be written, and returns when to look again; 0: when told to.
func (e *Events) round(ctx context.Context) time.Duration {
	e.mu.Lock()
	if !e.known {
		e.mu.Unlock()
		return 0
	}
	steps := plan(e.want, e.have, e.alive)
	e.mu.Unlock()
	var next time.Duration
	later := func(d time.Duration) {
		if next == 0 || d < next {
			next = max(d, time.Millisecond)
		}
	}
	current := map[string]bool{}
	for _, s := range steps {
		key := s.key()
		current[key] = true
		if f, ok := e.failed[key]; ok && time.Until(f.next) > 0 {
			later(time.Until(f.next))
			continue
		}
		if e.rate.Wait(ctx) != nil {
			return 0
		}
		err := e.do(ctx, s)
		if ctx.Err() != nil {
			return 0
		}
		e.mu.Lock()
		if err != nil {
			e.count.Failed++
		} else {
			e.count.Writes++
		}
		e.mu.Unlock()
		if err == nil {
			delete(e.failed, key)
			continue
		}
		f := e.failed[key]
		if f.why != err.Error() {
			e.log.Warn("event not written", "object", s.event.About.String(), "problem", err)
		}
		f = failedEvent{f.again + 1, time.Now().Add(min(retryFirst<<min(f.again, 20), retryMost)), err.Error()}
		e.failed[key] = f
		later(time.Until(f.next))
	}
	maps.DeleteFunc(e.failed, func(key string, _ failedEvent) bool { return !current[key] })
	return next
}

// step is one write: an Event to be told, or one to be taken back.
type step struct {
	event  Event
	mended bool
	remove *told
}

func (s step) key() string {
	if s.remove != nil {
		return "-" + s.remove.namespace + "/" + s.remove.name
	}
	return "+" + s.event.namespace() + "/" + s.event.Name(s.mended)
}

// plan says what is to be written where want is wrong and have was told. That something
// was mended is told before what was wrong is taken back, so that it is told also by who
// comes after one that ended in between.
func plan(want map[string]Event, have map[string]told, alive map[string]bool) []step {
	var out []step
	topics := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		topics[want[key].Topic()] = true
		if _, ok := have[key]; !ok {
			out = append(out, step{event: want[key]})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		t := have[key]
		_, wanted := want[key]
		there := alive[t.event.UID]
		switch {
		case wanted:
		case t.mended && there && !topics[t.event.Topic()]: // stays until the server forgets it
		case !t.mended && there && !topics[t.event.Topic()]:
			if _, said := have[t.namespace+"/"+t.event.Name(true)]; !said {
				out = append(out, step{event: t.event, mended: true})
			}
			out = append(out, step{remove: &t, event: t.event})
		default:
			out = append(out, step{remove: &t, event: t.event})
		}
	}
	return out
}

func (e *Events) do(ctx context.Context, s step) error {
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if s.remove != nil {
		err := e.client.Resource(EventsResource).Namespace(s.remove.namespace).Delete(limited, s.remove.name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return allow(err, "delete")
		}
		e.mu.Lock()
		delete(e.have, s.remove.namespace+"/"+s.remove.name)
		e.mu.Unlock()
		return nil
	}
	u := s.event.object(s.mended, e.instance, time.Now())
	_, err := e.client.Resource(EventsResource).Namespace(u.GetNamespace()).Create(limited, u, metav1.CreateOptions{FieldManager: FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return allow(err, "create")
	}
	t, _ := toldBy(u)
	e.mu.Lock()
	e.have[t.namespace+"/"+t.name] = t
	e.mu.Unlock()
	return nil
}

// allow adds to an error that something may not be done what to do about it.
func allow(err error, verbs string) error {
	if !apierrors.IsForbidden(err) || apierrors.HasStatusCause(err, "NamespaceTerminating") {
		return err
	}
	return fmt.Errorf("%w; allow %s of events.events.k8s.io by a ClusterRole", err, verbs)
}

// RemoveEvents takes back all Events that were told, and returns how many.
func RemoveEvents(ctx context.Context, cfg *kube.Config) (int, error) {
	client, err := dial(cfg)
	if err != nil {
		return 0, err
	}
	n := 0
	for next := ""; ; {
		list, err := client.Resource(EventsResource).List(ctx, metav1.ListOptions{LabelSelector: ManagedByLabel + "=" + ManagedBy, Limit: 500, Continue: next})
		if err != nil {
			return n, fmt.Errorf("list Events: %w", allow(err, "list"))
		}
		for i := range list.Items {
			t, ok := toldBy(&list.Items[i])
			if !ok {
				continue
			}
			err := client.Resource(EventsResource).Namespace(t.namespace).Delete(ctx, t.name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return n, fmt.Errorf("delete Event %s/%s: %w", t.namespace, t.name, allow(err, "delete"))
			}
			n++
		}
		if next = list.GetContinue(); next == "" {
			return n, nil
		}
	}
}

// mendedReason is the reason of Events that tell that something is over.
const mendedReason = "Mended"

func (e Event) object(mended bool, instance string, now time.Time) *unstructured.Unstructured {
	typ, reason, note := "Warning", e.Reason, e.Note
	if e.Normal {
		typ = "Normal"
	}
	if mended {
		typ, reason, note = "Normal", mendedReason, "no more so: "+e.Note
	}
	if len(note) > noteLimit {
		note = cut(note, noteLimit)
	}
	regarding := map[string]any{"apiVersion": e.APIVersion, "kind": e.About.Kind.Kind, "name": e.About.Name, "uid": e.UID}
	if e.About.Namespace != "" {
		regarding["namespace"] = e.About.Namespace
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": EventsResource.GroupVersion().String(), "kind": "Event",
		"metadata": map[string]any{"namespace": e.namespace(), "name": e.Name(mended), "labels": map[string]any{ManagedByLabel: ManagedBy},
			"annotations": map[string]any{topicKey: e.Topic()}},
		"eventTime": now.UTC().Format(metav1.RFC3339Micro), "reportingController": reporter, "reportingInstance": cut(instance, 128),
		"action": "Translate", "reason": reason, "note": note, "type": typ, "regarding": regarding,
	}}
}

// toldBy reads an Event that was told; not ok: it is none.
func toldBy(u *unstructured.Unstructured) (told, bool) {
	uid, reason, ok := strings.Cut(u.GetAnnotations()[topicKey], " ")
	if by, _, _ := unstructured.NestedString(u.Object, "reportingController"); !ok || by != reporter {
		return told{}, false
	}
	text := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(u.Object, fields...)
		return s
	}
	api := text("regarding", "apiVersion")
	group, _, found := strings.Cut(api, "/")
	if !found {
		group = ""
	}
	ev := Event{About: objects.Ref{Kind: objects.Kind{Group: group, Kind: text("regarding", "kind")}, Namespace: text("regarding", "namespace"), Name: text("regarding", "name")},
		APIVersion: api, UID: uid, Reason: reason, Note: text("note")}
	return told{event: ev, namespace: u.GetNamespace(), name: u.GetName(), mended: text("reason") == mendedReason}, true
}

// cut shortens a text to a number of bytes.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-3], "") + "..."
}
