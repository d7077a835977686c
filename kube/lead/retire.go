// SPDX-License-Identifier: Apache-2.0

package lead

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Retire has every process of an installation stop for good, runs last while none of them
// leads, and deletes the Lease. Without the namespace none leads. A process that begins meanwhile, or is restarted, does not
// lead either until the Lease's time is over.
func (e *Election) Retire(ctx context.Context, last func(context.Context) error) error {
	leases := e.leases.Leases(e.o.Namespace)
	mark := func(l *coordinationv1.Lease, holder string) {
		now, seconds := metav1.NowMicro(), int32(e.o.Times.Lease/time.Second)
		l.Spec.HolderIdentity, l.Spec.RenewTime, l.Spec.LeaseDurationSeconds = &holder, &now, &seconds
	}
	fresh := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.o.Namespace, Name: e.o.Name, Labels: e.o.Labels,
		Annotations: map[string]string{retiredKey: e.o.Identity}}}
	mark(fresh, e.o.Identity)
	_, err := leases.Create(ctx, fresh, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		if err := e.depose(ctx, mark); err != nil {
			return err
		}
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return last(ctx) // the namespace is gone, or going: nobody can lead there any more
	case err != nil:
		return fmt.Errorf("mark Lease %s/%s: %w", e.o.Namespace, e.o.Name, err)
	}
	stop := e.hold(ctx, mark)
	err = last(ctx)
	stop()
	if err != nil {
		return err
	}
	if err := leases.Delete(ctx, e.o.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete Lease %s/%s: %w", e.o.Namespace, e.o.Name, err)
	}
	return nil
}

// depose marks a Lease that is there, waits until its holder has given it back or its time
// is over, takes it, and gives those who stand by the time to read the mark.
func (e *Election) depose(ctx context.Context, mark func(*coordinationv1.Lease, string)) error {
	leases := e.leases.Leases(e.o.Namespace)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{retiredKey: e.o.Identity}}})
	if err != nil {
		return err
	}
	if _, err := leases.Patch(ctx, e.o.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("mark Lease %s/%s: %w", e.o.Namespace, e.o.Name, err)
	}
	seen := map[string]sighting{}
	for taken := false; !taken; {
		l, err := leases.Get(ctx, e.o.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read Lease %s/%s: %w", e.o.Namespace, e.o.Name, err)
		}
		if l.Annotations[retiredKey] == "" {
			return fmt.Errorf("the mark on Lease %s/%s was taken away by %s; try again", e.o.Namespace, e.o.Name, holderOf(l))
		}
		if holderOf(l) == "" || !e.lives(l, seen) {
			mark(l, e.o.Identity)
			l.Annotations[retiredKey] = e.o.Identity
			_, err = leases.Update(ctx, l, metav1.UpdateOptions{})
			if err != nil && !apierrors.IsConflict(err) {
				return fmt.Errorf("take Lease %s/%s: %w", e.o.Namespace, e.o.Name, err)
			}
			taken = err == nil
			continue
		}
		if err := pause(ctx, e.o.Times.Retry/4); err != nil {
			return err
		}
	}
	return pause(ctx, 2*e.o.Times.Retry+e.o.Times.Retry/2)
}

// hold renews the Lease until it is stopped.
func (e *Election) hold(ctx context.Context, mark func(*coordinationv1.Lease, string)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, e.o.Times.Retry) == nil {
			l, err := e.leases.Leases(e.o.Namespace).Get(ctx, e.o.Name, metav1.GetOptions{})
			if err != nil || holderOf(l) != e.o.Identity {
				continue
			}
			mark(l, e.o.Identity)
			if _, err := e.leases.Leases(e.o.Namespace).Update(ctx, l, metav1.UpdateOptions{}); err != nil {
				e.o.Log.Debug("renew lease", "error", err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
