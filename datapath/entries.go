// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
)

// Entry is an entry of a kernel map, in hex.
type Entry struct {
	Map   string `json:"map"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Entries gives what a node's maps hold for these rows when they are written to
// empty maps, sorted by map and key. It touches no kernel and runs anywhere.
// Interface numbers, which only a node knows, are 0.
func Entries(all []incr.Row, ports func(listener string) uint16) ([]Entry, error) {
	mem := func(name string) *table { return &table{name: name, kernel: noKernel{}, have: map[string]string{}} }
	tables := []*table{mem(mapPolicy), mem(mapAddresses), mem(mapPrefixes), mem(mapPods), mem(mapServices), mem(mapSlots), mem(mapRanges)}
	r := &rows{policy: tables[0], addresses: tables[1], prefixes: tables[2], pods: (*unplaced)(tables[3]), ranges: tables[6],
		services: &services{table: tables[4], slots: tables[5], byID: map[uint32][]string{}}}
	// Services are numbered as they come: let that be in the order of their keys.
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b incr.Row) int { return strings.Compare(a.Key, b.Key) })
	if err := r.sync(context.Background(), all, ports); err != nil {
		return nil, err
	}
	var out []Entry
	for _, t := range tables {
		for k, v := range t.have {
			out = append(out, Entry{t.name, hex.EncodeToString([]byte(k)), hex.EncodeToString([]byte(v))})
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		if c := strings.Compare(a.Map, b.Map); c != 0 {
			return c
		}
		return strings.Compare(a.Key, b.Key)
	})
	return out, nil
}

// noKernel is a map that keeps nothing: the table remembers.
type noKernel struct{}

func (noKernel) Update(any, any, ebpf.MapUpdateFlags) error { return nil }
func (noKernel) Delete(any) error                           { return nil }

// unplaced takes pods without interfaces.
type unplaced table

func (u *unplaced) put(row *plan.Pod, ports modePorts) {
	e := podEntry(row, place{}, ports)
	u.have[e.key] = e.value
}
func (u *unplaced) remove(row *plan.Pod)    { delete(u.have, podEntry(row, place{}, modePorts{}).key) }
func (u *unplaced) keep([]*plan.Pod)        {}
func (u *unplaced) settle()                 {}
func (u *unplaced) sets() map[string]uint64 { return nil }
func (u *unplaced) prune()                  {}
