// SPDX-License-Identifier: Apache-2.0

// Package owner tells a process that is being stopped whether it is replaced, or taken away
// for good: whether the object that has it run, its DaemonSet say, is still there.
//
// SIGTERM is the same for both. The object is followed from the start, because by the time
// of the signal the permission to ask may be gone with it, as when all of an installation is
// deleted.
package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Ref names an object of apps/v1.
type Ref struct{ Resource, Namespace, Name string }

// ParseRef reads "NAMESPACE/NAME".
func ParseRef(resource, text string) (Ref, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return Ref{}, fmt.Errorf("%q: want NAMESPACE/NAME", text)
	}
	return Ref{resource, namespace, name}, nil
}

func (r Ref) String() string { return r.Resource + " " + r.Namespace + "/" + r.Name }

const (
	// askLimit bounds a request for the object.
	askLimit = 3 * time.Second
	// retry is the wait before an object is followed again.
	retry = 5 * time.Second
)

// Follower knows of an object whether it is there.
type Follower struct {
	ref    Ref
	client metadata.ResourceInterface
	log    *slog.Logger

	mu   sync.Mutex
	seen bool // it was there once
	gone bool // as was heard last
}

// New returns a follower of an object that does not follow it yet.
func New(cfg *rest.Config, ref Ref, log *slog.Logger) (*Follower, error) {
	c := rest.CopyConfig(cfg)
	c.WarningHandler = rest.NoWarnings{}
	client, err := metadata.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", ref, err)
	}
	return follower(client, ref, log), nil
}

func follower(client metadata.Interface, ref Ref, log *slog.Logger) *Follower {
	gvr := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: ref.Resource}
	return &Follower{ref: ref, client: client.Resource(gvr).Namespace(ref.Namespace), log: log}
}

// Run follows the object until the context ends. That it cannot is told once.
func (f *Follower) Run(ctx context.Context) {
	told := false
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !told {
			told = true
			f.log.Warn("cannot follow who runs this: it will be asked for at the end", "owner", f.ref.String(), "error", err,
				"advice", "allow get, list and watch of it by a Role")
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// follow looks once and then hears of changes, until the stream ends.
func (f *Follower) follow(ctx context.Context) error {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", f.ref.Name).String()}
	list, err := f.client.List(ctx, only)
	if err != nil {
		return err
	}
	if len(list.Items) > 0 {
		f.heard(list.Items[0].DeletionTimestamp != nil)
	} else if !f.lost() {
		f.log.Warn("there is no such object: what is stopped is taken for replaced, and leaves the node as it is",
			"owner", f.ref.String(), "advice", "name the object that has this run")
	}
	only.ResourceVersion = list.ResourceVersion
	stream, err := f.client.Watch(ctx, only)
	if err != nil {
		return err
	}
	defer stream.Stop()
	defer context.AfterFunc(ctx, stream.Stop)()
	for e := range stream.ResultChan() {
		switch e.Type {
		case watch.Error:
			return apierrors.FromObject(e.Object)
		case watch.Bookmark:
		default:
			o, ok := e.Object.(*metav1.PartialObjectMetadata)
			f.heard(e.Type == watch.Deleted || ok && o.DeletionTimestamp != nil)
		}
	}
	return nil
}

// heard notes that the object is there, or was, and whether it goes.
func (f *Follower) heard(gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen, f.gone = true, gone
}

// lost notes that the object is not there, and reports whether it ever was: one that was
// not is another than the one that is meant, or somebody else's server.
func (f *Follower) lost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = f.seen
	return f.seen
}

// isAbsent reports whether a server that has such objects says that it has not this one.
// One that is not whole yet, or something in front of it, answers 404 to everything.
func (r Ref) isAbsent(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || apierrors.IsUnexpectedServerError(err) || !errors.As(err, &status) {
		return false
	}
	of := status.Status().Details
	return of != nil && of.Kind == r.Resource && of.Name == r.Name
}

// Gone reports whether the object is gone or being deleted. It is asked for, as what was
// heard may be of before; where that is not answered, what was heard counts. Without either,
// or if it was never there, it is not gone: what is still there is of use to the next one,
// and can be taken away later.
func (f *Follower) Gone(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	o, err := f.client.Get(ctx, f.ref.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		return o.DeletionTimestamp != nil
	case f.ref.isAbsent(err):
		return f.lost()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Info("cannot ask for who runs this: what was heard of it last counts", "owner", f.ref.String(), "gone", f.gone, "error", err)
	return f.gone
}
