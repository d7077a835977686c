// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Names of the maps. A changed layout gets a new name.
const (
	mapServices  = "fl_services_v1"
	mapSlots     = "fl_slots_v1"
	mapReverse   = "fl_reverse_v1"
	mapAffinity  = "fl_affinity_v1"
	mapCaptured  = "fl_captured_v1"
	mapAddresses = "fl_addresses_v1"
	mapPrefixes  = "fl_prefixes_v1"
	mapPolicy    = "fl_policy_v1"
	mapPods      = "fl_pods_v1"
	mapSettings  = "fl_settings_v1"
	mapConntrack = "fl_conntrack_v1"
	mapCounters  = "fl_counters_v1"
	mapEvents    = "fl_events_v1"
)

// The structs below are those of bpf/fl_types.h, byte for byte; a test compares
// them with the types in the compiled programs.

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

// proxyHTTP: captured clients keep the service's address and are redirected.
const proxyHTTP = 1 << 0

type serviceValue struct {
	ID       uint32
	Slots    uint32
	Affinity uint32
	Flags    uint32
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
	addressManaged = 1 << 0
	addressNode    = 1 << 1
)

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
)

type policyValue struct {
	Rule   uint64
	Action uint32
	_      uint32
}

// maxProbes is how many probe ports of a pod the kernel knows.
const maxProbes = 8

type podValue struct {
	Set      uint64
	Ifindex  uint32
	HTTPPort uint16 // host order
	_        uint16
	Probes   [maxProbes]port
}

type settings struct {
	InboundPort uint16 // host order
	Standby     uint16
	_           uint32
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
	_         uint32
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
	return entry{encode(prefixKey{Bits: uint32(bits), Addr: toAddr(p.Prefix.Masked().Addr())}), encode(p.Class)}
}

func serviceEntryKey(s *plan.Service) (string, error) {
	proto, err := transport(s.Protocol)
	if err != nil || proto == 0 {
		return "", fmt.Errorf("service %s: unknown protocol %q", s.Key(), s.Protocol)
	}
	return encode(serviceKey{Addr: toAddr(s.Addr), Port: toPort(s.Port), Proto: proto}), nil
}

// slotsOf gives each backend as many slots as its weight, in the order of the row.
func slotsOf(s *plan.Service) []string {
	var out []string
	for _, b := range s.Backends {
		v := encode(backend{Addr: toAddr(b.Addr.Addr()), Port: toPort(b.Addr.Port())})
		for range b.Weight {
			out = append(out, v)
		}
	}
	return out
}

// podEntry leaves out probe ports beyond those that the kernel has room for.
func podEntry(p *plan.Pod, ifindex int, http uint16) entry {
	v := podValue{Set: p.Set, Ifindex: uint32(ifindex), HTTPPort: http}
	for i, n := range p.ProbePorts[:min(len(p.ProbePorts), maxProbes)] {
		v.Probes[i] = toPort(n)
	}
	return entry{encode(toAddr(p.Addr)), encode(v)}
}
