// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// podTable takes the rows of local pods. Its entries depend on interfaces that may
// not be there yet, so it has no errors: what is not done is pending.
type podTable interface {
	put(row *plan.Pod, ports modePorts) // the pod's address is this now
	remove(row *plan.Pod)
	keep(rows []*plan.Pod)   // removes all others
	settle()                 // writes what was put
	prune()                  // takes away what was removed
	sets() map[string]uint64 // those that the kernel's entries have, by their keys
}

// rows writes plan rows to the maps, in an order in which nothing points to what is
// not there: verdicts, addresses, prefixes, pods, services; taken away in reverse. A full
// map stops neither: what it has no room for is left out and refused.
type rows struct {
	policy    *table
	addresses *table
	prefixes  *table
	pods      podTable
	services  *services
	ranges    *table
	sets      sets
	closed    map[string]string // entries of policy that refuse for now, and what they should hold
	unsure    bool              // the last writing did not do all: what the maps should hold, sync alone knows
}

// errUnsure is what apply says where sync has to come first.
var errUnsure = errors.New("not all was written before: all of it has to be compared first")

// kernelTables are the plan's tables that the kernel holds, in the order of writing.
func kernelTables() []incr.Table {
	return []incr.Table{plan.Verdicts, plan.Addresses, plan.Prefixes, plan.Pods, plan.Services}
}

// byTable keeps the order within each table.
func byTable(changes []incr.Change) map[incr.Table][]incr.Change {
	out := map[incr.Table][]incr.Change{}
	for _, c := range changes {
		out[c.Table] = append(out[c.Table], c)
	}
	return out
}

// apply writes changes. After an error of either, it does nothing before sync has been well.
func (r *rows) apply(ctx context.Context, changes []incr.Change, ports func(string) uint16) error {
	if r.unsure {
		return errUnsure
	}
	err := r.applyAll(ctx, r.sets.follow(changes, len(r.closed) == 0 && r.hasRoom(newVerdicts(changes))), ports)
	r.unsure = err != nil
	return err
}

func (r *rows) applyAll(ctx context.Context, changes []incr.Change, ports func(string) uint16) error {
	of := byTable(changes)
	tables := kernelTables()
	var left []leftOut
	for _, t := range tables {
		var errs []error
		if t == plan.Pods { // whose packets may be judged from here on
			errs = append(errs, r.close(left))
		}
		for _, c := range of[t] {
			if c.New == nil {
				continue
			}
			if _, err := r.put(t, c.New, ports); isFull(err) {
				left = append(left, leftOut{t, c.New, err})
			} else {
				errs = append(errs, err)
			}
		}
		if t == plan.Pods && len(of[t]) > 0 {
			r.pods.settle()
		}
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return errors.Join(err, r.shut(left)) // what comes next would point to what is missing
		}
	}
	var errs []error
	for i := range tables {
		t := tables[len(tables)-1-i]
		for _, c := range of[t] {
			if c.New == nil && c.Old != nil {
				errs = append(errs, r.remove(t, c.Old))
			}
		}
		if t == plan.Pods && len(of[t]) > 0 {
			r.pods.prune()
		}
	}
	return r.finish(left, ports, errs)
}

func newVerdicts(changes []incr.Change) (n int) {
	for _, c := range changes {
		if c.Table == plan.Verdicts && c.New != nil {
			n++
		}
	}
	return n
}

// finish writes what found no room before others were taken away.
func (r *rows) finish(left []leftOut, ports func(string) uint16, errs []error) error {
	left, err := r.retryLeftOut(left, ports)
	if err := errors.Join(append(errs, err, r.close(left))...); err != nil || len(left) == 0 {
		return err
	}
	return &leftOutError{left}
}

// sync makes the maps hold exactly these rows.
func (r *rows) sync(ctx context.Context, all []incr.Row, ports func(string) uint16) error {
	all = r.sets.begin(all, r.known(), r.hasRoom(len(all)))
	r.leaveClosed()
	err := r.syncAll(ctx, all, ports)
	r.unsure = err != nil
	return err
}

func (r *rows) syncAll(ctx context.Context, all []incr.Row, ports func(string) uint16) error {
	of := map[incr.Table][]incr.Row{}
	for _, row := range all {
		of[row.Table] = append(of[row.Table], row)
	}
	want := map[incr.Table]map[string]bool{}
	var left []leftOut
	for _, t := range kernelTables() {
		want[t] = map[string]bool{}
		var errs []error
		if t == plan.Pods {
			errs = append(errs, r.close(left))
		}
		var pods []*plan.Pod
		for _, row := range of[t] {
			key, err := r.put(t, row.Value, ports)
			want[t][key] = true
			if isFull(err) {
				left = append(left, leftOut{t, row.Value, err})
			} else {
				errs = append(errs, err)
			}
			if p, ok := row.Value.(*plan.Pod); ok {
				pods = append(pods, p)
			}
		}
		if t == plan.Pods {
			r.pods.keep(pods)
			r.pods.settle()
		}
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return errors.Join(err, r.shut(left))
		}
	}
	errs := []error{r.services.prune(want[plan.Services]), r.ranges.prune(want[plan.Services])}
	r.pods.prune()
	errs = append(errs,
		r.prefixes.prune(want[plan.Prefixes]),
		r.addresses.prune(want[plan.Addresses]),
		r.pruneVerdicts(want[plan.Verdicts]))
	return r.finish(left, ports, errs)
}

// put writes one row and returns the key of its entry ("" for pods).
func (r *rows) put(t incr.Table, value any, ports func(string) uint16) (string, error) {
	switch v := value.(type) {
	case *plan.Verdict:
		e, err := verdictEntry(v)
		if err != nil {
			return "", err
		}
		return e.key, r.putVerdict(e)
	case *plan.Address:
		e := addressEntry(v)
		return e.key, r.addresses.put(e)
	case *plan.Prefix:
		e := prefixEntry(v)
		return e.key, r.prefixes.put(e)
	case *plan.Pod:
		p, err := portsOf(v, ports)
		if err != nil {
			return "", err
		}
		r.pods.put(v, p)
		return "", nil
	case *plan.Service:
		if v.Bits != 0 {
			e, err := rangeEntry(v)
			if err != nil {
				return "", err
			}
			return e.key, r.ranges.put(e)
		}
		return r.services.put(v)
	}
	return "", fmt.Errorf("write row of %s: unexpected %T", t, value)
}

func (r *rows) remove(t incr.Table, value any) error {
	switch v := value.(type) {
	case *plan.Verdict:
		e, err := verdictEntry(v)
		if err != nil {
			return err
		}
		return r.removeVerdict(e.key)
	case *plan.Address:
		return r.addresses.remove(addressEntry(v).key)
	case *plan.Prefix:
		return r.prefixes.remove(prefixEntry(v).key)
	case *plan.Pod:
		r.pods.remove(v)
		return nil
	case *plan.Service:
		if v.Bits != 0 {
			e, err := rangeEntry(v)
			if err != nil {
				return err
			}
			return r.ranges.remove(e.key)
		}
		key, err := serviceEntryKey(v)
		if err != nil {
			return err
		}
		return r.services.remove(key)
	}
	return fmt.Errorf("remove row of %s: unexpected %T", t, value)
}
