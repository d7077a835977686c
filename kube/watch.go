// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// listLimit bounds one answer to a list: a server that takes a request and never
	// answers must not be waited for without end.
	listLimit = time.Minute
	// idleLimit is how long a stream may be silent. A server sends a bookmark every
	// minute or so; one that sends nothing may be gone without anybody having told.
	idleLimit = 3 * time.Minute
	// lasting is how long a stream without an event must last to be one: the client gives
	// an empty stream, and no error, where a connection was closed in place of an answer.
	lasting = time.Second
	// awayFirst to awayMost are waited, and up to half of it more, until a server that is
	// away is asked again.
	awayFirst = 500 * time.Millisecond
	awayMost  = 4 * time.Second
)

// informer watches one resource by a cache of its own, so that it can have its own
// selection and end alone.
type informer struct {
	gvk        schema.GroupVersionKind
	resource   schema.GroupVersionResource
	namespaced bool
	example    client.Object
	selector   fields.Selector // nil: all objects
	labels     string          // a selector; "": all
	transform  toolscache.TransformFunc
	handler    toolscache.ResourceEventHandler
	track      *track
	synced     func() // called once, when the handler has had all objects
}

// run watches until the context ends.
func (i *informer) run(ctx context.Context, cfg *rest.Config, httpClient *http.Client) error {
	mapper := meta.NewDefaultRESTMapper(nil)
	scope := meta.RESTScopeRoot
	if i.namespaced {
		scope = meta.RESTScopeNamespace
	}
	mapper.AddSpecific(i.gvk, i.resource, i.resource, scope)
	chosen, err := labels.Parse(i.labels)
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.gvk, err)
	}
	var never time.Duration
	c, err := cache.New(cfg, cache.Options{
		HTTPClient: httpClient, Mapper: mapper, Scheme: runtime.NewScheme(), SyncPeriod: &never,
		DefaultFieldSelector: i.selector, DefaultLabelSelector: chosen, DefaultTransform: i.transform,
		DefaultWatchErrorHandler: func(context.Context, *toolscache.Reflector, error) {}, // the track knows
		NewInformer: func(lw toolscache.ListerWatcher, o runtime.Object, resync time.Duration, ix toolscache.Indexers) toolscache.SharedIndexInformer {
			return toolscache.NewSharedIndexInformer(&tracked{toolscache.ToListerWatcherWithContext(lw), i.track}, o, resync, ix)
		},
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.gvk, err)
	}
	inf, err := c.GetInformer(ctx, i.example, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.gvk, err)
	}
	reg, err := inf.AddEventHandler(i.handler)
	if err != nil {
		return fmt.Errorf("watch %s: %w", i.gvk, err)
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		select {
		case <-reg.HasSyncedChecker().Done():
			i.synced()
		case <-ctx.Done():
		}
	}()
	err = c.Start(ctx)
	<-waited
	return err
}

// tracked notes how an API server answers.
type tracked struct {
	toolscache.ListerWatcherWithContext
	track *track
}

// List implements cache.ListerWatcher, which is not used.
func (t *tracked) List(o metav1.ListOptions) (runtime.Object, error) {
	return t.ListWithContext(context.Background(), o)
}

// Watch implements cache.ListerWatcher, which is not used.
func (t *tracked) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return t.WatchWithContext(context.Background(), o)
}

// ListWithContext lists, and waits no longer than listLimit.
func (t *tracked) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return whileAway(ctx, func() (runtime.Object, error) { return t.list(ctx, o) })
}

// whileAway asks a server that is away again and again: client-go's reflector would wait
// longer each time, half a minute in the end, and hear as late that it is back.
func whileAway[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	for wait := awayFirst; ; wait = min(2*wait, awayMost) {
		out, err := ask()
		why := err
		if p, ok := err.(plain); ok {
			why = p.err
		}
		var network net.Error
		if err == nil || ctx.Err() != nil || !errors.As(why, &network) && !errors.Is(why, io.EOF) && !errors.Is(why, io.ErrUnexpectedEOF) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(wait + rand.N(wait/2)):
		}
	}
}

func (t *tracked) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	t.track.asked()
	limited, cancel := context.WithTimeoutCause(t.track.context(ctx), listLimit, errNoAnswer)
	defer cancel()
	list, err := t.ListerWatcherWithContext.ListWithContext(limited, o)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = context.Cause(limited)
	}
	if ctx.Err() == nil {
		t.track.answered(err)
	}
	return list, err
}

// WatchWithContext watches, and ends a stream that says nothing for idleLimit.
func (t *tracked) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return whileAway(ctx, func() (watch.Interface, error) { return t.watch(ctx, o) })
}

func (t *tracked) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	t.track.asked()
	limited, cancel := context.WithCancelCause(t.track.context(ctx))
	slow := time.AfterFunc(listLimit, func() { cancel(errNoAnswer) })
	w, err := t.ListerWatcherWithContext.WatchWithContext(limited, o)
	if !slow.Stop() && err == nil {
		w.Stop()
		err = context.Cause(limited)
	}
	if err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			err = context.Cause(limited)
		}
		cancel(nil)
		if ctx.Err() == nil {
			t.track.answered(err)
		}
		if initial(o) {
			err = plain{err}
		}
		return nil, err
	}
	s := &stream{inner: w, out: make(chan watch.Event), stopped: make(chan struct{}), track: t.track, initial: initial(o)}
	go func() {
		s.run()
		cancel(nil)
	}()
	return s, nil
}

// plain is an error that client-go does not know, and this package does.
type plain struct{ err error }

// Error implements error.
func (p plain) Error() string { return p.err.Error() }

// initial reports whether a stream is to begin with all objects. client-go's reflector asks
// again at once, without end, if such a one ends with 410, and does not hear that it is to
// stop while it waits after others. So it is told of plain errors alone: after those it
// lists, and waits as it should.
func initial(o metav1.ListOptions) bool { return o.SendInitialEvents != nil && *o.SendInitialEvents }

// stream passes on what a watch says.
type stream struct {
	initial bool
	inner   watch.Interface
	out     chan watch.Event
	stopped chan struct{}
	track   *track
	once    sync.Once
}

// ResultChan implements watch.Interface.
func (s *stream) ResultChan() <-chan watch.Event { return s.out }

// Stop implements watch.Interface.
func (s *stream) Stop() { s.once.Do(func() { close(s.stopped) }) }

func (s *stream) run() {
	defer func() {
		s.inner.Stop()
		for range s.inner.ResultChan() { // watch.Filter's goroutine waits until it is rid of what it has
		}
		close(s.out)
	}()
	idle := time.NewTimer(idleLimit)
	defer idle.Stop()
	lasts := time.NewTimer(lasting)
	defer lasts.Stop()
	well := false
	for {
		select {
		case e, ok := <-s.inner.ResultChan():
			if !ok {
				if !well {
					s.track.answered(io.ErrUnexpectedEOF)
				} else {
					s.track.asked() // the next one is awaited
				}
				return
			}
			if !well && e.Type != watch.Error {
				s.track.answered(nil)
			}
			well = true
			if e.Type == watch.Error {
				err := apierrors.FromObject(e.Object)
				s.track.answered(err)
				if s.initial {
					status := apierrors.NewInternalError(err).Status()
					e.Object = &status
				}
			}
			select {
			case s.out <- e:
			case <-s.stopped:
				return
			}
			idle.Reset(idleLimit)
		case <-lasts.C:
			if !well {
				s.track.answered(nil)
			}
			well = true
		case <-idle.C:
			s.track.asked()
			return
		case <-s.stopped:
			return
		}
	}
}
