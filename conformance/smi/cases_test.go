// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"testing"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

func table(t *testing.T, f *testcluster.Fleet) {}

func weightsUnderLoad(t *testing.T) {}
