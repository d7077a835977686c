// SPDX-License-Identifier: Apache-2.0

package lead

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// retiredKey marks a Lease whose processes are to stop for good; its value is who says so.
const retiredKey = "fairlead.io/retired"

// lock is a Lease as an election uses it. client-go's own does not show the annotations.
type lock struct {
	o       Options
	client  coordination.LeaseInterface
	retired func()
	failed  func(error) // told of every error, and of nil

	mu       sync.Mutex
	lease    *coordinationv1.Lease // as it was read or written last
	unmarked bool                  // it was seen without the mark: a mark is meant for this process
	marked   bool                  // it was seen with the mark before that
	mine     bool                  // this process has it
}

func newLock(o Options, c coordination.LeasesGetter) *lock {
	return &lock{o: o, client: c.Leases(o.Namespace), retired: func() {}, failed: func(error) {}}
}

// Get implements resourcelock.Interface.
func (l *lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	lease, err := l.client.Get(ctx, l.o.Name, metav1.GetOptions{})
	if err != nil {
		// What was marked when this process began, and is gone, was cleaned up.
		l.mu.Lock()
		over := apierrors.IsNotFound(err) && l.marked && !l.unmarked
		l.mu.Unlock()
		if over {
			l.retired()
			return nil, nil, ErrRetired
		}
		if !apierrors.IsNotFound(err) {
			l.failed(err)
		}
		return nil, nil, err
	}
	if l.see(lease) {
		l.retired()
		return nil, nil, ErrRetired
	}
	record := resourcelock.LeaseSpecToLeaderElectionRecord(&lease.Spec)
	raw, err := json.Marshal(record)
	return record, raw, err
}

// see notes the Lease, and reports whether it retires this process. Who finds the mark
// when it begins waits like for any other holder: if that goes on, it takes over and the
// mark is gone, if the Lease goes, it was cleaned up.
func (l *lock) see(lease *coordinationv1.Lease) (retire bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease = lease
	by, mark := lease.Annotations[retiredKey]
	switch {
	case !mark:
		l.unmarked = true
	case by == l.o.Identity: // it says so itself
	case l.unmarked:
		return true
	default:
		l.marked = true
	}
	return false
}

// Create implements resourcelock.Interface.
func (l *lock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	lease, err := l.client.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.o.Namespace, Name: l.o.Name, Labels: l.o.Labels, Annotations: maps.Clone(l.o.Annotations)},
		Spec: resourcelock.LeaderElectionRecordToLeaseSpec(&r)}, metav1.CreateOptions{})
	l.failed(err)
	if err != nil {
		return err
	}
	l.have(lease)
	return nil
}

// Update implements resourcelock.Interface.
func (l *lock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	if l.lease == nil {
		l.mu.Unlock()
		return errors.New("the Lease was not read yet")
	}
	next := l.lease.DeepCopy()
	l.mu.Unlock()
	next.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&r)
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	maps.Copy(next.Labels, l.o.Labels)
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	maps.Copy(next.Annotations, l.o.Annotations)
	if next.Annotations[retiredKey] != l.o.Identity {
		delete(next.Annotations, retiredKey)
	}
	lease, err := l.client.Update(ctx, next, metav1.UpdateOptions{})
	if !apierrors.IsConflict(err) { // that is one who was faster
		l.failed(err)
	}
	if err != nil {
		return err
	}
	l.have(lease)
	return nil
}

func (l *lock) have(lease *coordinationv1.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease, l.unmarked, l.mine = lease, true, true
}

// acquired reports whether this process has taken the Lease since it was asked last.
func (l *lock) acquired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := l.mine
	l.mine = false
	return mine
}

// release gives the Lease back, so that nobody has to wait for its end.
func (l *lock) release(ctx context.Context) {
	for ctx.Err() == nil {
		lease, err := l.client.Get(ctx, l.o.Name, metav1.GetOptions{})
		if err != nil || holderOf(lease) != l.o.Identity {
			return // it ends by itself
		}
		lease.Spec.HolderIdentity = new(string)
		_, err = l.client.Update(ctx, lease, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			return
		}
	}
}

func (l *lock) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == nil {
		return ""
	}
	return holderOf(l.lease)
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// RecordEvent implements resourcelock.Interface; the log has it.
func (l *lock) RecordEvent(string) {}

// Identity implements resourcelock.Interface.
func (l *lock) Identity() string { return l.o.Identity }

// Describe implements resourcelock.Interface.
func (l *lock) Describe() string { return fmt.Sprintf("Lease %s/%s", l.o.Namespace, l.o.Name) }
