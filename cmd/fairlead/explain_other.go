// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

// defaultRun is where a node's agent would be.
const defaultRun = "/run/fairlead"

func (place) runs() ([]string, error) {
	return nil, usageError("agents run on Linux alone: name files or folders with -f")
}
