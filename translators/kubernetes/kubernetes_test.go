// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"testing"

	"fairlead.io/fairlead/translators/translatortest"
)

func TestCases(t *testing.T) { translatortest.Run(t, "testdata", nil) }
