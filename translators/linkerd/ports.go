// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// portSet is a set of ports, as ranges.
type portSet []portRange

type portRange struct{ first, last uint16 }

// readPorts reads a list of ports and ranges: "25,587,9000-9010". What is not one is
// named by the error and left out of the set.
func readPorts(s string) (portSet, error) {
	var out portSet
	var bad []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		if errA != nil || errB != nil || a == 0 || a > b {
			bad = append(bad, strconv.Quote(part))
			continue
		}
		out = append(out, portRange{uint16(a), uint16(b)})
	}
	if len(bad) > 0 {
		return out, fmt.Errorf("%s: not a port or a range of ports", strings.Join(bad, ", "))
	}
	return out, nil
}

func mustPorts(s string) portSet {
	out, err := readPorts(s)
	if err != nil {
		panic("linkerd: " + err.Error()) // of this package's own lists
	}
	return out
}

func (s portSet) has(p uint16) bool {
	for _, r := range s {
		if r.first <= p && p <= r.last {
			return true
		}
	}
	return false
}

// maxPorts is how many ports of a set are written out one by one.
const maxPorts = 256

// list writes the ports out; ok is false if they are too many.
func (s portSet) list() (out []uint16, ok bool) {
	for _, r := range s {
		if len(out)+int(r.last-r.first)+1 > maxPorts {
			return nil, false
		}
		for p := int(r.first); p <= int(r.last); p++ {
			out = append(out, uint16(p))
		}
	}
	return out, true
}

// others are all ports that are not in the set.
func (s portSet) others() portSet {
	var out portSet
	next := 1
	for _, r := range slices.SortedFunc(slices.Values(s), func(a, b portRange) int { return cmp.Compare(a.first, b.first) }) {
		if int(r.first) > next {
			out = append(out, portRange{uint16(next), r.first - 1})
		}
		next = max(next, int(r.last)+1)
	}
	if next <= math.MaxUint16 {
		out = append(out, portRange{uint16(next), math.MaxUint16})
	}
	return out
}

func validPort(n int64) bool { return n >= 1 && n <= math.MaxUint16 }
