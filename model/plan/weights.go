// SPDX-License-Identifier: Apache-2.0

package plan

import "math"

// Share is a part of a split: Weight, of which Parts out of Of belong to it, spread
// evenly over Members.
type Share struct {
	Weight  uint32
	Of      uint32
	Parts   uint32
	Members uint32
}

// partWeights gives whole weights in the proportion Weight * Parts / Of, as small
// as they can be; rounded, but never to 0, where exact ones would not fit.
func partWeights(shares []Share) []uint32 {
	l := uint64(1)
	for _, s := range shares {
		l = lcm(l, uint64(s.Of))
	}
	raw := make([]uint64, len(shares))
	for i, s := range shares {
		raw[i] = uint64(s.Weight) * (uint64(s.Parts) * l / uint64(s.Of))
	}
	return shrink(raw, math.MaxUint32)
}

// memberWeights gives each share's weight per member, in the proportion
// Weight / Members, so that the weights of all members sum to at most limit.
func memberWeights(shares []Share, limit uint64) []uint32 {
	l := uint64(1)
	for _, s := range shares {
		l = lcm(l, uint64(s.Members))
	}
	raw := make([]uint64, len(shares))
	for i, s := range shares {
		raw[i] = uint64(s.Weight) * max(1, l/uint64(s.Members))
	}
	g := uint64(0)
	for _, r := range raw {
		g = gcd(g, r)
	}
	sum := uint64(0)
	for i := range raw {
		raw[i] /= max(g, 1)
		sum += raw[i] * uint64(shares[i].Members)
	}
	out := make([]uint32, len(raw))
	for i, r := range raw {
		if sum > limit {
			r = max(1, uint64(math.Round(float64(r)*float64(limit)/float64(sum))))
		}
		out[i] = uint32(r)
	}
	return out
}

// shrink divides by the greatest common divisor and, if the sum passes the limit,
// scales down.
func shrink(raw []uint64, limit uint64) []uint32 {
	g, sum := uint64(0), uint64(0)
	for _, r := range raw {
		g = gcd(g, r)
	}
	for i := range raw {
		raw[i] /= max(g, 1)
		sum += raw[i]
	}
	out := make([]uint32, len(raw))
	for i, r := range raw {
		if sum > limit {
			r = max(1, uint64(float64(r)*(float64(limit-uint64(len(raw)))/float64(sum))))
		}
		out[i] = uint32(r)
	}
	return out
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// lcm stops growing past 2^24, so that nothing overflows: beyond it the proportion
// is rounded, not exact.
func lcm(a, b uint64) uint64 {
	if b == 0 {
		return a
	}
	return min(a/gcd(a, b)*b, 1<<24)
}
