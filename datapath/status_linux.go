// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Status reads the kernel: what is attached, what the host has, how full the maps
// are. Features were probed by Open.
func (d *Datapath) Status() (Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := Status{
		Cgroup:   Attached{Name: d.opt.Cgroup, Programs: d.links.on(0)},
		Features: slices.Clone(d.features),
		Pods:     d.pods.status(),
	}
	st.Interfaces = d.interfaces()
	host, err := d.host.status()
	if err != nil {
		return st, err
	}
	st.Host = append(host, pinned(d.opt.PinDir))
	if st.Bank, err = d.objects.bank(); err != nil {
		return st, err
	}
	counters, err := d.counters()
	if err != nil {
		return st, err
	}
	st.Counters = counters
	st.Lost = counters[Reasons()[lostEvents]]
	delete(st.Counters, Reasons()[lostEvents])
	st.Maps, err = d.fill()
	return st, err
}

// pinned is whether what outlives this process still lies where it was put.
func pinned(dir string) Need {
	n := Need{Name: "pins in " + dir}
	var st unix.Statfs_t
	_, err := os.Stat(filepath.Join(dir, linkDir))
	switch {
	case err == nil:
		err = unix.Statfs(dir, &st)
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("they are gone: was the BPF file system unmounted?")
	}
	if err == nil && st.Type != unix.BPF_FS_MAGIC {
		err = errors.New("this is no BPF file system")
	}
	if n.OK = err == nil; !n.OK {
		n.Detail = err.Error() + ". What is in the kernel goes on as long as this agent runs, and takes changes; with its end policy and redirects end." +
			" Mount it (mount -t bpf bpf PATH) and restart the agent: it attaches everything anew"
	}
	return n
}

// Pod is the state of a local pod (ns/name); ok is false if it is not known, or has not
// been written since it changed.
func (d *Datapath) Pod(name string) (_ PodStatus, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pods.byName[name]
	if p == nil || p.stale || len(p.rows) == 0 {
		return PodStatus{}, false
	}
	return p.status(), true
}

func (d *Datapath) interfaces() []Attached {
	names := map[string]Attached{loopbackName: {Name: loopbackName, Ifindex: loopback, Programs: d.links.on(loopback)}}
	for _, name := range d.opt.Uplinks {
		a := Attached{Name: name, Programs: []string{}, Reason: d.missing[name]}
		for i := range d.uplinksByName(name) {
			a.Ifindex, a.Programs = i, d.links.on(i)
		}
		names[name] = a
	}
	for i, o := range d.overlays {
		names[o.name] = Attached{Name: o.name, Ifindex: i, Programs: d.links.on(i), Reason: d.missing[o.name]}
	}
	for _, p := range d.pods.byName {
		if p.iface.index != 0 {
			names[p.iface.name] = Attached{Name: p.iface.name, Ifindex: p.iface.index, Programs: d.links.on(p.iface.index)}
			if b := p.iface.bridge; b.index != 0 {
				names[b.name] = Attached{Name: b.name, Ifindex: b.index, Programs: d.links.on(b.index)}
			}
		}
	}
	return slices.SortedFunc(maps.Values(names), func(a, b Attached) int { return strings.Compare(a.Name, b.Name) })
}

// LostFlows is how many flows the kernel's ring had no room for since its maps were made.
func (d *Datapath) LostFlows() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counter(lostEvents)
}

// counters are the sums over processors, by reason, of those that are not 0.
func (d *Datapath) counters() (map[string]uint64, error) {
	m := d.objects.maps[mapCounters]
	out := map[string]uint64{}
	for i, name := range Reasons()[:min(len(Reasons()), int(m.MaxEntries()))] {
		n, err := d.counter(i)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			out[name] = n
		}
	}
	return out, nil
}

// counter is the sum over processors of one reason.
func (d *Datapath) counter(reason int) (sum uint64, err error) {
	var perCPU []uint64
	if err := d.objects.maps[mapCounters].Lookup(uint32(reason), &perCPU); err != nil {
		return 0, fmt.Errorf("read %s: %w", mapCounters, err)
	}
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}

// fill counts entries: what we write is known, what the programs write is counted.
func (d *Datapath) fill() ([]MapStatus, error) {
	known := map[string]*table{}
	for _, t := range d.tables() {
		known[t.name] = t
	}
	var out []MapStatus
	for _, name := range slices.Sorted(maps.Keys(d.objects.maps)) {
		m := d.objects.maps[name]
		st := MapStatus{Name: name, Max: int(m.MaxEntries())}
		switch t := known[name]; {
		case t != nil:
			st.Entries, st.Writes = len(t.have), t.writes
		case m.Type() == ebpf.LRUHash:
			n, err := countEntries(m)
			if err != nil {
				return nil, fmt.Errorf("count %s: %w", name, err)
			}
			st.Entries = n
		default:
			continue // counters and the ring of events have no entries
		}
		out = append(out, st)
	}
	return out, nil
}

// almostFull is the share of a map's room, in hundredths, above which it is told of.
const almostFull = 90

// Room looks how much room is left in the maps that hold the plan. What does not fit is
// left out, and refused.
func (d *Datapath) Room() []Finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Finding
	for _, t := range d.tables() {
		if t != d.settings { // an array
			out = append(out, room(t.name, len(t.have), int(t.max)))
		}
	}
	return out
}

// room says the same while it is about the same: it is told whenever it is something else.
func room(name string, entries, limit int) Finding {
	f := Finding{Name: "room in " + name, Level: Fine}
	advice := "its size is fixed; deploy/README.md says what takes how much of it"
	switch {
	case entries >= limit:
		f.Level, f.Detail, f.Advice = Problem, fmt.Sprintf("all %d entries are taken: what else there is is left out, and refused", limit), advice
	case entries*100 > limit*almostFull:
		f.Level, f.Detail, f.Advice = Warning, fmt.Sprintf("more than %d %% of %d entries are taken", almostFull, limit), advice
	}
	return f
}

const countBatch = 1024

func countEntries(m *ebpf.Map) (int, error) {
	var cursor ebpf.MapBatchCursor
	keys, values := slotsFor(m.KeySize()), slotsFor(m.ValueSize())
	total := 0
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		total += n
		if errors.Is(err, ebpf.ErrKeyNotExist) { // that was the last batch
			return total, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// slotsFor makes room for a batch of things of a size that is known only now.
func slotsFor(size uint32) any {
	one := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(one), countBatch, countBatch).Interface()
}
