// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestCanonicalRule(t *testing.T) {
	id := func(s string) StringMatch { return StringMatch{Kind: Exact, Value: s} }
	ip := netip.MustParsePrefix
	a := AuthRule{
		From: []Peer{{Identities: []StringMatch{id("b"), id("a"), id("b")}}, {IPs: []netip.Prefix{ip("10.0.0.0/8"), ip("1.0.0.0/8")}}},
		To:   []Operation{{Ports: []uint16{443, 80}, Methods: []StringMatch{id("PUT"), id("GET")}}, {Paths: []StringMatch{id("/")}}},
		When: []Condition{{Kind: OnIdentity, Values: []StringMatch{id("x")}}, {Kind: OnHeader, Name: "h", NotValues: []StringMatch{id("b"), id("a")}}},
		Src:  []Source{{Name: "a"}},
	}
	b := AuthRule{
		From: []Peer{{IPs: []netip.Prefix{ip("1.0.0.0/8"), ip("10.0.0.0/8")}}, {Identities: []StringMatch{id("a"), id("b")}}},
		To:   []Operation{{Paths: []StringMatch{id("/")}}, {Ports: []uint16{80, 443, 80}, Methods: []StringMatch{id("GET"), id("PUT")}}},
		When: []Condition{{Kind: OnHeader, Name: "h", NotValues: []StringMatch{id("a"), id("b")}}, {Kind: OnIdentity, Values: []StringMatch{id("x")}}},
	}
	before := Bytes(a)
	ca := a.Canonical()
	if got, want := Bytes(ca), Bytes(b.Canonical()); !bytes.Equal(got, want) {
		t.Errorf("not the same:\n%s\n%s", got, want)
	}
	if len(ca.Src) != 1 {
		t.Error("the origin is lost")
	}
	if !bytes.Equal(before, Bytes(a)) {
		t.Error("the argument was changed")
	}
	if got := Bytes(AuthRule{From: []Peer{}}.Canonical()); string(got) != "{}" {
		t.Errorf("empty lists: %s", got)
	}
}

func TestShares(t *testing.T) {
	b := func(name string, weight uint32) Backend { return Backend{Service: name, Weight: weight} }
	for _, c := range []struct{ in, want []Backend }{
		{nil, nil},
		{[]Backend{b("a", 0)}, nil},
		{[]Backend{b("a", 100)}, []Backend{b("a", 1)}},
		{[]Backend{b("b", 75), b("a", 25), b("c", 0)}, []Backend{b("a", 1), b("b", 3)}},
		{[]Backend{b("a", 20), b("b", 40), b("a", 20)}, []Backend{b("a", 1), b("b", 1)}},
		{[]Backend{b("a", 7), b("b", 5)}, []Backend{b("a", 7), b("b", 5)}},
	} {
		if got := Shares(c.in); !bytes.Equal(Bytes(got), Bytes(c.want)) {
			t.Errorf("Shares(%s) = %s, want %s", Bytes(c.in), Bytes(got), Bytes(c.want))
		}
	}
}
