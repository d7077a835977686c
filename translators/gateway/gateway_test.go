// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/translatortest"
)

func newTranslator() translators.Translator { return New(Options{}) }

func strict() translators.Translator { return New(Options{RequireGrants: true}) }

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", newTranslator) }

// Where grants are asked for, they are what lets a route name another namespace's services.
func TestCasesWithGrants(t *testing.T) { translatortest.Run(t, "testdata/grants", strict) }
