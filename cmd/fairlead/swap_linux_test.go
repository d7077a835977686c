// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestSwap(t *testing.T) { runCases(t, "testdata/swap/*.txtar") }
