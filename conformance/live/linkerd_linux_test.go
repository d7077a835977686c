// SPDX-License-Identifier: Apache-2.0

package live

import "testing"

// TestLinkerdCases sends the requests of Linkerd's decision table.
func TestLinkerdCases(t *testing.T) {
	for _, c := range linkerdTable(t) {
		t.Run(c.Name, func(t *testing.T) { lives(t).runCase(t, c) })
	}
}
