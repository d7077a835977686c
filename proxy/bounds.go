// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overload "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connections "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heap "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// bounds are what an Envoy may use of the node. Envoy 1.40 crashes when it gets no
// descriptor for a connection to a backend, and the kernel ends it when its memory is
// used up: with all connections that it has, in both cases. So what is new is refused
// before.
type bounds struct {
	files  uint64 // open files; 0 = not known
	memory uint64 // bytes, of all processes of the container; 0 = unlimited, or not known
}

const (
	// Of the descriptors, Envoy's own: sockets of listeners, of which each worker has one,
	// logs, streams to the proxy. A quarter if there are few.
	ownFiles = 1024
	// A connection of a client and the one to a backend.
	filesEach = 2
	// Of the memory, the heap of the Envoy that serves: the rest is for the proxy, and for
	// what is no heap. A second Envoy's, which is there for a while, comes out of what the
	// first one does not use.
	heapShare = 0.7
)

// connections is how many connections of clients Envoy takes; 0 = any number.
func (b bounds) connections() int64 {
	if b.files == 0 {
		return 0
	}
	return max(1, int64((b.files-min(ownFiles, b.files/4))/filesEach))
}

// heap is how many bytes Envoy may have allocated; 0 = any number.
func (b bounds) heap() uint64 { return uint64(heapShare * float64(b.memory)) }

// manager is Envoy's own guard of its bounds; nil: there are none. From the last tenth of
// its heap on it lets idle connections go, in the last twentieth it refuses new ones, and
// requests at last.
func (b bounds) manager() *overload.OverloadManager {
	m := &overload.OverloadManager{RefreshInterval: durationpb.New(heapPoll)}
	monitor := func(name string, config proto.Message) string {
		m.ResourceMonitors = append(m.ResourceMonitors, &overload.ResourceMonitor{
			Name: name, ConfigType: &overload.ResourceMonitor_TypedConfig{TypedConfig: pack(config)},
		})
		return name
	}
	if n := b.connections(); n > 0 {
		monitor("envoy.resource_monitors.global_downstream_max_connections", &connections.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: n})
	}
	if n := b.heap(); n > 0 {
		name := monitor("envoy.resource_monitors.fixed_heap", &heap.FixedHeapConfig{MaxHeapSizeBytes: n})
		for _, a := range []struct {
			action string
			from   float64
		}{
			{"envoy.overload_actions.shrink_heap", 0.85},
			{"envoy.overload_actions.disable_http_keepalive", 0.9},
			{"envoy.overload_actions.reject_incoming_connections", 0.95},
			{"envoy.overload_actions.stop_accepting_requests", 0.98},
		} {
			m.Actions = append(m.Actions, &overload.OverloadAction{Name: a.action, Triggers: []*overload.Trigger{{
				Name: name, TriggerOneof: &overload.Trigger_Threshold{Threshold: &overload.ThresholdTrigger{Value: a.from}},
			}}})
		}
	}
	if len(m.ResourceMonitors) == 0 {
		return nil
	}
	return m
}

// apply has a bootstrap keep the bounds. People and the proxy can ask all the same.
func (b bounds) apply(m *bootstrap.Bootstrap) {
	m.OverloadManager = b.manager()
	m.Admin.IgnoreGlobalConnLimit = true
}
