// SPDX-License-Identifier: Apache-2.0

package incr

import "container/heap"

// producers are the computations that give a row, with their values. The smallest
// is found without looking at all: thousands share the row of a common policy.
type producers struct {
	values map[string]any
	order  names // every key of values, and some that were taken out since
}

func newProducers() *producers { return &producers{values: map[string]any{}} }

func (p *producers) set(name string, value any) {
	if _, ok := p.values[name]; !ok {
		heap.Push(&p.order, name)
	}
	p.values[name] = value
}

func (p *producers) remove(name string) {
	delete(p.values, name)
	if len(p.order) > 2*len(p.values)+16 { // names that come and go must not pile up
		p.order = p.order[:0]
		for n := range p.values {
			p.order = append(p.order, n)
		}
		heap.Init(&p.order)
	}
}

// first returns the smallest producer's value; there must be one.
func (p *producers) first() any {
	for {
		if v, ok := p.values[p.order[0]]; ok {
			return v
		}
		heap.Pop(&p.order)
	}
}

// names is a heap with the smallest on top.
type names []string

func (n names) Len() int           { return len(n) }
func (n names) Less(i, j int) bool { return n[i] < n[j] }
func (n names) Swap(i, j int)      { n[i], n[j] = n[j], n[i] }

// Push implements heap.Interface.
func (n *names) Push(x any) { *n = append(*n, x.(string)) }

// Pop implements heap.Interface.
func (n *names) Pop() any {
	old := *n
	x := old[len(old)-1]
	*n = old[:len(old)-1]
	return x
}
