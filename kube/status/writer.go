// SPDX-License-Identifier: Apache-2.0

// Package status writes to users' objects: their status, and Events about them. What it
// writes is decided elsewhere; here it is written once, at a bounded rate, against the
// version that was looked at, and tried again with patience.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/translators/objects"
)

// FieldManager is the name under which everything is written.
const FieldManager = "fairlead"

const (
	// perSecond and burst bound what is written, all kinds together.
	perSecond = 50
	burst     = 100
	writers   = 4
	// writeLimit is how long an answer is waited for. It is no longer than the time
	// between the end of a leader's renewals and its successor's first.
	writeLimit = 5 * time.Second
	// retryFirst to retryMost bound the wait before a write that failed is tried again.
	retryFirst = 200 * time.Millisecond
	retryMost  = 5 * time.Minute
	// feudMost bounds the wait before the same is written to an object again from which
	// somebody has taken it, and feudOver is when that is forgotten.
	feudMost = 10 * time.Minute
	feudOver = time.Hour
)

// Write is a change of one object's status.
type Write struct {
	Stored *kube.Stored   // what it is made against
	Status map[string]any // fields that change, whole; nil for one that goes
	Says   string         // what it comes to, without times: equal for equal statuses
}

// Writer writes statuses. Its methods are safe for concurrent use.
type Writer struct {
	client dynamic.Interface
	next   func(objects.Ref) (Write, bool)
	wrote  func(objects.Ref, *kube.Stored)
	log    *slog.Logger
	rate   flowcontrol.RateLimiter

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[objects.Ref] // nil: nothing is to be written
	feuds map[objects.Ref]feud
	swept time.Time              // when feuds that are over were forgotten
	told  map[objects.Ref]string // what was logged of an object last
	count Counts
}

// feud is an object that got the same more than once.
type feud struct {
	says  string
	last  time.Time
	again int
}

// Counts tell what was done.
type Counts struct {
	Writes  int `json:"writes"`
	Failed  int `json:"failed"`
	Waiting int `json:"waiting"` // objects that are to be written
}

// New returns a writer that does nothing before Run. next says what is to be written to an
// object now, if anything; wrote is told what is stored then.
func New(cfg *kube.Config, next func(objects.Ref) (Write, bool), wrote func(objects.Ref, *kube.Stored), log *slog.Logger) (*Writer, error) {
	client, err := dial(cfg)
	if err != nil {
		return nil, err
	}
	return &Writer{client: client, next: next, wrote: wrote, log: log, rate: flowcontrol.NewTokenBucketRateLimiter(perSecond, burst),
		feuds: map[objects.Ref]feud{}, told: map[objects.Ref]string{}}, nil
}

func dial(cfg *kube.Config) (dynamic.Interface, error) {
	c := kube.Prepare(cfg)
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", c.Host, err)
	}
	d, err := dynamic.NewForConfigAndClient(c, client)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", c.Host, err)
	}
	return d, nil
}

// Look has objects looked at, whether there is something to write. It is cheap, and nothing
// while Run does not run.
func (w *Writer) Look(refs ...objects.Ref) {
	w.mu.Lock()
	q := w.queue
	w.mu.Unlock()
	if q == nil {
		return
	}
	for _, r := range refs {
		q.Add(r)
	}
}

// Counts tells what was done so far.
func (w *Writer) Counts() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.count
	if w.queue != nil {
		c.Waiting = w.queue.Len()
	}
	return c
}

// Run writes until the context ends, beginning with all that begin looks at.
func (w *Writer) Run(ctx context.Context, begin func()) {
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[objects.Ref](retryFirst, retryMost))
	w.mu.Lock()
	w.queue = q
	w.mu.Unlock()
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for {
				ref, over := q.Get()
				if over {
					return
				}
				if ctx.Err() == nil {
					w.write(ctx, q, ref)
				}
				q.Done(ref)
			}
		})
	}
	begin()
	<-ctx.Done()
	w.mu.Lock()
	w.queue = nil
	w.mu.Unlock()
	q.ShutDown()
	group.Wait()
}

func (w *Writer) write(ctx context.Context, q workqueue.TypedRateLimitingInterface[objects.Ref], ref objects.Ref) {
	next, ok := w.next(ref)
	if !ok {
		q.Forget(ref)
		w.tell(ref, "")
		return
	}
	if wait := w.feud(ref, next.Says); wait > 0 {
		q.AddAfter(ref, wait)
		return
	}
	if err := w.rate.Wait(ctx); err != nil {
		return
	}
	stored, err := patch(ctx, w.client, ref, next)
	w.mu.Lock()
	if err == nil {
		w.count.Writes++
	} else if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		w.count.Failed++
	}
	w.mu.Unlock()
	switch {
	case err == nil:
		q.Forget(ref)
		w.tell(ref, "")
		w.written(ref, next.Says)
		w.wrote(ref, stored)
	case ctx.Err() != nil:
	case apierrors.IsNotFound(err):
		q.Forget(ref) // it is gone, and that is about to be told
	case apierrors.IsConflict(err):
		// Its new version, or that another has come in its place, is about to be told.
		q.AddRateLimited(ref)
	default:
		w.tell(ref, reason(err))
		q.AddRateLimited(ref)
	}
}

// tell logs what keeps an object from being written, once for as long as it is the same.
func (w *Writer) tell(ref objects.Ref, problem string) {
	w.mu.Lock()
	old := w.told[ref]
	if problem == "" {
		delete(w.told, ref)
	} else {
		w.told[ref] = problem
	}
	w.mu.Unlock()
	if problem != "" && problem != old {
		w.log.Warn("status not written", "object", ref.String(), "problem", problem)
	}
}

// reason says why a write failed, and what to do about it.
func reason(err error) string {
	if apierrors.IsForbidden(err) {
		return err.Error() + "; allow patch of the status subresource by a ClusterRole"
	}
	return err.Error()
}

// feud is how long to wait before the same is written to an object again: somebody takes
// it away each time, and to answer at once would never end.
func (w *Writer) feud(ref objects.Ref, says string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, ok := w.feuds[ref]
	if !ok || f.says != says {
		return 0
	}
	return time.Until(f.last.Add(min(time.Second<<min(f.again, 20), feudMost)))
}

func (w *Writer) written(ref objects.Ref, says string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	f, ok := w.feuds[ref]
	switch {
	case ok && f.says == says && now.Sub(f.last) < feudOver:
		f.again++
	default:
		f = feud{says: says}
	}
	f.last = now
	w.feuds[ref] = f
	if f.again == 3 {
		w.log.Warn("another writer takes Fairlead's part of a status away; it is written ever more seldom", "object", ref.String())
	}
	if now.Sub(w.swept) > feudOver {
		maps.DeleteFunc(w.feuds, func(_ objects.Ref, f feud) bool { return now.Sub(f.last) > feudOver })
		w.swept = now
	}
}

// Once makes one write, as it is.
func Once(ctx context.Context, cfg *kube.Config, ref objects.Ref, w Write) error {
	client, err := dial(cfg)
	if err != nil {
		return err
	}
	_, err = patch(ctx, client, ref, w)
	return err
}

// patch makes a write, unless the object is no more the version that was looked at, and
// returns what is stored then.
func patch(ctx context.Context, c dynamic.Interface, ref objects.Ref, w Write) (*kube.Stored, error) {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": w.Stored.UID, "resourceVersion": w.Stored.ResourceVersion},
		"status": whole(w.Stored.Status, w.Status)})
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", ref, err)
	}
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	u, err := c.Resource(w.Stored.Resource).Namespace(ref.Namespace).Patch(limited, ref.Name, types.MergePatchType, body,
		metav1.PatchOptions{FieldManager: FieldManager}, "status")
	if err != nil {
		return nil, err
	}
	return storedOf(w.Stored, u), nil
}

// whole is nil if nothing would be left of a status: some schemas want of one that is
// there that it has something.
func whole(stored, change map[string]any) map[string]any {
	for k := range stored {
		if v, changes := change[k]; !changes || v != nil {
			return change
		}
	}
	for _, v := range change {
		if v != nil {
			return change
		}
	}
	return nil
}

func storedOf(old *kube.Stored, u *unstructured.Unstructured) *kube.Stored {
	next := *old
	next.UID, next.ResourceVersion, next.Generation = string(u.GetUID()), u.GetResourceVersion(), u.GetGeneration()
	next.Status, _ = u.Object["status"].(map[string]any)
	return &next
}
