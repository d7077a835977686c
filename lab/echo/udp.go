// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// datagrams receives datagrams with the address that they were sent to, and
// answers from it: a pod in the node's network has several.
type datagrams interface {
	read(b []byte) (n int, to net.IP, from net.Addr, err error)
	write(b []byte, from net.IP, to net.Addr) error
	Close() error
}

// listenUDP opens one socket per family, as each says in its own way which
// address was spoken to.
func listenUDP(ctx context.Context, port uint16) ([]datagrams, error) {
	var lc net.ListenConfig
	c4, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	d4 := datagrams4{ipv4.NewPacketConn(c4)}
	out := []datagrams{d4}
	if err := d4.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return out, fmt.Errorf("ask for destination addresses: %w", err)
	}
	c6, err := lc.ListenPacket(ctx, "udp6", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return out, err
	}
	d6 := datagrams6{ipv6.NewPacketConn(c6)}
	out = append(out, d6)
	if err := d6.SetControlMessage(ipv6.FlagDst, true); err != nil {
		return out, fmt.Errorf("ask for destination addresses: %w", err)
	}
	return out, nil
}

// serveUDP sends every datagram back.
func (s *Server) serveUDP(ctx context.Context, d datagrams, port uint16) {
	stop := context.AfterFunc(ctx, func() { _ = d.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, to, from, err := d.read(buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause(ctx, time.Millisecond) // an ICMP error of an earlier answer
			continue
		}
		s.count("")
		out := buf[:n]
		if strings.TrimSpace(string(out)) == "who" {
			if out, err = json.Marshal(s.fromConn("UDP", from, &net.UDPAddr{IP: to, Port: int(port)})); err != nil {
				return
			}
		}
		if err := d.write(out, to, from); err != nil {
			s.log.Debug("answer lost", "peer", from.String(), "error", err)
		}
	}
}

type datagrams4 struct{ *ipv4.PacketConn }

func (d datagrams4) read(b []byte) (int, net.IP, net.Addr, error) {
	n, cm, from, err := d.ReadFrom(b)
	if err != nil || cm == nil {
		return n, nil, from, err
	}
	return n, cm.Dst, from, nil
}

func (d datagrams4) write(b []byte, from net.IP, to net.Addr) error {
	_, err := d.WriteTo(b, &ipv4.ControlMessage{Src: from}, to)
	return err
}

type datagrams6 struct{ *ipv6.PacketConn }

func (d datagrams6) read(b []byte) (int, net.IP, net.Addr, error) {
	n, cm, from, err := d.ReadFrom(b)
	if err != nil || cm == nil {
		return n, nil, from, err
	}
	return n, cm.Dst, from, nil
}

func (d datagrams6) write(b []byte, from net.IP, to net.Addr) error {
	_, err := d.WriteTo(b, &ipv6.ControlMessage{Src: from}, to)
	return err
}
