// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	envoycore "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"istio.io/api/networking/v1alpha3"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/networking/core"
	"istio.io/istio/pilot/pkg/serviceregistry/provider"
	fake "istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/host"
	"istio.io/istio/pkg/config/protocol"
	"istio.io/istio/pkg/config/schema/gvk"
	"istio.io/istio/pkg/log"

	"fairlead.io/fairlead/xds"
)

// istiod is Istio's control plane without its transport: the server that production runs,
// with its cache, its debouncing and its choice of what to push to whom.
type istiod struct {
	b      *testing.B
	mesh   mesh
	server *fake.FakeDiscoveryServer

	endpoints []string // names that each workload asks for
	tables    []string
	clients   []*stream
	close     []func()
	routed    chan *discovery.DeltaDiscoveryResponse // of route tables, the last of what a push sends
}

// The types in the order in which istiod pushes them, and Envoy asks.
var asked = []string{xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType}

func newIstiod(b *testing.B, m mesh) *istiod {
	features.MetadataExchange, features.ALPNFilter = false, false
	for _, s := range log.Scopes() {
		s.SetOutputLevel(log.NoneLevel)
	}
	configs, unknown, err := crd.ParseInputs(m.virtualServices())
	if err != nil || len(unknown) > 0 {
		b.Fatal(err, unknown)
	}
	for i := range configs {
		configs[i].Domain = "cluster.local"
		configs[i].CreationTimestamp = time.Unix(1700000000, 0)
	}
	var services []*model.Service
	for i := range m.services {
		services = append(services, &model.Service{
			Hostname: hostname(i), DefaultAddress: serviceAddr(i), CreationTime: time.Unix(1700000000, 0), Resolution: model.ClientSideLB,
			Ports:      model.PortList{{Name: "http", Port: 80, Protocol: protocol.HTTP}},
			Attributes: model.ServiceAttributes{Name: serviceName(i), Namespace: namespace, ServiceRegistry: provider.Kubernetes},
		})
	}
	// A change is pushed once nothing more came for a while: the time is production's.
	s := &istiod{b: b, mesh: m, routed: make(chan *discovery.DeltaDiscoveryResponse, 4*m.workloads)}
	s.server = fake.NewFakeDiscoveryServer(b, fake.FakeOptions{Configs: configs, Services: services, DebounceTime: features.DebounceAfter})
	s.server.Discovery.RequestRateLimit.SetLimit(0) // of new clients a second
	for i := range m.services {
		var all []*model.IstioEndpoint
		for e := range perPort {
			all = append(all, &model.IstioEndpoint{Addresses: []string{endpointAddr(i, e)}, ServicePortName: "http", EndpointPort: 8080, Namespace: namespace})
		}
		s.server.Env().EndpointIndex.UpdateServiceEndpoints(model.ShardKey{Cluster: "Kubernetes", Provider: provider.Kubernetes}, string(hostname(i)), namespace, all, false)
	}
	s.learn()
	return s
}

func hostname(i int) host.Name {
	return host.Name(serviceName(i) + "." + namespace + ".svc.cluster.local")
}

// learn finds out what names a workload's Envoy asks for.
func (s *istiod) learn() {
	done := make(chan bool)
	st, disconnect := connect(s.server.Discovery.StreamDeltas, func(st *stream, r *discovery.DeltaDiscoveryResponse) {
		st.ack(r)
		for _, x := range r.Resources {
			switch r.TypeUrl {
			case xds.ClusterType:
				if len(x.Name) > 9 && x.Name[:9] == "outbound|" {
					s.endpoints = append(s.endpoints, x.Name)
				}
			case xds.ListenerType:
				var l listener.Listener
				if err := x.Resource.UnmarshalTo(&l); err != nil {
					s.b.Error(err)
				}
				s.tables = append(s.tables, core.ExtractRoutesFromListeners([]*listener.Listener{&l})...)
			}
		}
		if r.TypeUrl == xds.ClusterType {
			st.request(s.subscribe(0, xds.ListenerType))
		} else {
			close(done)
		}
	})
	st.request(s.subscribe(0, xds.ClusterType))
	<-done
	disconnect()
	slices.Sort(s.tables)
	s.tables = slices.Compact(s.tables)
	if len(s.endpoints) != s.mesh.services || !slices.Contains(s.tables, "80") {
		s.b.Fatalf("istiod serves %d services and the tables %v", len(s.endpoints), s.tables)
	}
}

// subscribe is a workload's first request for a type.
func (s *istiod) subscribe(workload int, typ string) *discovery.DeltaDiscoveryRequest {
	r := &discovery.DeltaDiscoveryRequest{TypeUrl: typ}
	switch typ {
	case xds.ClusterType:
		meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.31.0",
			"SERVICE_ACCOUNT": "client", "LABELS": map[string]any{"app": "client"}})
		if err != nil {
			s.b.Error(err)
		}
		r.Node = &envoycore.Node{Metadata: meta,
			Id: fmt.Sprintf("sidecar~%s~client%d.%s~%s.svc.cluster.local", workloadAddr(workload), workload, namespace, namespace)}
	case xds.EndpointType:
		r.ResourceNamesSubscribe = s.endpoints
	case xds.RouteType:
		r.ResourceNamesSubscribe = s.tables
	}
	return r
}

// everything computes the mesh anew and serves it to the workloads, one after the other.
func (s *istiod) everything() cost {
	s.end()
	return measure(func() int {
		before := s.server.Discovery.CommittedUpdates.Load()
		s.server.Discovery.ConfigUpdate(&model.PushRequest{Forced: true})
		for s.server.Discovery.CommittedUpdates.Load() == before {
			time.Sleep(time.Millisecond)
		}
		for w := range s.mesh.workloads {
			s.client(w)
			s.wait(1)
		}
		sent, _ := s.sent()
		return sent
	})
}

// client connects a workload.
func (s *istiod) client(workload int) {
	begun := 1 // types that were asked for
	st, disconnect := connect(s.server.Discovery.StreamDeltas, func(st *stream, r *discovery.DeltaDiscoveryResponse) {
		st.ack(r)
		if begun < len(asked) && r.TypeUrl == asked[begun-1] {
			st.request(s.subscribe(workload, asked[begun]))
			begun++
		}
		if r.TypeUrl == xds.RouteType {
			s.routed <- r
		}
	})
	st.request(s.subscribe(workload, asked[0]))
	s.clients, s.close = append(s.clients, st), append(s.close, disconnect)
}

// wait for n route tables, one a workload.
func (s *istiod) wait(n int) (last *discovery.DeltaDiscoveryResponse) {
	for range n {
		select {
		case last = <-s.routed:
		case <-time.After(2 * time.Minute):
			s.b.Fatal("istiod sends no routes")
		}
	}
	return last
}

// sent sums up what all workloads were sent since the last call, and how many responses of
// each type.
func (s *istiod) sent() (bytes int, responses map[string]int) {
	responses = map[string]int{}
	for _, c := range s.clients {
		n, sent := c.count()
		bytes += n
		for t, k := range sent {
			responses[t] += k
		}
	}
	return bytes, responses
}

// change stores a new version of one VirtualService and has it pushed to all workloads.
func (s *istiod) change(seconds int) cost {
	const service = 7
	next := *s.server.Store().Get(gvk.VirtualService, serviceName(service), namespace)
	spec := proto.Clone(next.Spec.(*v1alpha3.VirtualService)).(*v1alpha3.VirtualService)
	spec.Http[0].Timeout.Seconds = int64(seconds)
	next.Spec = spec
	next.Generation = int64(seconds)
	var last *discovery.DeltaDiscoveryResponse
	var responses map[string]int
	c := measure(func() (bytes int) {
		if _, err := s.server.Store().Update(next); err != nil {
			s.b.Fatal(err)
		}
		last = s.wait(s.mesh.workloads)
		bytes, responses = s.sent()
		return bytes
	})
	if responses[xds.RouteType] != s.mesh.workloads || !s.says(last, service, seconds) {
		s.b.Fatalf("istiod pushed %v for a change of one VirtualService, the new version: %t", responses, s.says(last, service, seconds))
	}
	return c
}

// says reports whether the routes are of that version.
func (s *istiod) says(r *discovery.DeltaDiscoveryResponse, service, seconds int) bool {
	for _, x := range r.Resources {
		var t route.RouteConfiguration
		if err := x.Resource.UnmarshalTo(&t); err != nil {
			s.b.Fatal(err)
		}
		for _, v := range t.VirtualHosts {
			if slices.Contains(v.Domains, string(hostname(service))) && v.Routes[0].GetRoute().GetTimeout().GetSeconds() == int64(seconds) {
				return true
			}
		}
	}
	return false
}

func (s *istiod) end() {
	for _, f := range s.close {
		f()
	}
	s.clients, s.close = nil, nil
}
