// SPDX-License-Identifier: Apache-2.0

// Package packet describes Ethernet frames for tests and writes them down with
// correct lengths and checksums, the malformed ones too.
//
//	packet.TCP(client, server, packet.SYN).Seq(7, 0).Payload("hello").Bytes()
//
// A Packet is a value: its methods return changed copies. The family follows the
// addresses; a v4-mapped address makes a packet of version 6.
package packet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Flags are TCP's.
type Flags uint8

// Flags of TCP.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Protocol numbers of headers behind the IP header.
const (
	HopByHop   = 0
	ICMPv4     = 1
	IPIP       = 4
	SixInFour  = 41
	Routing    = 43
	FragmentV6 = 44
	GRE        = 47
	AH         = 51
	ICMPv6     = 58
	DestOpts   = 60
	SCTP       = 132
	Mobility   = 135
)

const (
	protoTCP = 6
	protoUDP = 17
)

type extension struct {
	proto uint8
	data  []byte // the first byte is set when the next header is known
}

// Packet is a frame to be.
type Packet struct {
	reversed  bool // Ethernet addresses
	tags      []uint16
	ether     uint16 // other than IP, with payload
	src, dst  netip.Addr
	ttl       uint8
	options   []byte // v4
	ext       []extension
	offset    uint16 // in bytes
	more      bool
	proto     uint8
	sp, dp    uint16
	seq, ack  uint32
	flags     Flags
	mss       bool     // the option of this name
	icmp      [2]uint8 // type and code
	icmpID    uint16
	isErrorOf *Packet
	noSum     bool
	payload   []byte
	cut       int // bytes that are left, -1: all
}

func ip(src, dst netip.Addr, proto uint8) Packet {
	if src.Is4() != dst.Is4() {
		panic("packet: " + src.String() + " and " + dst.String() + " are of different families")
	}
	return Packet{src: src, dst: dst, ttl: 64, proto: proto, cut: -1}
}

// TCP is a segment, with one option if it is made with SYN.
func TCP(src, dst netip.AddrPort, flags Flags) Packet {
	p := ip(src.Addr(), dst.Addr(), protoTCP)
	p.sp, p.dp, p.flags, p.seq, p.mss = src.Port(), dst.Port(), flags, 1000, flags&SYN != 0
	return p
}

// UDP is a datagram.
func UDP(src, dst netip.AddrPort) Packet {
	p := ip(src.Addr(), dst.Addr(), protoUDP)
	p.sp, p.dp = src.Port(), dst.Port()
	return p
}

// Echo is a ping, EchoReply what answers it.
func Echo(src, dst netip.Addr, id uint16) Packet {
	return icmp(src, dst, pick(src, layers.ICMPv4TypeEchoRequest, layers.ICMPv6TypeEchoRequest), 0, id)
}

// EchoReply answers an Echo.
func EchoReply(src, dst netip.Addr, id uint16) Packet {
	return icmp(src, dst, pick(src, layers.ICMPv4TypeEchoReply, layers.ICMPv6TypeEchoReply), 0, id)
}

// ICMP is any message; the four bytes behind its checksum are id and a number.
func ICMP(src, dst netip.Addr, kind, code uint8, id uint16) Packet {
	return icmp(src, dst, kind, code, id)
}

// Unreachable says that about did not arrive.
func Unreachable(src, dst netip.Addr, about Packet) Packet {
	p := icmp(src, dst, pick(src, layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv6TypeDestinationUnreachable), 1, 0)
	p.isErrorOf = &about
	return p
}

// Raw is a packet of any protocol, without a header that this package knows.
func Raw(src, dst netip.Addr, proto uint8, payload []byte) Packet {
	p := ip(src, dst, proto)
	p.payload = payload
	return p
}

// Frame is an Ethernet frame of another type than IP.
func Frame(ether uint16, payload []byte) Packet {
	return Packet{ether: ether, payload: payload, cut: -1}
}

func icmp(src, dst netip.Addr, kind, code uint8, id uint16) Packet {
	p := ip(src, dst, pick(src, ICMPv4, ICMPv6))
	p.icmp, p.icmpID = [2]uint8{kind, code}, id
	return p
}

func pick(a netip.Addr, four, six uint8) uint8 {
	if a.Is4() {
		return four
	}
	return six
}

// Back is the same packet the other way round: Ethernet addresses, addresses, ports.
func (p Packet) Back() Packet {
	p.reversed = !p.reversed
	p.src, p.dst = p.dst, p.src
	p.sp, p.dp = p.dp, p.sp
	return p
}

// From replaces the source address, To the destination.
func (p Packet) From(a netip.Addr) Packet { p.src = a; return p }

// To replaces the destination address.
func (p Packet) To(a netip.Addr) Packet { p.dst = a; return p }

// Flags replaces TCP's flags, and leaves its options.
func (p Packet) Flags(f Flags) Packet { p.flags = f; return p }

// Seq sets TCP's sequence and acknowledgement numbers.
func (p Packet) Seq(seq, ack uint32) Packet { p.seq, p.ack = seq, ack; return p }

// TTL sets the hop limit; it is 64 otherwise.
func (p Packet) TTL(n uint8) Packet { p.ttl = n; return p }

// Payload sets what follows the last header.
func (p Packet) Payload(s string) Packet { p.payload = []byte(s); return p }

// Options puts n bytes of no-operation into the v4 header; n is a multiple of 4.
func (p Packet) Options(n int) Packet {
	p.options = slices.Repeat([]byte{1}, n)
	return p
}

// Extend adds an IPv6 extension header of so many bytes, a multiple of 8.
func (p Packet) Extend(proto uint8, size int) Packet {
	b := make([]byte, size)
	b[1] = uint8(size/8 - 1)
	switch proto {
	case HopByHop, DestOpts:
		b[2], b[3] = 1, uint8(size-4) // one padding option
	case AH:
		b[1] = uint8(size/4 - 2)
	}
	p.ext = append(slices.Clip(p.ext), extension{proto, b})
	return p
}

// Fragment makes it a fragment that begins at offset, a multiple of 8. At an offset
// other than 0 the payload is all that follows the IP headers.
func (p Packet) Fragment(offset uint16, more bool) Packet {
	if p.src.Is4() {
		p.offset, p.more = offset, more
		return p
	}
	p.offset = offset
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b[2:], offset)
	if more {
		b[3] |= 1
	}
	p.ext = append(slices.Clip(p.ext), extension{FragmentV6, b})
	return p
}

// NoChecksum leaves a UDP datagram's checksum zero.
func (p Packet) NoChecksum() Packet { p.noSum = true; return p }

// Tagged puts VLAN tags in front, the outer first.
func (p Packet) Tagged(ids ...uint16) Packet { p.tags = ids; return p }

// Cut keeps the frame's first n bytes.
func (p Packet) Cut(n int) Packet { p.cut = n; return p }

// Bytes writes the frame.
func (p Packet) Bytes() []byte {
	body, ether := p.payload, p.ether
	if ether == 0 {
		body = p.network()
		ether = uint16(layers.EthernetTypeIPv4)
		if !p.src.Is4() {
			ether = uint16(layers.EthernetTypeIPv6)
		}
	}
	a, b := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	if p.reversed {
		a, b = b, a
	}
	out := append(slices.Clone(b), a...)
	for _, id := range p.tags {
		out = binary.BigEndian.AppendUint16(out, uint16(layers.EthernetTypeDot1Q))
		out = binary.BigEndian.AppendUint16(out, id)
	}
	out = binary.BigEndian.AppendUint16(out, ether)
	out = append(out, body...)
	if p.cut >= 0 {
		out = out[:min(p.cut, len(out))]
	}
	return out
}

// network writes the packet from its IP header on.
func (p Packet) network() []byte {
	var head gopacket.SerializableLayer
	var sum gopacket.NetworkLayer
	if p.src.Is4() {
		h := &layers.IPv4{
			Version: 4, TTL: p.ttl, Protocol: layers.IPProtocol(p.proto), FragOffset: p.offset / 8,
			SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(),
		}
		if p.more {
			h.Flags = layers.IPv4MoreFragments
		}
		for range p.options {
			h.Options = append(h.Options, layers.IPv4Option{OptionType: 1})
		}
		head, sum = h, h
	} else {
		h := &layers.IPv6{
			Version: 6, HopLimit: p.ttl, NextHeader: layers.IPProtocol(p.proto),
			SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(),
		}
		if len(p.ext) > 0 {
			h.NextHeader = layers.IPProtocol(p.ext[0].proto)
		}
		head, sum = h, h
	}
	all := []gopacket.SerializableLayer{head, gopacket.Payload(p.extensions())}
	if p.offset == 0 {
		all = append(all, p.transport(sum)...)
	}
	all = append(all, gopacket.Payload(p.payload))
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, all...); err != nil {
		panic("packet: " + err.Error())
	}
	out := buf.Bytes()
	if p.noSum {
		copy(out[len(out)-len(p.payload)-2:], []byte{0, 0}) // the last field of UDP's header
	}
	return out
}

func (p Packet) extensions() []byte {
	var out []byte
	for i, e := range p.ext {
		next := p.proto
		if i+1 < len(p.ext) {
			next = p.ext[i+1].proto
		}
		out = append(out, next)
		out = append(out, e.data[1:]...)
	}
	return out
}

func (p Packet) transport(sum gopacket.NetworkLayer) []gopacket.SerializableLayer {
	switch {
	case p.proto == protoTCP && p.sp != 0:
		h := &layers.TCP{
			SrcPort: layers.TCPPort(p.sp), DstPort: layers.TCPPort(p.dp), Seq: p.seq, Ack: p.ack, Window: 65535,
			FIN: p.flags&FIN != 0, SYN: p.flags&SYN != 0, RST: p.flags&RST != 0, PSH: p.flags&PSH != 0, ACK: p.flags&ACK != 0,
		}
		if p.mss {
			h.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}}
		}
		must(h.SetNetworkLayerForChecksum(sum))
		return []gopacket.SerializableLayer{h}
	case p.proto == protoUDP && p.sp != 0:
		h := &layers.UDP{SrcPort: layers.UDPPort(p.sp), DstPort: layers.UDPPort(p.dp)}
		must(h.SetNetworkLayerForChecksum(sum))
		return []gopacket.SerializableLayer{h}
	case p.icmp != [2]uint8{} || p.icmpID != 0:
		return p.message(sum)
	}
	return nil
}

// message writes ICMP; type and code stand as they are, also in the other family.
func (p Packet) message(sum gopacket.NetworkLayer) []gopacket.SerializableLayer {
	rest := gopacket.Payload{}
	if p.isErrorOf != nil {
		rest = p.isErrorOf.network()
		if p.isErrorOf.cut >= 0 {
			rest = rest[:min(p.isErrorOf.cut, len(rest))]
		}
	}
	if p.proto == ICMPv4 {
		return []gopacket.SerializableLayer{
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(p.icmp[0], p.icmp[1]), Id: p.icmpID, Seq: 1}, rest,
		}
	}
	h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(p.icmp[0], p.icmp[1])}
	must(h.SetNetworkLayerForChecksum(sum))
	body := binary.BigEndian.AppendUint16(nil, p.icmpID)
	body = append(body, 0, 1)
	return []gopacket.SerializableLayer{h, gopacket.Payload(body), rest}
}

// Dump shows a frame, decoded and in hex.
func Dump(frame []byte) string {
	return gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).Dump()
}

func must(err error) {
	if err != nil {
		panic("packet: " + err.Error())
	}
}
