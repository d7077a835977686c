// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"flag"
	"os"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/twonodes"
)

var (
	fullFlag    = flag.Bool("full", false, "as long, and as often, as hack/faults.sh does it")
	changesFlag = flag.Int("changes", 0, "how many changes TestChanges makes; 0: 60, in full 1,000")
	manyFlag    = flag.Int("many", 0, "how many changes TestNothingGrows makes; 0: 300, in full 10,000")
)

func TestMain(m *testing.M) {
	twonodes.ServeTraffic()
	flag.Parse()
	os.Exit(twonodes.RunTests(m, "faults"))
}

// pause is how long it is like that before, during and after a fault.
func pause() time.Duration {
	if *fullFlag {
		return 10 * time.Second
	}
	return 3 * time.Second
}

// times is how often something is done.
func times(set, short, full int) int {
	switch {
	case set > 0:
		return set
	case *fullFlag:
		return full
	}
	return short
}
