// SPDX-License-Identifier: Apache-2.0

package main

// runs lists the run folders of the agents that are meant.
func (p place) runs() ([]string, error) {
	return (&target{run: p.run, lab: p.lab, node: p.node}).runs()
}
