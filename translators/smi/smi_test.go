// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"testing"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator { return New(Options{}) }

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }

func TestProperties(t *testing.T) { translatortest.Properties(t, "testdata", newTranslator) }

func TestNamesInTheDomain(t *testing.T) {
	tr := New(Options{Domain: "Corp.Example"}) // as an operator may write it; names of objects are lower case
	for name, want := range map[string]bool{
		"web": true, "web.shop": true, "web.shop.svc": true, "web.shop.svc.corp.example": true, "web.shop.svc.corp.example.": true,
		"web.other": false, "web.shop.svc.cluster.local": false, "": false,
	} {
		if short, ok := tr.localName(name, "shop"); ok != want || ok && short != "web" {
			t.Errorf("%q: %q, %v", name, short, ok)
		}
	}
}
