// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Names of the maps. A changed layout gets a new name.
const (
	mapServices  = "fl_services_v2"
	mapRanges    = "fl_ranges_v1"
	mapSlots     = "fl_slots_v1"
	mapReverse   = "fl_reverse_v1"
	mapAffinity  = "fl_affinity_v1"
	mapCaptured  = "fl_captured_v1"
	mapAddresses = "fl_addresses_v1"
	mapPrefixes  = "fl_prefixes_v2"
	mapPolicy    = "fl_policy_v1"
	mapPods      = "fl_pods_v3"
	mapBridges   = "fl_bridges_v1"
	mapSettings  = "fl_settings_v1"
	mapBank      = "fl_bank_v1"
	mapBankOwn   = "fl_ownbanks_v1"
	mapConntrack = "fl_conntrack_v1"
	mapHeld      = "fl_held_v1"
	mapCounters  = "fl_counters_v1"
	mapEvents    = "fl_events_v1"
)

// The structs below are those of bpf/fl_types.h, byte for byte; a test compares
// them with the types in the compiled programs.

// modePorts are a pod's proxy ports by the number of the mode, in host order. 0: not
// redirected; that of the kernel's own mode is always 0.
type modePorts [12]uint16

// Bits of a captured client beside those of its modes.
const (
	watched   = 1 << 29 // nothing of this is done; what would be is told
	routed    = 1 << 30 // routes hold for what the kernel balances, too
	knownOnly = 1 << 31 // it may connect to services alone
)

// captured reports whether the pod is redirected at all: every captured pod has a
// listener for requests.
func (p modePorts) captured() bool { return p[modeHTTP] != 0 }

// byMode leaves out modes without port.
func (p modePorts) byMode() map[plan.Mode]uint16 {
	var out map[plan.Mode]uint16
	for i, mode := range plan.Modes() {
		if port := p[i+1]; port != 0 {
			if out == nil {
				out = map[plan.Mode]uint16{}
			}
			out[mode] = port
		}
	}
	return out
}

// bits are the modes that have ports, as the kernel has them for a captured client.
func (p modePorts) bits() (out uint32) {
	for mode, port := range p {
		if mode > 0 && mode != podInbound && port != 0 {
			out |= 1 << (mode - 1)
		}
	}
	return out
}

// modeHTTP is the number of plan.HTTP.
const modeHTTP = 1

// podInbound is no mode: there is the inbound port of the pod's own proxy, 0 if it has none.
const podInbound = 11

// modeNumber is 0 for the kernel's own mode.
func modeNumber(m plan.Mode) (uint32, error) {
	if m == plan.Kernel {
		return 0, nil
	}
	i := slices.Index(plan.Modes(), m)
	if i < 0 || i+1 >= podInbound {
		return 0, fmt.Errorf("unknown mode %q", m)
	}
	return uint32(i + 1), nil
}

// portsOf are the ports of a pod's listeners; none as long as that for requests has
// none: the pod is not captured yet.
func portsOf(p *plan.Pod, ports func(listener string) uint16) (modePorts, error) {
	var out modePorts
	for mode, listener := range p.Listeners {
		n, err := modeNumber(mode)
		if err != nil || n == 0 {
			return modePorts{}, fmt.Errorf("pod %s: listener %s of mode %q", p.Name, listener, mode)
		}
		if listener != "" {
			out[n] = ports(listener)
		}
	}
	if !out.captured() {
		out = modePorts{}
	}
	if p.Inbound != "" {
		out[podInbound] = ports(p.Inbound)
	}
	return out, nil
}

// addr is 16 bytes, a v4 address as v4-mapped v6.
type addr [16]byte

// port is in network order.
type port [2]byte

type serviceKey struct {
	Addr  addr
	Port  port
	Proto uint8
	_     uint8
}

// Flags of a service: its mode, whether the kernel leaves its address alone, and whether
// captured clients have backends of their own.
const (
	serviceMode   = 0xf
	serviceDirect = 1 << 4
	serviceRouted = 1 << 5
)

type serviceValue struct {
	ID          uint32
	Slots       uint32
	Affinity    uint32
	Flags       uint32
	RoutedID    uint32 // with RoutedSlots, of serviceRouted
	RoutedSlots uint32
}

// rangeKey is of a service that has a range of addresses; its value is the flags.
type rangeKey struct {
	Bits  uint32 // 32, and those of the address
	Port  port
	Proto uint8
	_     uint8
	Addr  addr
}

type slotKey struct {
	ID   uint32
	Slot uint32
}

type backend struct {
	Addr addr
	Port port
	_    uint16
}

const (
	addressManaged    = 1 << 0
	addressNode       = 1 << 1
	addressUnassigned = 1 << 2 // of prefixes
	addressBehind     = 1 << 3
)

// addressValue is what is known of an address, or of those in a prefix.
type addressValue struct {
	Class uint64
	Flags uint32
	_     uint32
}

type prefixKey struct {
	Bits uint32
	Addr addr
}

const anyClass = ^uint64(0)

type policyKey struct {
	Set   uint64
	Class uint64
	Port  port
	Proto uint8
	_     [5]uint8
}

const (
	actionAllow uint32 = iota + 1
	actionDeny
	actionCheck
	actionRefuse
	actionInbound
)

type policyValue struct {
	Rule   uint64
	Action uint32
	_      uint32
}

// maxProbes is how many probe ports of a pod the kernel knows.
const maxProbes = 8

// Flags of an observed pod: what its policy would refuse goes in; and what it sends is not
// redirected. What would be is told.
const (
	podObserved = 1 << 0
	podDirect   = 1 << 1
	podSettling = 1 << 2 // of one that was observed until now: what is open may end
)

type podValue struct {
	Set     uint64
	Netns   uint64
	Ifindex uint32
	Flags   uint32
	Ports   modePorts
	Probes  [maxProbes]port
}

// bridge is whose port a pod's interface is.
type bridge struct {
	Ifindex uint32
	MAC     [6]byte
	_       [2]uint8
}

type settings struct {
	InboundPort uint16 // host order
	_           [3]uint16
}

type tuple struct {
	Source      addr
	Destination addr
	SourcePort  port
	DestPort    port
	Proto       uint8
	Side        uint8 // of a connection's entry; 0 in events
	_           [2]uint8
}

type event struct {
	Time      uint64
	Class     uint64
	Set       uint64
	Rule      uint64
	Tuple     tuple
	Ifindex   uint32
	Port      uint16 // host order
	Reason    uint8
	Direction uint8
	PID       uint32
	Flags     uint32
	Command   [16]byte
}

func toAddr(a netip.Addr) addr { return a.As16() }

func (a addr) addr() netip.Addr { return netip.AddrFrom16(a).Unmap() }

func toPort(n uint16) (p port) {
	binary.BigEndian.PutUint16(p[:], n)
	return p
}

func (p port) host() uint16 { return binary.BigEndian.Uint16(p[:]) }

// encode gives the bytes that the kernel holds; v is one of the structs above or an
// unsigned integer.
func encode(v any) string {
	b, err := binary.Append(nil, binary.NativeEndian, v)
	if err != nil {
		panic(fmt.Sprintf("datapath: encode %T: %v", v, err)) // not of fixed size
	}
	return string(b)
}

// decode is the reverse of encode; v points to a struct of at most len(b) bytes.
func decode(b string, v any) error {
	if _, err := binary.Decode([]byte(b), binary.NativeEndian, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}

func transport(p model.Protocol) (uint8, error) {
	switch p {
	case model.TCP:
		return 6, nil
	case model.UDP:
		return 17, nil
	case "":
		return 0, nil
	}
	return 0, fmt.Errorf("unknown protocol %q", p)
}

// entry is a key of a map and its value.
type entry struct{ key, value string }

func verdictEntry(v *plan.Verdict) (entry, error) {
	proto, err := transport(v.Proto)
	if err != nil {
		return entry{}, fmt.Errorf("verdict %s: %w", v.Key(), err)
	}
	k := policyKey{Set: v.Set, Class: v.Class, Port: toPort(v.Port), Proto: proto}
	if v.Any {
		k.Class = anyClass
	}
	p := policyValue{Rule: v.Rule}
	switch v.Action {
	case plan.Allow:
		p.Action = actionAllow
	case plan.Deny:
		p.Action = actionDeny
	case plan.Check:
		p.Action = actionCheck
	case plan.Refuse:
		p.Action = actionRefuse
	case plan.OnlyInbound:
		p.Action = actionInbound
	default:
		return entry{}, fmt.Errorf("verdict %s: unknown action %q", v.Key(), v.Action)
	}
	return entry{encode(k), encode(p)}, nil
}

func addressEntry(a *plan.Address) entry {
	v := addressValue{Class: a.Class}
	if a.Managed {
		v.Flags |= addressManaged
	}
	if a.Behind {
		v.Flags |= addressBehind
	}
	if a.Node {
		v.Flags |= addressNode
	}
	return entry{encode(toAddr(a.Addr)), encode(v)}
}

func prefixEntry(p *plan.Prefix) entry {
	bits := p.Prefix.Bits()
	if p.Prefix.Addr().Is4() {
		bits += 96
	}
	v := addressValue{Class: p.Class}
	if p.Unassigned {
		v.Flags |= addressUnassigned
	}
	return entry{encode(prefixKey{Bits: uint32(bits), Addr: toAddr(p.Prefix.Masked().Addr())}), encode(v)}
}

func serviceEntryKey(s *plan.Service) (string, error) {
	proto, err := transport(s.Protocol)
	if err != nil || proto == 0 {
		return "", fmt.Errorf("service %s: unknown protocol %q", s.Key(), s.Protocol)
	}
	return encode(serviceKey{Addr: toAddr(s.Addr), Port: toPort(s.Port), Proto: proto}), nil
}

// serviceFlags are those of the kernel's fl_svc. The unspecified address stands for
// others: whoever dials it means his own host.
func serviceFlags(s *plan.Service) (uint32, error) {
	flags, err := modeNumber(s.Mode)
	if err != nil {
		return 0, fmt.Errorf("service %s: %w", s.Key(), err)
	}
	if s.Direct || s.Addr.IsUnspecified() {
		flags |= serviceDirect
	}
	if s.Routed != nil {
		flags |= serviceRouted
	}
	return flags, nil
}

// rangeEntry is that of a service with a range of addresses.
func rangeEntry(s *plan.Service) (entry, error) {
	proto, err := transport(s.Protocol)
	if err != nil || proto == 0 {
		return entry{}, fmt.Errorf("service %s: unknown protocol %q", s.Key(), s.Protocol)
	}
	flags, err := serviceFlags(s)
	if err != nil {
		return entry{}, err
	}
	bits := 32 + uint32(s.Bits)
	if s.Addr.Is4() {
		bits += 96
	}
	return entry{encode(rangeKey{Bits: bits, Port: toPort(s.Port), Proto: proto, Addr: toAddr(s.Addr)}), encode(flags)}, nil
}

// slotsOf gives each backend as many slots as its weight, in their order.
func slotsOf(backends []plan.KernelBackend) []string {
	var out []string
	for _, b := range backends {
		v := encode(backend{Addr: toAddr(b.Addr.Addr()), Port: toPort(b.Addr.Port())})
		for range b.Weight {
			out = append(out, v)
		}
	}
	return out
}

// place is where a pod is on the node.
type place struct {
	ifindex int
	cookie  uint64 // of its network namespace, 0 if nobody asks for it
	// turning: it is observed, or is not, since a moment. What it dialled as a captured
	// pod may still be on its way, and what is open to it without the proxy may end.
	turning bool
}

// podEntry leaves out probe ports beyond those that the kernel has room for.
func podEntry(p *plan.Pod, at place, ports modePorts) entry {
	v := podValue{Set: p.Set, Netns: at.cookie, Ifindex: uint32(at.ifindex), Ports: ports}
	switch {
	case p.Observed && at.turning:
		v.Flags = podObserved
	case p.Observed:
		v.Flags = podObserved | podDirect
	case at.turning:
		v.Flags = podSettling
	}
	for i, n := range p.ProbePorts[:min(len(p.ProbePorts), maxProbes)] {
		v.Probes[i] = toPort(n)
	}
	return entry{encode(toAddr(p.Addr)), encode(v)}
}
