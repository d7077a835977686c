// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"

	"fairlead.io/fairlead/translators/objects"
)

// kindWatch watches a kind.
type kindWatch struct {
	served served
	track  track
	cancel context.CancelFunc
	begun  time.Time
	// before holds what came until everything had come, by key.
	before map[string]came
	synced bool
}

// came is an object as it came.
type came struct {
	edit   objects.Edit
	stored *Stored
}

// held is an object as the cache keeps it: what translators read, and nothing twice.
type held struct {
	metav1.ObjectMeta
	edit   objects.Edit
	stored *Stored // nil if nobody asks for it
	beat   *beat   // of Leases
}

// decode is the transform of a cache: what it keeps is what translators read.
func decode(sv served, statuses bool) toolscache.TransformFunc {
	t := sv.typ
	return func(in any) (any, error) {
		u, ok := in.(*unstructured.Unstructured)
		if !ok {
			return in, nil // was here before, or tells of an object that went unseen
		}
		h := &held{ObjectMeta: metav1.ObjectMeta{Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}}
		if statuses {
			h.stored = sv.stored(u)
		}
		if t.Kind == objects.LeaseKind {
			h.beat = beatOf(u)
		}
		trim(t.Kind, u.Object)
		h.edit = objects.DecodeAPI(t, u.Object)
		h.edit.New.SetUID(string(h.UID))
		return h, nil
	}
}

// begin watches a kind. What is known of it from an earlier watch, in another version,
// stays until this one has all. It is called with mu held.
func (s *Source) begin(ctx context.Context, sv served) {
	k := sv.typ.Kind
	if old := s.kinds[k]; old != nil {
		old.cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &kindWatch{served: sv, cancel: cancel, begun: time.Now(), before: map[string]came{}}
	w.track.changed = s.judge
	s.kinds[k] = w
	example := &unstructured.Unstructured{}
	example.SetGroupVersionKind(sv.gvk())
	inf := &informer{gvk: sv.gvk(), resource: sv.gvr(), namespaced: sv.namespaced, example: example, transform: decode(sv, slices.Contains(s.statuses, k)),
		track: &w.track, synced: func() { s.haveAll(w) },
		handler: toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.came(w, o) },
			UpdateFunc: func(_, o any) { s.came(w, o) },
			DeleteFunc: func(o any) { s.went(w, o) },
		}}
	if only := sv.typ.Only; only.Namespace != "" {
		// The client asks for one namespace by its path where the selector names it: a Role in
		// it is enough.
		set := fields.Set{"metadata.namespace": only.Namespace}
		if only.Name != "" {
			set["metadata.name"] = only.Name
		}
		inf.selector, inf.labels = fields.SelectorFromSet(set), only.Labels
	}
	s.log.Debug("watch", "kind", k.String(), "version", sv.typ.Version)
	s.group.Go(func() {
		defer cancel()
		if err := inf.run(ctx, s.cfg, s.http); err != nil && ctx.Err() == nil {
			w.track.answered(err) // nothing but a mistake of ours comes to this
		}
	})
}

// came notes an object's version.
func (s *Source) came(w *kindWatch, o any) {
	h, ok := o.(*held)
	if !ok {
		return
	}
	if h.beat != nil {
		s.heard(w, h)
		return
	}
	s.note(w, h.Namespace+"/"+h.Name, h.edit, h.stored)
}

// went notes that an object is gone.
func (s *Source) went(w *kindWatch, o any) {
	if unseen, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = unseen.Obj
	}
	h, ok := o.(*held)
	if !ok {
		return
	}
	if h.beat != nil {
		s.lost(h)
	}
	s.note(w, h.Namespace+"/"+h.Name, objects.Edit{Ref: h.edit.Ref}, nil)
}

func (s *Source) note(w *kindWatch, key string, e objects.Edit, stored *Stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(w, key, e, stored)
}

func (s *Source) noteLocked(w *kindWatch, key string, e objects.Edit, stored *Stored) {
	switch {
	case s.kinds[w.served.typ.Kind] != w: // was replaced
	case w.synced:
		s.store(e.Ref, stored)
		s.put(e)
	case e.New == nil:
		delete(w.before, key)
	default:
		w.before[key] = came{e, stored}
	}
}

// haveAll hands on what a watch has read, all of it at once.
func (s *Source) haveAll(w *kindWatch) {
	k := w.served.typ.Kind
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kinds[k] != w {
		return
	}
	for key := range s.have[k] {
		if _, still := w.before[key]; !still {
			s.store(refOf(k, key), nil)
			s.put(objects.Edit{Ref: refOf(k, key)}) // also what was said of the kind
		}
	}
	for _, c := range w.before {
		s.store(c.edit.Ref, c.stored)
		s.put(c.edit)
	}
	w.synced, w.before = true, nil
	s.settled()
}

// end forgets a kind that is served no more. It is called with mu held.
func (s *Source) end(k objects.Kind) {
	s.kinds[k].cancel()
	delete(s.kinds, k)
	for key := range s.have[k] {
		s.store(refOf(k, key), nil)
		s.put(objects.Edit{Ref: refOf(k, key)})
	}
}

func refOf(k objects.Kind, key string) objects.Ref {
	ns, name, _ := strings.Cut(key, "/")
	return objects.Ref{Kind: k, Namespace: ns, Name: name}
}

const (
	// lookEvery is how often what is served is looked at without a reason, and
	// lookEveryBlind how often where CustomResourceDefinitions may not be watched.
	lookEvery      = 10 * time.Minute
	lookEveryBlind = 30 * time.Second
	// retryFirst to retryMost bound the wait before a look that failed is tried again.
	retryFirst = time.Second
	retryMost  = 30 * time.Second
	// lagLimit is how long a server may be behind its own CustomResourceDefinitions.
	lagLimit = 30 * time.Second
)

// follow are the looks after a CustomResourceDefinition has changed: a server takes a
// moment until it serves what they say, and tells of it.
var follow = []time.Duration{time.Second, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// lookOut keeps the kinds that are watched those that are served.
func (s *Source) lookOut(ctx context.Context) {
	retry := retryFirst
	next := time.NewTimer(0)
	defer next.Stop()
	followed := len(follow)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.again:
			followed, retry = 0, retryFirst
		case <-next.C:
		}
		if err := s.lookOnce(ctx); err != nil {
			next.Reset(retry)
			retry = min(2*retry, retryMost)
			continue
		}
		retry = retryFirst
		switch {
		case followed < len(follow):
			next.Reset(follow[followed])
			followed++
		case s.crds.blind():
			next.Reset(lookEveryBlind)
		default:
			next.Reset(lookEvery)
		}
	}
}

// lookOnce looks at what is served, begins to watch what is new, and ends what is gone.
func (s *Source) lookOnce(ctx context.Context) error {
	if err := s.crds.wait(ctx); err != nil {
		return err
	}
	s.discovery.asked()
	limited, cancel := context.WithTimeoutCause(s.discovery.context(ctx), listLimit, errNoAnswer)
	defer cancel()
	l, err := discover(limited, s.client, s.registry)
	if err == nil {
		err = s.incomplete(l)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.discovery.answered(err)
	if err != nil {
		return err
	}
	gone := s.gone(limited, l)
	s.mu.Lock()
	for _, k := range gone {
		s.log.Info("kind is served no more", "kind", k.String())
		s.end(k)
	}
	for k, sv := range l.kinds {
		delete(s.absent, k)
		if w := s.kinds[k]; w == nil || w.served.gvr() != sv.gvr() || w.served.status != sv.status {
			s.begin(ctx, sv)
		}
	}
	s.foreign(l)
	s.looked = true
	s.mu.Unlock()
	s.judge()
	return nil
}

// incomplete says why a look is not to be trusted yet: a server that has just started, or
// has just been given a kind, may tell of less than it has.
func (s *Source) incomplete(l *look) error {
	for _, k := range s.registry.Kinds() {
		if err := l.unknown[k.Group]; err != nil && !s.registry.Unread(k) {
			return fmt.Errorf("of the group %s it cannot tell: %w", k.Group, err)
		}
	}
	if name := s.crds.lagging(l); name != "" {
		return errors.New("it does not serve " + name + " yet, though that is defined")
	}
	return nil
}

// gone lists the kinds that are watched and served no more. That takes two looks, the
// server's own word, and that nothing defines the kind.
func (s *Source) gone(ctx context.Context, l *look) []objects.Kind {
	s.mu.Lock()
	var missing []served
	for k, w := range s.kinds {
		if _, ok := l.kinds[k]; ok || s.crds.defined(w.served) {
			continue
		}
		if s.absent[k]++; s.absent[k] > 1 {
			missing = append(missing, w.served)
		} else {
			s.lookAgain()
		}
	}
	s.mu.Unlock()
	var out []objects.Kind
	for _, sv := range missing {
		if isGone(ctx, s.client.RESTClient(), sv) {
			out = append(out, sv.typ.Kind)
		}
	}
	return out
}

// foreign notes the kinds of which no version is read. It is called with mu held.
func (s *Source) foreign(l *look) {
	for k := range s.unreadable {
		if _, still := l.foreign[k]; !still {
			delete(s.unreadable, k)
			s.put(objects.Edit{Ref: objects.Ref{Kind: k}})
		}
	}
	for k, versions := range l.foreign {
		if _, ok := s.unreadable[k]; !ok {
			s.unreadable[k] = unreadable{time.Now(), fmt.Sprintf("is served as %s alone, and read as %s: its objects are not used",
				strings.Join(versions, ", "), strings.Join(s.registry.Versions(k), ", "))}
		}
	}
}

// groupOf is the group of a CustomResourceDefinition by its name, "plural.group".
func groupOf(name string) string {
	_, group, _ := strings.Cut(name, ".")
	return group
}

// crdGVR is where CustomResourceDefinitions are.
var crdGVR = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
