// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/lead"
	"fairlead.io/fairlead/kube/status"
	"fairlead.io/fairlead/operator/conditions"
)

// rounds bounds how often objects are looked at that others write at the same time.
const rounds = 10

// Removed counts what Cleanup took away.
type Removed struct {
	Statuses int `json:"statuses"`
	Events   int `json:"events"`
	// Other is the namespace of another installation, which writes, or is to write now:
	// then all is left to it; "": there is none.
	Other string `json:"other,omitempty"`
}

// Cleanup takes away what operators of an installation have written: its part of objects'
// statuses, its Events, its Lease. Operators that run write nothing from then on. What
// others have written stays, and so do definitions, which users' objects depend on. Beside
// another installation that is everything: one of two has written all that there is, and the
// other takes over from it.
func Cleanup(ctx context.Context, o Options) (Removed, error) {
	if o.Times == (lead.Times{}) {
		o.Times = lead.DefaultTimes
	}
	e, err := newElection(o)
	if err != nil {
		return Removed{}, err
	}
	var out Removed
	retired := false
	err = e.Retire(ctx, func(ctx context.Context) error {
		retired = true
		if out.Other, err = e.Other(ctx); err != nil || out.Other != "" {
			return err
		}
		out.Events, err = status.RemoveEvents(ctx, o.Config)
		if err != nil {
			return err
		}
		out.Statuses, err = removeStatuses(ctx, o)
		return err
	})
	if apierrors.IsForbidden(err) {
		err = fmt.Errorf("%w; allow what the chart's ClusterRole and Role fairlead-operator do: get, create, update, patch and delete of leases in namespace %s among it", err, o.Namespace)
	}
	if err != nil && retired {
		err = fmt.Errorf("%w; taken back so far: %d statuses, %d Events; what is left stays as it is, for operators that ran have stopped writing: clean up again, or restart them to go on", err, out.Statuses, out.Events)
	}
	return out, err
}

func removeStatuses(ctx context.Context, o Options) (int, error) {
	pipe, err := pipeline.New(pipeline.Options{})
	if err != nil {
		return 0, err
	}
	removed := 0
	for range rounds {
		stored, err := kube.ReadStored(ctx, kube.Options{Config: o.Config, Registry: pipe.Registry(), Statuses: covered(pipe.Registry(), Judges()), Log: o.Log})
		if err != nil {
			return removed, err
		}
		left := 0
		var failed []error
		for ref, st := range stored {
			change := conditions.Merge(st.Status, 0, nil, time.Time{})
			if len(change) == 0 || !st.Writable {
				continue
			}
			err := status.Once(ctx, o.Config, ref, status.Write{Stored: st, Status: change})
			switch {
			case err == nil:
				removed++
			case apierrors.IsNotFound(err): // it is gone, with what it had
			case apierrors.IsConflict(err):
				left++
			default:
				failed = append(failed, fmt.Errorf("status of %s: %w", ref, err))
			}
		}
		if len(failed) > 0 {
			return removed, errors.Join(failed...)
		}
		if left == 0 {
			return removed, nil
		}
	}
	return removed, errors.New("some objects are written all the time by others: try again")
}
