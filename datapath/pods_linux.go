// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"fairlead.io/fairlead/model/plan"
)

// pods keeps local pods in the kernel: their entries, the programs on the host's
// end of their veths, and which network namespaces are captured. A pod whose
// interface is not there yet is pending and tried again. Not safe for concurrent
// use.
type pods struct {
	table    *table // fl_pods_v3
	captured *table // fl_captured_v1
	bridges  *table // fl_bridges_v1
	links    *links
	places   map[netip.Addr]Place
	netnsDir string
	uplinks  func() map[int]bool // by index
	kernel   interfaces
	log      *slog.Logger
	byName   map[string]*pod
	byAddr   map[netip.Addr]*pod
	clients  *clients
}

type pod struct {
	name    string
	rows    map[netip.Addr]podRow
	guarded bool        // entries and programs are there
	iface   interfaceOf // index 0: not found
	cookie  uint64      // of its network namespace; 0: not known
	stale   bool        // something was put since it was last written
	pending error       // why it is tried again
	unseen  bool        // whether its interface is there cannot be told now
	said    string      // reason that was logged last
	ready   bool        // was said to be
	warning string
	// turned is when it became observed, or ceased to be; zero: long ago.
	turned time.Time
}

// turnTime is for how long after that what it dialled is redirected, and what is open to it
// is left to end: less than the second in which a change has to hold.
const turnTime = 500 * time.Millisecond

type podRow struct {
	row   *plan.Pod
	ports modePorts
}

// ports are the pod's outbound proxy ports; its rows have the same.
func (p *pod) ports() (out modePorts) {
	for _, r := range p.rows {
		for mode, port := range r.ports {
			out[mode] = max(out[mode], port)
		}
	}
	return out
}

// bits are what the kernel has about what it dials, 0 if it is not captured. Routes that
// the kernel follows need no port of the proxy.
func (p *pod) bits() uint32 {
	bits := p.ports().bits()
	for _, r := range p.rows {
		if len(r.row.Listeners) > 0 {
			bits |= routed
		}
		if r.row.KnownOnly && r.ports.captured() {
			bits |= knownOnly
		}
	}
	if bits != 0 && p.observed() {
		bits |= watched
	}
	return bits
}

// observed: all its rows say so.
func (p *pod) observed() bool {
	for _, r := range p.rows {
		return r.row.Observed
	}
	return false
}

// waits says that the pod's listener for requests has no port yet.
func (p *pod) waits() bool {
	for _, r := range p.rows {
		if r.row.Listeners[plan.HTTP] != "" && !r.ports.captured() {
			return true
		}
	}
	return false
}

// uid is the API server's; "" if its source does not say.
func (p *pod) uid() string {
	for _, r := range p.rows {
		return r.row.UID // all have the same
	}
	return ""
}

func (p *pod) addresses() []netip.Addr {
	return slices.SortedFunc(maps.Keys(p.rows), netip.Addr.Compare)
}

func (s *pods) put(row *plan.Pod, ports modePorts) {
	if old := s.byAddr[row.Addr]; old != nil && old.name != row.Name {
		delete(old.rows, row.Addr) // the address is another pod's now
	}
	p := s.byName[row.Name]
	if p == nil {
		p = &pod{name: row.Name, rows: map[netip.Addr]podRow{}}
		s.byName[row.Name] = p
	}
	p.rows[row.Addr] = podRow{row, ports}
	p.stale = true
	s.byAddr[row.Addr] = p
}

func (s *pods) remove(row *plan.Pod) {
	p := s.byAddr[row.Addr]
	if p == nil || p.name != row.Name {
		return
	}
	delete(p.rows, row.Addr)
	delete(s.byAddr, row.Addr)
}

func (s *pods) keep(rows []*plan.Pod) {
	want := map[netip.Addr]bool{}
	for _, r := range rows {
		want[r.Addr] = true
	}
	for a, p := range s.byAddr {
		if !want[a] {
			delete(p.rows, a)
			delete(s.byAddr, a)
		}
	}
}

func (s *pods) sets() map[string]uint64 { return setsOf(s.table) }

// settle writes the pods that were put since.
func (s *pods) settle() { s.tend(func(p *pod) bool { return p.stale }) }

// retry tries the pending pods again and reports whether some still are.
func (s *pods) retry() bool {
	s.tend(func(p *pod) bool { return p.unfinished() })
	s.prune()
	return s.anyPending()
}

// look looks at all pods: interfaces came or went.
func (s *pods) look() bool {
	s.tend(func(*pod) bool { return true })
	s.prune()
	return s.anyPending()
}

func (s *pods) anyPending() bool {
	for _, p := range s.byName {
		if p.unfinished() {
			return true
		}
	}
	return false
}

// unfinished: the pod has to be written again.
func (p *pod) unfinished() bool { return p.pending != nil || !p.turned.IsZero() }

func (s *pods) tend(which func(*pod) bool) {
	f := &finder{places: s.places, dir: s.netnsDir, uplinks: s.uplinks(), kernel: s.kernel}
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		p := s.byName[name]
		if len(p.rows) == 0 || !which(p) {
			continue
		}
		p.stale, p.guarded, p.unseen = false, false, false
		p.pending = s.write(p, f)
		s.say(p)
	}
	s.clients.put(s.byName)
}

// reason says why the pod is not ready, "" if it is.
func (p *pod) reason() string {
	switch {
	case p.pending != nil:
		return p.pending.Error()
	case p.waits():
		return "its requests are not redirected yet: its listener has no port"
	}
	return ""
}

// say logs what has changed for a pod.
func (s *pods) say(p *pod) {
	switch reason := p.reason(); {
	case reason == "" && !p.ready:
		s.log.Info("pod is ready", "pod", p.name, "interface", p.iface.name, "proxyPort", p.ports()[modeHTTP])
		p.ready, p.said = true, ""
	case reason != "" && reason != p.said:
		s.log.Info("pod is not ready", "pod", p.name, "reason", reason)
		p.ready, p.said = false, reason
	}
	warning := ""
	for _, a := range p.addresses() {
		if ports := p.rows[a].row.ProbePorts; len(ports) > maxProbes {
			warning = fmt.Sprintf("probe ports %v are judged by policy: there is room for %d", ports[maxProbes:], maxProbes)
		}
	}
	if warning != "" && warning != p.warning {
		s.log.Warn("pod has too many probe ports", "pod", p.name, "reason", warning)
	}
	p.warning = warning
}

// write brings a pod into the kernel: its entries, then the programs that judge by
// them, then its capture, which needs both.
func (s *pods) write(p *pod, f *finder) error {
	iface, notFound := f.find(p.addresses(), p.uid())
	if notFound != nil {
		// What was found earlier, perhaps by an earlier process, goes on being right
		// while it is there.
		if had, ok := s.known(p); ok {
			var err error
			if iface, err = f.describe(int(had.Ifindex)); unanswered(err) {
				p.unseen = true // it keeps what it has
				return err
			}
		}
	}
	if iface.index != p.iface.index || iface.nsid != p.iface.nsid {
		p.cookie = 0
	}
	p.iface = iface
	if iface.index == 0 {
		return notFound
	}
	if err := s.release(p); err != nil {
		return err
	}
	own := uint64(0) // its namespace, which it may reach though it is held to services
	if p.bits()&knownOnly != 0 {
		if p.cookie == 0 {
			p.cookie, _ = f.cookie(p.iface, p.addresses()) // if it is not found, capture says so
		}
		own = p.cookie
	}
	switch had, ok := s.known(p); {
	case ok && had.Flags&podObserved != 0 != p.observed():
		p.turned = time.Now()
	case time.Since(p.turned) > turnTime:
		p.turned = time.Time{}
	}
	at := place{ifindex: p.iface.index, cookie: own, turning: !p.turned.IsZero()}
	for _, a := range p.addresses() {
		if err := s.table.put(podEntry(p.rows[a].row, at, p.rows[a].ports)); err != nil {
			return err
		}
	}
	if b := iface.bridge; b.index != 0 {
		if err := s.links.interfaceProgram(progFromBridge, b.index, b.name); err != nil {
			return err
		}
		if err := s.bridges.put(bridgeEntry(iface)); err != nil {
			return err
		}
	}
	for _, program := range []string{progToPod, progFromPod} {
		if err := s.links.interfaceProgram(program, p.iface.index, p.iface.name); err != nil {
			return err
		}
	}
	captured := s.capture(p, f)
	p.guarded = notFound == nil && (captured == nil && !p.waits() || !p.knownOnly())
	return errors.Join(notFound, captured)
}

// knownOnly says that the pod is held to services: what it sends is judged where it is
// captured.
func (p *pod) knownOnly() bool {
	for _, r := range p.rows {
		if r.row.KnownOnly {
			return true
		}
	}
	return false
}

// known is the first of the pod's entries, false if it has none.
func (s *pods) known(p *pod) (v podValue, ok bool) {
	for _, a := range p.addresses() {
		if decode(s.table.have[encode(toAddr(a))], &v) == nil {
			return v, true
		}
	}
	return podValue{}, false
}

// capture says that what the pod dials is routed: by the proxy in the modes that have
// ports, and by the kernel.
func (s *pods) capture(p *pod, f *finder) error {
	bits := p.bits()
	if bits == 0 {
		return nil
	}
	if p.cookie == 0 {
		c, err := f.cookie(p.iface, p.addresses())
		if err != nil {
			return fmt.Errorf("what it sends is not routed: %w", err)
		}
		p.cookie = c
	}
	return s.captured.put(entry{encode(p.cookie), encode(bits)})
}

// release ends the capture of a pod's namespace in the modes that have no port any
// more, or in all if the pod is observed; from then on what it dials is balanced at once
// and needs no redirect.
func (s *pods) release(p *pod) error {
	if p.cookie == 0 {
		return nil
	}
	key, bits := encode(p.cookie), p.bits()
	if s.wanted().captured[key] {
		var have uint32
		if bits == 0 || decode(s.captured.have[key], &have) != nil {
			return nil // another pod has it, or nobody yet
		}
		return s.captured.put(entry{key, encode(have&bits | (have|bits)&watched)})
	}
	if err := s.captured.remove(key); err != nil {
		return err
	}
	p.cookie = 0
	return nil
}

type wantedPods struct {
	entries  map[string]bool
	captured map[string]bool
	bridges  map[string]bool
	links    map[string]bool
}

// wanted is what the kernel should have for the pods that were found.
func (s *pods) wanted() wantedPods {
	w := wantedPods{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, p := range s.byName {
		if p.iface.index == 0 || len(p.rows) == 0 {
			continue
		}
		for a := range p.rows {
			w.entries[encode(toAddr(a))] = true
		}
		if b := p.iface.bridge; b.index != 0 {
			w.bridges[bridgeEntry(p.iface).key] = true
			w.links[pinName(progFromBridge, b.index)] = true
		}
		w.links[pinName(progToPod, p.iface.index)] = true
		w.links[pinName(progFromPod, p.iface.index)] = true
		if p.cookie != 0 && p.bits() != 0 {
			w.captured[encode(p.cookie)] = true
		}
	}
	return w
}

// prune takes away what no pod wants: capture first, so that nobody dials what is
// no longer redirected.
func (s *pods) prune() {
	for name, p := range s.byName {
		if len(p.rows) == 0 {
			delete(s.byName, name)
		}
	}
	for _, p := range s.byName {
		if p.unseen {
			return // what has no pod goes when it can be told; the pod is pending
		}
	}
	w := s.wanted()
	w.links[pinName(progFromNode, loopback)] = true
	for i := range s.uplinks() {
		w.links[pinName(progFromNet, i)] = true
		w.links[pinName(progToNet, i)] = true
	}
	err := errors.Join(s.captured.prune(w.captured), s.links.prune(w.links), s.bridges.prune(w.bridges), s.table.prune(w.entries))
	if err != nil {
		s.log.Warn("take away pods", "error", err)
	}
}

func (s *pods) status() []PodStatus {
	var out []PodStatus
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		out = append(out, s.byName[name].status())
	}
	return out
}

func (p *pod) status() PodStatus {
	reason := p.reason()
	return PodStatus{
		Name: p.name, Addresses: p.addresses(), Interface: p.iface.name, ProxyPorts: p.ports().byMode(),
		Ready: reason == "", Guarded: p.guarded, Reason: reason, Warning: p.warning, Observed: p.observed(),
	}
}
