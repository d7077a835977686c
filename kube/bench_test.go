// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/translators/objects"
)

// manySlices are 10,000 services with an EndpointSlice and a pod each.
const manySlices = 10_000

func slice(i int, ready bool) string {
	return fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"s%[1]d","namespace":"shop","uid":"%[1]d","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z",`+
		`"labels":{"kubernetes.io/service-name":"s%[1]d"},"managedFields":[{"manager":"endpointslice-controller","operation":"Update","apiVersion":"discovery.k8s.io/v1","fieldsV1":{"f:endpoints":{},"f:ports":{}}}]},`+
		`"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[{"addresses":["10.%[2]d.%[3]d.%[4]d"],"nodeName":"n1","conditions":{"ready":%[5]t}}]}`,
		i, 128+i/62500, i/250%250, 1+i%250, ready)
}

func serviceJSON(i int) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"s%[1]d","namespace":"shop","creationTimestamp":"2026-01-01T00:00:00Z"},`+
		`"spec":{"clusterIP":"10.96.%[2]d.%[3]d","ports":[{"name":"http","port":80,"targetPort":8080,"protocol":"TCP"}]}}`, i, i/250, 1+i%250)
}

// BenchmarkOneOfManySlices measures what one changed EndpointSlice among 10,000 costs from
// the watch's event to the plan's changed rows, beside what all of them cost, and what the
// objects hold.
func BenchmarkOneOfManySlices(b *testing.B) {
	p, err := pipeline.New(pipeline.Options{Node: "n1", Agents: true})
	if err != nil {
		b.Fatal(err)
	}
	reg := p.Registry()
	s := &Source{log: slog.New(slog.DiscardHandler), dirty: make(chan struct{}, 1), kinds: map[objects.Kind]*kindWatch{},
		have: map[objects.Kind]map[string][16]byte{}, pending: map[objects.Ref]objects.Edit{}}
	watches := map[string]*kindWatch{}
	for k, text := range map[objects.Kind]string{objects.EndpointSliceKind: "EndpointSlice", objects.ServiceKind: "Service", objects.NodeKind: "Node"} {
		t, _ := reg.Served(k, []string{"v1"})
		watches[text] = &kindWatch{served: served{typ: t}, synced: true}
		s.kinds[k] = watches[text]
	}
	come := func(kind string, text []byte) {
		w := watches[kind]
		h, err := decode(w.served, false)(unstructuredOf(b, text))
		if err != nil {
			b.Fatal(err)
		}
		s.came(w, h)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	come("Node", []byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}`))
	for i := range manySlices {
		come("Service", []byte(serviceJSON(i)))
		come("EndpointSlice", []byte(slice(i, true)))
	}
	decoded := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	s.whole = true
	u, _ := s.Take()
	p.Apply(u.Edits)
	all := time.Since(begin)
	n := 0
	for b.Loop() {
		n++
		come("EndpointSlice", []byte(slice(n*997%manySlices, n/manySlices%2 == 1)))
		u, ok := s.Take()
		if !ok || len(u.Edits) != 1 || len(p.Apply(u.Edits)) == 0 {
			b.Fatal("a change changed nothing")
		}
	}
	one := b.Elapsed() / time.Duration(n)
	b.ReportMetric(float64(decoded.Microseconds())/(2*manySlices), "µs/object")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(2*manySlices), "B/object")
	b.ReportMetric(float64(all.Milliseconds()), "ms/all")
	b.ReportMetric(float64(all)/float64(one), "all/one")
}
