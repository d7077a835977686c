// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"testing"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator { return New(Options{}) }

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }
