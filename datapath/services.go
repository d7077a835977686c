// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"fairlead.io/fairlead/model/plan"
)

// services writes services and their slots. New backends get slots under a new id
// first, then the service points to them in one write, then the old slots go: a
// client sees the old backends or the new ones. A service whose routes the kernel
// follows has two sets of backends, one for captured clients and one for all others.
type services struct {
	table *table // fl_services_v2
	slots *table // fl_slots_v1
	byID  map[uint32][]string
	last  uint32 // id given out last
}

// unusable stands in a table for a value that has to be written anew.
const unusable = ""

// adopt takes over what stands in both maps. Slots that no service points to stay
// until prune.
func (s *services) adopt() error {
	s.byID = map[uint32][]string{}
	for key, value := range s.table.have {
		var v serviceValue
		if err := decode(value, &v); err != nil {
			return fmt.Errorf("read %s: %w", s.table.name, err)
		}
		s.last = max(s.last, v.ID, v.RoutedID)
		own, ok := s.found(v.ID, v.Slots)
		routed, alsoOK := s.found(v.RoutedID, v.RoutedSlots)
		if !ok || !alsoOK || v.ID != 0 && v.ID == v.RoutedID {
			s.table.have[key] = unusable
			continue
		}
		if v.ID != 0 {
			s.byID[v.ID] = own
		}
		if v.RoutedID != 0 {
			s.byID[v.RoutedID] = routed
		}
	}
	for key := range s.slots.have {
		var k slotKey
		if err := decode(key, &k); err != nil {
			return fmt.Errorf("read %s: %w", s.slots.name, err)
		}
		s.last = max(s.last, k.ID)
	}
	return nil
}

// found are the backends in slots that no service before has; false if some are missing.
func (s *services) found(id, slots uint32) ([]string, bool) {
	if id == 0 || slots == 0 {
		return nil, id == 0 && slots == 0
	}
	backends := make([]string, 0, slots)
	for n := range slots {
		b, ok := s.slots.have[encode(slotKey{id, n})]
		if !ok {
			return nil, false
		}
		backends = append(backends, b)
	}
	return backends, s.byID[id] == nil
}

// current is what the kernel has, zero if there is nothing to build on.
func (s *services) current(key string) (v serviceValue) {
	if decode(s.table.have[key], &v) != nil {
		return serviceValue{}
	}
	return v
}

// put writes a service and returns its key.
func (s *services) put(row *plan.Service) (string, error) {
	key, err := serviceEntryKey(row)
	if err != nil {
		return "", err
	}
	flags, err := serviceFlags(row)
	if err != nil {
		return key, err
	}
	err = s.point(key, row, flags)
	if isFull(err) {
		err = s.replace(key, row, flags, err)
	}
	if err != nil {
		return key, fmt.Errorf("service %s: %w", row.Key(), err)
	}
	return key, nil
}

// point leads a service to the backends of its row.
func (s *services) point(key string, row *plan.Service, flags uint32) (err error) {
	old := s.current(key)
	v := serviceValue{Affinity: seconds(row.Affinity), Flags: flags}
	v.ID, v.Slots, err = s.set(row.Backends, old)
	if err == nil && row.Routed != nil {
		v.RoutedID, v.RoutedSlots, err = s.set(row.Routed.Backends, old)
	}
	if err == nil {
		err = s.table.put(entry{key, encode(v)})
	}
	if err != nil {
		return errors.Join(err, s.forget(v, old))
	}
	return s.forget(old, v)
}

// replace takes a service's old backends away first, as the maps are full, if any is to go.
// If its new ones still find no room, it has those of the old ones that it is to keep.
func (s *services) replace(key string, row *plan.Service, flags uint32, full error) error {
	old := s.current(key)
	keep := func(id uint32, backends []plan.KernelBackend) []string {
		wanted := slotsOf(backends)
		return slices.DeleteFunc(slices.Clone(s.byID[id]), func(b string) bool { return !slices.Contains(wanted, b) })
	}
	own, led := keep(old.ID, row.Backends), []string(nil)
	if row.Routed != nil {
		led = keep(old.RoutedID, row.Routed.Backends)
	}
	if len(own) == int(old.Slots) && len(led) == int(old.RoutedSlots) {
		return full
	}
	v := serviceValue{Affinity: seconds(row.Affinity), Flags: flags}
	if err := errors.Join(s.table.put(entry{key, encode(v)}), s.forget(old, v)); err != nil {
		return err
	}
	if full = s.point(key, row, flags); !isFull(full) {
		return full
	}
	if len(own) > 0 {
		v.ID, v.Slots = s.nextID(), uint32(len(own))
		if err := s.write(v.ID, own); err != nil {
			return err
		}
	}
	if len(led) > 0 {
		v.RoutedID, v.RoutedSlots = s.nextID(), uint32(len(led))
		if err := s.write(v.RoutedID, led); err != nil {
			return err
		}
	}
	return errors.Join(full, s.table.put(entry{key, encode(v)}))
}

// set finds backends among those of the old value, or writes them; the id is 0 if there
// are none. After an error slots may be left under the id.
func (s *services) set(backends []plan.KernelBackend, old serviceValue) (id, n uint32, err error) {
	slots := slotsOf(backends)
	if len(slots) == 0 {
		return 0, 0, nil
	}
	for _, id := range []uint32{old.ID, old.RoutedID} {
		if id != 0 && slices.Equal(slots, s.byID[id]) {
			return id, uint32(len(slots)), nil
		}
	}
	id = s.nextID()
	return id, uint32(len(slots)), s.write(id, slots)
}

func (s *services) remove(key string) error {
	old := s.current(key)
	if err := s.table.remove(key); err != nil {
		return err
	}
	return s.forget(old, serviceValue{})
}

// prune removes the services that are not wanted and the slots of none.
func (s *services) prune(want map[string]bool) error {
	var errs []error
	for key := range s.table.have {
		if !want[key] {
			errs = append(errs, s.remove(key))
		}
	}
	for key := range s.slots.have {
		var k slotKey
		if err := decode(key, &k); err != nil || int(k.Slot) >= len(s.byID[k.ID]) {
			errs = append(errs, s.slots.remove(key))
		}
	}
	return errors.Join(errs...)
}

func (s *services) nextID() uint32 {
	for {
		s.last++
		if s.last != 0 && s.byID[s.last] == nil {
			return s.last
		}
	}
}

func (s *services) write(id uint32, backends []string) error {
	s.byID[id] = backends
	for n, b := range backends {
		if err := s.slots.put(entry{encode(slotKey{id, uint32(n)}), b}); err != nil {
			return err
		}
	}
	return nil
}

// forget removes the slots of a value that are not another's, too.
func (s *services) forget(v, kept serviceValue) error {
	var errs []error
	for _, id := range []uint32{v.ID, v.RoutedID} {
		if id == kept.ID || id == kept.RoutedID {
			continue
		}
		for n := range s.byID[id] {
			errs = append(errs, s.slots.remove(encode(slotKey{id, uint32(n)})))
		}
		delete(s.byID, id)
	}
	return errors.Join(errs...)
}

// seconds rounds up, so that a short affinity does not become none.
func seconds(d time.Duration) uint32 {
	return uint32(min(math.Ceil(d.Seconds()), math.MaxUint32))
}
