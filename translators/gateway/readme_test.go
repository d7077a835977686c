// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"

	"fairlead.io/fairlead/translators/translatortest"
)

// The decisions name cases that exist.
func TestReadmeNamesCases(t *testing.T) {
	translatortest.Decisions(t, "README.md", 60, "testdata", "testdata/grants")
}
