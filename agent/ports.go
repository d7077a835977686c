// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/model/plan"
)

// Proxy ports are taken from here, on the loopback addresses of the node.
const (
	firstPort = 15100
	lastPort  = 15999
	// portRest is how long a port that was given back is not used again, so that a
	// connection that is still on its way does not meet another listener.
	portRest = 5 * time.Minute
)

// ports gives each listener a port and keeps it over restarts. Not safe for
// concurrent use.
type ports struct {
	file    string
	now     func() time.Time
	state   portState
	unsaved bool // the file is not as state is; see flush
}

type portState struct {
	Used    map[string]uint16    `json:"used"`
	Resting map[uint16]time.Time `json:"resting"`
	// Live are listeners that Envoy acknowledged; their connections are redirected.
	Live map[string]bool `json:"live"`
	// Slots are of proxies that namespaces have of their own; one that was given back rests
	// as ports do.
	Slots        map[string]int    `json:"slots,omitempty"`
	RestingSlots map[int]time.Time `json:"restingSlots,omitempty"`
}

// openPorts reads what an earlier agent gave out. A file that cannot be read as
// what it is stands for none: its ports are found out by whoever binds them.
func openPorts(file string, now func() time.Time) (*ports, error) {
	p := &ports{file: file, now: now, state: portState{Used: map[string]uint16{}, Resting: map[uint16]time.Time{}, Live: map[string]bool{}}}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read proxy ports: %w", err)
	}
	var s portState
	if err := json.Unmarshal(b, &s); err == nil && s.valid() {
		p.state = s
	}
	return p, nil
}

func (s portState) valid() bool {
	seen := map[uint16]bool{}
	for _, n := range s.Used {
		first, last := rangeOf(s.slotOf(n))
		if n < first || n > last || seen[n] {
			return false
		}
		seen[n] = true
	}
	slots := map[int]bool{}
	for _, slot := range s.Slots {
		if slot < 1 || slot > datapath.Slots || slots[slot] {
			return false
		}
		slots[slot] = true
	}
	return s.Used != nil && s.Resting != nil && s.Live != nil
}

// get is the listener's port, 0 if it has none.
func (p *ports) get(listener string) uint16 { return p.state.Used[listener] }

// allocate gives the listener its port: the one it has, or the lowest that is
// neither used nor resting, or else the one that has rested longest.
func (p *ports) allocate(listener string) (uint16, error) {
	if n, ok := p.state.Used[listener]; ok {
		return n, nil
	}
	slot := 0
	if _, proxy := plan.SharedName(listener); proxy != "" {
		slot = p.state.Slots[proxy] // 0: it shares the node's
	}
	first, last := rangeOf(slot)
	taken := map[uint16]bool{}
	for _, n := range p.state.Used {
		taken[n] = true
	}
	rested := uint16(0)
	for n := first; n <= last; n++ {
		until, resting := p.state.Resting[n]
		if taken[n] {
			continue
		}
		if !resting || !p.now().Before(until) {
			return p.use(listener, n), nil
		}
		if rested == 0 || until.Before(p.state.Resting[rested]) {
			rested = n
		}
	}
	if rested == 0 {
		return 0, fmt.Errorf("allocate proxy port for %s: all of %d-%d are in use", listener, first, last)
	}
	return p.use(listener, rested), nil
}

// rangeOf are the first and the last port of a slot; 0 is the node's proxy.
func rangeOf(slot int) (first, last uint16) {
	if slot == 0 {
		return firstPort, lastPort
	}
	first = datapath.SlotPort(slot)
	return first, first + datapath.SlotPorts - 1
}

func (s portState) slotOf(port uint16) int {
	if port < datapath.SlotPort(1) {
		return 0
	}
	return int(port-datapath.SlotPort(1))/datapath.SlotPorts + 1
}

// allocateSlot gives the proxy of a namespace its slot: the one it has, or the lowest that
// is neither used nor resting, or else the one that has rested longest.
func (p *ports) allocateSlot(proxy string) (int, error) {
	if slot, ok := p.state.Slots[proxy]; ok {
		return slot, nil
	}
	taken := map[int]bool{}
	for _, slot := range p.state.Slots {
		taken[slot] = true
	}
	rested := 0
	for slot := 1; slot <= datapath.Slots; slot++ {
		until, resting := p.state.RestingSlots[slot]
		switch {
		case taken[slot]:
		case !resting || !p.now().Before(until):
			return p.useSlot(proxy, slot), nil
		case rested == 0 || until.Before(p.state.RestingSlots[rested]):
			rested = slot
		}
	}
	if rested == 0 {
		return 0, fmt.Errorf("a node has room for %d proxies of namespaces: %s shares the node's", datapath.Slots, proxy)
	}
	return p.useSlot(proxy, rested), nil
}

func (p *ports) useSlot(proxy string, slot int) int {
	if p.state.Slots == nil {
		p.state.Slots = map[string]int{}
	}
	p.state.Slots[proxy], p.unsaved = slot, true
	delete(p.state.RestingSlots, slot)
	return slot
}

// releaseSlot gives back the slot of a proxy that has ended.
func (p *ports) releaseSlot(proxy string) {
	slot, ok := p.state.Slots[proxy]
	if !ok {
		return
	}
	if p.state.RestingSlots == nil {
		p.state.RestingSlots = map[int]time.Time{}
	}
	delete(p.state.Slots, proxy)
	p.state.RestingSlots[slot], p.unsaved = p.now().Add(portRest), true
}

func (p *ports) use(listener string, n uint16) uint16 {
	p.state.Used[listener], p.unsaved = n, true
	delete(p.state.Resting, n)
	return n
}

// release gives the listener's port back; it rests before it is used again.
func (p *ports) release(listener string) {
	n, ok := p.state.Used[listener]
	if !ok {
		return
	}
	delete(p.state.Used, listener)
	delete(p.state.Live, listener)
	p.state.Resting[n] = p.now().Add(portRest)
	p.unsaved = true
}

// live reports whether Envoy has acknowledged the listener.
func (p *ports) live(listener string) bool { return p.state.Live[listener] }

// anyLive reports whether Envoy has acknowledged some listener, now or for an
// earlier agent.
func (p *ports) anyLive() bool { return len(p.state.Live) > 0 }

// setLive records that Envoy has the listener; the next agent relies on it.
func (p *ports) setLive(listener string) {
	if !p.state.Live[listener] {
		p.state.Live[listener], p.unsaved = true, true
	}
}

// listeners are the names that have a port, sorted.
func (p *ports) listeners() []string { return slices.Sorted(maps.Keys(p.state.Used)) }

// flush saves what has changed. A file that cannot be written stops nobody: it is
// tried again, and until then the next agent may give out other ports.
func (p *ports) flush() error {
	if !p.unsaved {
		return nil
	}
	b, err := json.MarshalIndent(p.state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode proxy ports: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(p.file), "."+filepath.Base(p.file)+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write proxy ports: %w", err)
	}
	if err := os.Rename(tmp, p.file); err != nil {
		return fmt.Errorf("write proxy ports: %w", err)
	}
	p.unsaved = false
	return nil
}
