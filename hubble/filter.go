// SPDX-License-Identifier: Apache-2.0

package hubble

import "strings"

// Filter chooses flows; the zero value takes all.
type Filter struct {
	Pod     string // a part of the source's or the destination's ns/name
	Verdict string
}

// Wants reports whether the flow is one of those that are asked for.
func (f Filter) Wants(flow Flow) bool {
	if f.Verdict != "" && flow.Verdict != f.Verdict {
		return false
	}
	return f.Pod == "" || strings.Contains(flow.Source.Pod, f.Pod) || strings.Contains(flow.Destination.Pod, f.Pod)
}
