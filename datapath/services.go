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
// client sees the old backends or the new ones.
type services struct {
	table *table // fl_services_v1
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
		s.last = max(s.last, v.ID)
		backends := make([]string, 0, v.Slots)
		for n := range v.Slots {
			if b, ok := s.slots.have[encode(slotKey{v.ID, n})]; ok {
				backends = append(backends, b)
			}
		}
		if len(backends) != int(v.Slots) || s.byID[v.ID] != nil {
			s.table.have[key] = unusable
			continue
		}
		if v.Slots > 0 {
			s.byID[v.ID] = backends
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
	old, backends := s.current(key), slotsOf(row)
	v := serviceValue{Slots: uint32(len(backends)), Affinity: seconds(row.Affinity), Flags: flags}
	switch {
	case len(backends) == 0:
	case old.ID != 0 && slices.Equal(backends, s.byID[old.ID]):
		v.ID = old.ID
	default:
		v.ID = s.nextID()
		if err := s.write(v.ID, backends); err != nil {
			return key, fmt.Errorf("service %s: %w", row.Key(), errors.Join(err, s.forget(v.ID)))
		}
	}
	if err := s.table.put(entry{key, encode(v)}); err != nil {
		if v.ID != old.ID {
			err = errors.Join(err, s.forget(v.ID))
		}
		return key, fmt.Errorf("service %s: %w", row.Key(), err)
	}
	if v.ID == old.ID {
		return key, nil
	}
	return key, s.forget(old.ID)
}

func (s *services) remove(key string) error {
	old := s.current(key)
	if err := s.table.remove(key); err != nil {
		return err
	}
	return s.forget(old.ID)
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

func (s *services) forget(id uint32) error {
	var errs []error
	for n := range s.byID[id] {
		errs = append(errs, s.slots.remove(encode(slotKey{id, uint32(n)})))
	}
	delete(s.byID, id)
	return errors.Join(errs...)
}

// seconds rounds up, so that a short affinity does not become none.
func seconds(d time.Duration) uint32 {
	return uint32(min(math.Ceil(d.Seconds()), math.MaxUint32))
}
