// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"strings"
	"testing"

	"fairlead.io/fairlead/translators/objects"
)

// splits are n services with a split each; the first one's weight is given.
func splits(n, weight int) objects.Input {
	var b strings.Builder
	for i := range n {
		w := 1
		if i == 0 {
			w = weight
		}
		fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: a}
spec: {clusterIP: 10.%d.%d.1, ports: [{name: http, port: 80}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: t%d, namespace: a}
spec: {service: s%d, backends: [{service: s%d, weight: 1}, {service: s%d, weight: %d}]}
---
`, i, i/256, i%256, i, i, (i+1)%n, (i+2)%n, w)
	}
	return objects.Input{Name: "a.yaml", Data: []byte(b.String())}
}

func BenchmarkTranslate(b *testing.B) {
	const n = 2000
	b.Run("all", func(b *testing.B) {
		_, h := newHost()
		batch := objects.Decode(h.Registry(), splits(n, 1))
		for b.Loop() {
			s, h := newHost()
			h.Replace(batch)
			s.Run()
		}
	})
	b.Run("one", func(b *testing.B) {
		s, h := newHost()
		batches := []*objects.Batch{objects.Decode(h.Registry(), splits(n, 1)), objects.Decode(h.Registry(), splits(n, 2))}
		h.Replace(batches[0])
		s.Run()
		var changed *objects.Object
		for _, o := range batches[1].Objects {
			if o.Name == "t0" {
				changed = o
			}
		}
		var other *objects.Object
		for _, o := range batches[0].Objects {
			if o.Name == "t0" {
				other = o
			}
		}
		for b.Loop() {
			h.Set(changed)
			s.Run()
			changed, other = other, changed
		}
	})
}
