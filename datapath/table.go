// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// kernelMap is what a table needs of an *ebpf.Map.
type kernelMap interface {
	Update(key, value any, flags ebpf.MapUpdateFlags) error
	Delete(key any) error
}

// table is a kernel map together with what is known to stand in it, so that only
// differences are written. Nobody else may write the map meanwhile. Not safe for
// concurrent use.
type table struct {
	name   string
	kernel kernelMap
	max    uint32 // entries; 0: not known
	have   map[string]string
	writes uint64
}

func (t *table) put(e entry) error {
	if v, ok := t.have[e.key]; ok && v == e.value {
		return nil
	}
	err := t.kernel.Update([]byte(e.key), []byte(e.value), ebpf.UpdateAny)
	if _, ok := t.have[e.key]; ok && errors.Is(err, unix.ENOSPC) {
		// Before Linux 6.13 a full trie does not change what it has, either. A kernel without
		// memory says something else: what is taken away then might not come back.
		if err := t.remove(e.key); err != nil {
			return err
		}
		err = t.kernel.Update([]byte(e.key), []byte(e.value), ebpf.UpdateAny)
	}
	if isFull(err) {
		return &fullError{t.name, t.max, err}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", t.name, err)
	}
	t.have[e.key] = e.value
	t.writes++
	return nil
}

func (t *table) remove(key string) error {
	if _, ok := t.have[key]; !ok {
		return nil
	}
	if err := t.kernel.Delete([]byte(key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete from %s: %w", t.name, err)
	}
	delete(t.have, key)
	t.writes++
	return nil
}

// prune removes every key that is not wanted.
func (t *table) prune(want map[string]bool) error {
	var errs []error
	for k := range t.have {
		if !want[k] {
			errs = append(errs, t.remove(k))
		}
	}
	return errors.Join(errs...)
}

// read returns what stands in a map.
func read(m *ebpf.Map) (map[string]string, error) {
	out := map[string]string{}
	var k, v []byte
	it := m.Iterate()
	for it.Next(&k, &v) {
		out[string(k)] = string(v)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read map: %w", err)
	}
	return out, nil
}
