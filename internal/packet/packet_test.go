// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"fairlead.io/fairlead/internal/packet"
)

var families = map[string][2]netip.AddrPort{
	"v4": {netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:80")},
	"v6": {netip.MustParseAddrPort("[fd00::1]:1000"), netip.MustParseAddrPort("[fd00::2]:80")},
}

// fold is the one's complement sum that a correct checksum makes 0xffff.
func fold(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// checked sums the last n bytes of a frame with the pseudo header.
func checked(p [2]netip.AddrPort, proto byte, segment []byte) uint16 {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(segment)))
	return fold(p[0].Addr().AsSlice(), p[1].Addr().AsSlice(), []byte{0, proto}, length, segment)
}

func TestChecksumsAreCorrect(t *testing.T) {
	for name, f := range families {
		head := 14 + 40
		if f[0].Addr().Is4() {
			head = 14 + 20
		}
		cases := []struct {
			what  string
			p     packet.Packet
			proto byte
			head  int
		}{
			{"TCP", packet.TCP(f[0], f[1], packet.SYN|packet.ACK).Payload("odd"), 6, head},
			{"UDP", packet.UDP(f[0], f[1]).Payload("even"), 17, head},
		}
		if !f[0].Addr().Is4() {
			cases = append(cases,
				struct {
					what  string
					p     packet.Packet
					proto byte
					head  int
				}{"UDP behind extensions", packet.UDP(f[0], f[1]).Extend(packet.HopByHop, 8).Extend(packet.DestOpts, 24), 17, head + 32},
				struct {
					what  string
					p     packet.Packet
					proto byte
					head  int
				}{"ICMPv6", packet.Echo(f[0].Addr(), f[1].Addr(), 7).Payload("x"), 58, head})
		}
		for _, c := range cases {
			t.Run(name+" "+c.what, func(t *testing.T) {
				b := c.p.Bytes()
				if got := checked(f, c.proto, b[c.head:]); got != 0xffff {
					t.Errorf("sum %#x\n%s", got, packet.Dump(b))
				}
				if f[0].Addr().Is4() && fold(b[14:34]) != 0xffff {
					t.Errorf("IP header sums to %#x", fold(b[14:34]))
				}
			})
		}
	}
	f := families["v4"]
	if b := packet.Echo(f[0].Addr(), f[1].Addr(), 7).Bytes(); fold(b[34:]) != 0xffff {
		t.Errorf("ICMP sums to %#x", fold(b[34:]))
	}
}

func TestLayersAreInTheOrderAsked(t *testing.T) {
	f := families["v6"]
	b := packet.TCP(f[0], f[1], packet.SYN).Extend(packet.HopByHop, 8).Extend(packet.Routing, 8).Fragment(0, true).Tagged(5).Bytes()
	got := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	for _, want := range []gopacket.LayerType{
		layers.LayerTypeDot1Q, layers.LayerTypeIPv6, layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Routing,
		layers.LayerTypeIPv6Fragment,
	} {
		if got.Layer(want) == nil {
			t.Errorf("no %s\n%s", want, packet.Dump(b))
		}
	}
}

func TestBackIsTheAnswer(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			there, back := packet.UDP(f[0], f[1]).Bytes(), packet.UDP(f[0], f[1]).Back().Bytes()
			want := packet.UDP(f[1], f[0]).Bytes()
			if string(back[14:]) != string(want[14:]) {
				t.Errorf("got\n%swant\n%s", packet.Dump(back), packet.Dump(want))
			}
			if string(back[:6]) != string(there[6:12]) || string(back[6:12]) != string(there[:6]) {
				t.Error("Ethernet addresses are not swapped")
			}
		})
	}
}

func TestCutShortens(t *testing.T) {
	f := families["v4"]
	p := packet.TCP(f[0], f[1], packet.SYN)
	for n := range len(p.Bytes()) {
		if got := len(p.Cut(n).Bytes()); got != n {
			t.Fatalf("%d bytes, want %d", got, n)
		}
	}
}

func TestErrorsQuote(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			about := packet.UDP(f[0], f[1])
			b := packet.Unreachable(f[1].Addr(), f[0].Addr(), about).Bytes()
			inner := about.Bytes()[14:]
			if got := string(b[len(b)-len(inner):]); got != string(inner) {
				t.Errorf("quoted otherwise:\n%s", packet.Dump(b))
			}
		})
	}
}
