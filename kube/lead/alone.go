// SPDX-License-Identifier: Apache-2.0

package lead

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// alone has lead run while no other installation comes first.
func (e *Election) alone(ctx context.Context, lead func(context.Context)) {
	seen := map[string]sighting{}
	var running sync.WaitGroup
	stop := func() {}
	defer func() {
		stop()
		running.Wait()
		e.set(State{})
	}()
	for leading := false; ; {
		first, problem := e.first(ctx, seen)
		switch {
		case ctx.Err() != nil:
			return
		case first && !leading:
			e.set(State{Leading: true})
			term, cancel := context.WithCancel(ctx)
			stop, leading = cancel, true
			running.Go(func() { lead(term) })
		case !first:
			stop()
			running.Wait()
			leading = false
			e.set(State{Problem: problem})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(e.o.Times.Retry):
		}
	}
}

// sighting is another installation's Lease, and since when it is as it is. Clocks differ:
// that is by our own.
type sighting struct {
	version string
	since   time.Time
}

// first reports whether this installation is the first of those that live, and if not, why.
func (e *Election) first(ctx context.Context, seen map[string]sighting) (bool, string) {
	list, err := e.leases.Leases("").List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(e.o.Labels).String()})
	if err != nil {
		if e.State().Leading { // as long as the Lease can be renewed
			return true, ""
		}
		return false, fmt.Sprintf("cannot look for other installations: %v; allow list of leases.coordination.k8s.io by a ClusterRole", err)
	}
	var own *coordinationv1.Lease
	for i := range list.Items {
		if l := &list.Items[i]; l.Namespace == e.o.Namespace && l.Name == e.o.Name {
			own = l
		}
	}
	for i := range list.Items {
		l := &list.Items[i]
		if l == own || holderOf(l) == "" {
			continue
		}
		if !e.lives(l, seen) || own != nil && before(own, l) {
			continue
		}
		return false, fmt.Sprintf("there is another installation of Fairlead, in namespace %s (Lease %s, held by %s): this one, in %s, writes nothing; uninstall one of the two",
			l.Namespace, l.Name, holderOf(l), e.o.Namespace)
	}
	return true, ""
}

// Other is the namespace of another installation that lives; "": there is none. One whose
// Lease says neither is watched until its time is over.
func (e *Election) Other(ctx context.Context) (string, error) {
	seen := map[string]sighting{}
	for first := map[string]string{}; ; {
		list, err := e.leases.Leases("").List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(e.o.Labels).String()})
		if err != nil {
			return "", fmt.Errorf("look for other installations: %w", err)
		}
		open := false
		for i := range list.Items {
			l := &list.Items[i]
			if l.Namespace == e.o.Namespace && l.Name == e.o.Name || holderOf(l) == "" || l.Annotations[retiredKey] != "" {
				continue
			}
			key := l.Namespace + "/" + l.Name
			if had, known := first[key]; known && had != l.ResourceVersion {
				return l.Namespace, nil // it was renewed
			}
			first[key] = l.ResourceVersion
			open = e.lives(l, seen) || open
		}
		if !open {
			return "", nil
		}
		if err := pause(ctx, e.o.Times.Retry); err != nil {
			return "", err
		}
	}
}

// lives reports whether a Lease is renewed, or may be.
func (e *Election) lives(l *coordinationv1.Lease, seen map[string]sighting) bool {
	key, now := l.Namespace+"/"+l.Name, time.Now()
	s, known := seen[key]
	if !known || s.version != l.ResourceVersion {
		seen[key] = sighting{l.ResourceVersion, now}
		return true
	}
	lasts := e.o.Times.Lease
	if d := l.Spec.LeaseDurationSeconds; d != nil && *d > 0 {
		lasts = time.Duration(*d) * time.Second
	}
	return now.Sub(s.since) < lasts
}

// before reports whether one Lease is older than another.
func before(a, b *coordinationv1.Lease) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Namespace < b.Namespace
}
