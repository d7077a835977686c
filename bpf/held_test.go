// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/internal/packet"
)

// firstSeq is the sequence number of frames that say nothing else.
const firstSeq = 1000

// held writes that a connection's first SYN, with that number, found no proxy.
func (w *world) held(frame packet.Packet, seq uint32, age time.Duration) {
	w.t.Helper()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], seq)
	put(w.t, w.FlHeldV1, tupleIn(frame), NetFlHeld{Since: uint64(w.now() - age.Nanoseconds()), Seq: binary.NativeEndian.Uint32(b[:])})
}

// now is the kernel's clock.
func (w *world) now() int64 {
	w.t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		w.t.Fatal(err)
	}
	return now.Nano()
}

// A connection that no proxy takes is dropped for as long as its client is to try again,
// and then refused: by a RST to where the SYN came from.
func TestHeldConnections(t *testing.T) {
	const long, short = 2901 * time.Millisecond, 2500 * time.Millisecond
	dialSelf := func(f family) packet.Packet { return dialService(f).To(f.client) }
	inbound := func(class uint64) func(w *world) {
		return func(w *world) {
			w.govern(w.f.server)
			w.policy(class, 80, tcp, check)
			w.inbound(15100)
		}
	}
	// since is the world with what was held, of the frame and for so long.
	since := func(age time.Duration, seq uint32, frame func(f family) packet.Packet, set func(w *world)) func(w *world) {
		return func(w *world) { set(w); w.held(frame(w.f), seq, age) }
	}
	reset := func(frame func(f family) packet.Packet) func(f family) packet.Packet {
		return func(f family) packet.Packet { return frame(f).Back().Flags(packet.RST|packet.ACK).Seq(0, firstSeq+1) }
	}
	refused := func(name string, h hook, mark uint32, frame func(f family) packet.Packet, set func(w *world), what said, path NetFlPath) vector {
		what.reason = absent
		return vector{
			name: name, at: h, mark: mark, frame: frame, world: since(long, firstSeq, frame, set), want: redirect,
			counts: []NetFlReason{absent}, said: []said{what}, out: reset(frame), flows: one(path, what.port, frame),
		}
	}
	waits := func(name string, frame func(f family) packet.Packet, set func(w *world)) vector {
		return vector{
			name: name, frame: frame, world: set, want: drop, counts: []NetFlReason{noProxy}, said: []said{{reason: noProxy, port: 15101}},
			flows: one(proxied, 15101, frame),
		}
	}
	turn := func(v vector) vector { v.assigned = true; return v }
	strip := func(v vector) vector { v.stripped = true; return v }
	http := captured(uint32(http))
	fromNode := requestFrom(node, 40000)
	fromStranger := requestFrom(stranger, 40000)
	runVectors(t, []vector{
		waits("the first try waits", dialService, http),
		waits("a try before the time is over waits", dialService, since(short, firstSeq, dialService, http)),
		waits("the next connection from the same port is a first try", dialService, since(time.Minute, firstSeq+1, dialService, http)),
		waits("what another port has waited is not this one's", dialService,
			since(long, firstSeq, func(f family) packet.Packet { return dialService(f).From(f.stranger) }, http)),
		waits("what resets is not answered", func(f family) packet.Packet { return dialService(f).Flags(packet.SYN | packet.RST) },
			since(long, firstSeq, dialService, http)),
		{
			name: "what goes on is not answered", frame: func(f family) packet.Packet { return dialService(f).Flags(packet.ACK) },
			world: since(long, firstSeq, dialService, func(w *world) {
				http(w)
				w.conn(at(w.f.client, 40000), at(w.f.service, 80), tcp, proxied, 0, 15101)
			}),
			want: drop, counts: []NetFlReason{noProxy}, said: said1(noProxy), kept: true,
		},
		refused("a captured client is refused", fromClient, 0, dialService, http, said{port: 15101}, proxied),
		refused("with data", fromClient, 0, func(f family) packet.Packet { return dialService(f).Payload("early") }, http,
			said{port: 15101}, proxied),
		refused("a client of a pod of its node is refused", fromClient, 0, dialServer, inbound(classClient),
			said{class: classClient, set: governed, rule: rule, port: 15100}, proxied),
		refused("one of another node is", fromUplink, 0, requestFrom(remote, 40000), inbound(classRemote),
			said{class: classRemote, set: governed, rule: rule, port: 15100}, proxied),
		turn(refused("a process of the node is", onLoopback, 0xa000_0000|turned, fromNode, inbound(classNode),
			said{class: classNode, set: governed, rule: rule, port: 15100}, proxied)),
		strip(refused("whom the node forwards is, where its addresses are turned back", onLoopback, 0xa000_0000|forwarded, fromStranger, inbound(0),
			said{set: governed, rule: rule, port: 15100}, turnedPath)),
		refused("a pod that dials itself is", fromClient, 0, dialSelf, func(w *world) {
			w.govern(w.f.client)
			w.policy(classClient, 80, tcp, check)
			w.inbound(15100)
		}, said{class: classClient, set: governed, rule: rule, port: 15100}, proxied),
	})
}

// What is held is the first SYN, whatever is sent after it, until another one begins.
func TestHeldSince(t *testing.T) {
	l := newLab(t)
	l.enter(t)
	w := newWorld(t, l, families()[0])
	for _, f := range families() {
		w.f = f
		w.clean(t)
		w.peopled()
		captured(uint32(http))(w)
		try := func(seq uint32) NetFlHeld {
			t.Helper()
			frame := dialService(f).Seq(seq, 0)
			if got := w.run(w.FlFromPod, frame.Bytes(), fromClient.context(l)); got.verdict != drop {
				t.Errorf("verdict %d", int32(got.verdict))
			}
			var h NetFlHeld
			if err := w.FlHeldV1.Lookup(tupleIn(frame), &h); err != nil {
				t.Fatal(err)
			}
			return h
		}
		before := uint64(w.now())
		first := try(7)
		if first.Since < before || first.Since > uint64(w.now()) {
			t.Errorf("held since %d, it began after %d", first.Since, before)
		}
		if again := try(7); again != first {
			t.Errorf("sent again: %+v, first %+v", again, first)
		}
		if other := try(8); other.Since <= first.Since || other.Seq == first.Seq {
			t.Errorf("another connection: %+v, before %+v", other, first)
		}
	}
}
