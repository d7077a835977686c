// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"net/netip"
	"testing"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator {
	t, err := New(Options{})
	if err != nil {
		panic(err) // the defaults are known
	}
	return t
}

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }

func TestOptions(t *testing.T) {
	if _, err := New(Options{DefaultInboundPolicy: "allow"}); err == nil {
		t.Error("a policy that is none is taken")
	}
	if _, err := New(Options{ClusterNetworks: []netip.Prefix{{}}}); err == nil {
		t.Error("a network that is none is taken")
	}
	if tr, err := New(Options{ClusterNetworks: []netip.Prefix{}}); err != nil || len(tr.networks) != len(clusterNetworks) {
		t.Error("no networks are taken for all of them")
	}
	tr, err := New(Options{ClusterNetworks: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}})
	if err != nil || tr.networks[0].prefix != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("networks %v, %v", tr.networks, err)
	}
}
