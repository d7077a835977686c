// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"fairlead.io/fairlead/translators/objects"
)

// crds knows the names of the CustomResourceDefinitions. They tell when to look at what is
// served, and what must be served before that is to be trusted. Who may not read them looks
// more often.
type crds struct {
	track track

	mu    sync.Mutex
	names map[string]bool
	late  map[string]time.Time // of those that are not served: since when
	known bool                 // all of them are
	ready chan struct{}        // closed with the first answer, whatever it is
	once  sync.Once
}

// watchCRDs watches the names of CustomResourceDefinitions.
func (s *Source) watchCRDs(ctx context.Context) {
	c := &s.crds
	c.names, c.late, c.ready = map[string]bool{}, map[string]time.Time{}, make(chan struct{})
	failed := c.track.changed
	c.track.changed = func() {
		if c.track.forbidden() {
			c.once.Do(func() { close(c.ready) })
		}
		failed()
	}
	example := &metav1.PartialObjectMetadata{}
	gvk := crdGVR.GroupVersion().WithKind("CustomResourceDefinition")
	example.SetGroupVersionKind(gvk)
	change := func(o any, there bool) {
		if unseen, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = unseen.Obj
		}
		if h, ok := o.(*held); ok && c.change(h.Name, there, s.registry) {
			s.lookAgain()
		}
	}
	inf := &informer{gvk: gvk, resource: crdGVR, example: example, track: &c.track,
		transform: func(in any) (any, error) {
			m, ok := in.(*metav1.PartialObjectMetadata)
			if !ok {
				return in, nil
			}
			return &held{ObjectMeta: metav1.ObjectMeta{Name: m.Name, ResourceVersion: m.ResourceVersion}}, nil
		},
		handler: toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { change(o, true) },
			UpdateFunc: func(_, o any) { change(o, true) },
			DeleteFunc: func(o any) { change(o, false) },
		},
		synced: func() {
			c.mu.Lock()
			c.known = true
			c.mu.Unlock()
			c.once.Do(func() { close(c.ready) })
		}}
	s.group.Go(func() {
		if err := inf.run(ctx, s.cfg, s.http); err != nil && ctx.Err() == nil {
			c.track.answered(err)
		}
	})
}

// change notes a definition, and reports whether it is of a group that somebody reads.
func (c *crds) change(name string, there bool, r *objects.Registry) bool {
	if !reads(r, groupOf(name)) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if there {
		c.names[name] = true
	} else {
		delete(c.names, name)
		delete(c.late, name)
	}
	return true
}

func reads(r *objects.Registry, group string) bool {
	return slices.ContainsFunc(r.Kinds(), func(k objects.Kind) bool { return k.Group == group })
}

// wait waits for the definitions, or for the word that they may not be read.
func (c *crds) wait(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// blind reports whether they may not be read.
func (c *crds) blind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.known || c.track.forbidden()
}

// defined reports whether there is a definition of a kind.
func (c *crds) defined(sv served) bool {
	if c.blind() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[sv.resource+"."+sv.typ.Kind.Group]
}

// lagging is a definition that is not served, "" if there is none. One that is not after
// lagLimit never will be: its names are another's, or nothing of it is served.
func (c *crds) lagging(l *look) string {
	if c.blind() {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := ""
	for name := range c.names {
		switch {
		case l.names[name]:
			delete(c.late, name)
			continue
		case c.late[name].IsZero():
			c.late[name] = time.Now()
		}
		if time.Since(c.late[name]) < lagLimit && (found == "" || name < found) {
			found = name
		}
	}
	return found
}
