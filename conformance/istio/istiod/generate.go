// SPDX-License-Identifier: Apache-2.0

package istiod

import (
	"fmt"
	"strings"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/spiffe"

	"fairlead.io/fairlead/conformance/istio/world"
)

const version = "1.31.0"

// quiet has istiod generate for a stock Envoy, and say nothing. What it needs of its own
// Envoy is telemetry, and the protocol that a sidecar tells another.
func quiet() {
	features.MetadataExchange = false
	features.ALPNFilter = false
	for _, s := range log.Scopes() {
		s.SetOutputLevel(log.NoneLevel)
	}
}

// parse reads objects of Istio as istiod does from a cluster: validated, and with the
// domain that short names belong to.
func parse(text string) ([]config.Config, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	all, unknown, err := crd.ParseInputs(text)
	if err != nil {
		return nil, fmt.Errorf("istiod refuses: %w", err)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("istiod knows no kind %s", unknown[0].Kind)
	}
	for i := range all {
		c := &all[i]
		c.Domain = "cluster.local"
		if c.Namespace == "" {
			c.Namespace = "default"
		}
		if c.CreationTimestamp.IsZero() {
			c.CreationTimestamp = time.Unix(1700000000, 0)
		}
	}
	return all, nil
}

// Valid reports why istiod's validation refuses the objects, or MeshConfig; nil: it does
// not.
func Valid(objects, meshConfig string) error {
	if _, err := mesh.ApplyMeshConfigDefaults(meshConfig); err != nil {
		return err
	}
	_, err := parse(objects)
	return err
}

// serve starts istiod's code on a scenario.
func serve(t *failer, s *world.Scenario) (*xds.FakeDiscoveryServer, error) {
	m, err := mesh.ApplyMeshConfigDefaults(s.Mesh)
	if err != nil {
		return nil, fmt.Errorf("istiod refuses MeshConfig: %w", err)
	}
	all, err := parse(s.Istio)
	if err != nil {
		return nil, err
	}
	objects := s.World.Objects(func(p *world.Pod) map[string]string {
		if s.Sidecars && s.World.Meshed(p) {
			return map[string]string{"security.istio.io/tlsMode": "istio"}
		}
		return nil
	})
	return xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		Configs: all, KubernetesObjectString: strings.Join(objects, "\n---\n"),
		MeshConfig: m, DisableSecretAuthorization: true,
	}), nil
}

// generated is what one sidecar gets.
type generated struct {
	pod       *world.Pod
	listeners []*listener.Listener
	clusters  []*cluster.Cluster
	routes    map[string]*route.RouteConfiguration
	endpoints map[string]*endpoint.ClusterLoadAssignment
}

func generate(s *xds.FakeDiscoveryServer, w *world.World, pod *world.Pod) *generated {
	labels := map[string]string{}
	for k, v := range pod.Labels {
		labels[k] = v
	}
	node := w.Nodes[pod.Node]
	for k, v := range node { // as istiod augments them
		labels[k] = v
	}
	labels["kubernetes.io/hostname"], labels["topology.istio.io/cluster"] = pod.Node, "Kubernetes"
	p := s.SetupProxy(&model.Proxy{
		Type: model.SidecarProxy, ID: pod.Name + "." + pod.Namespace, IPAddresses: []string{pod.Addr.String()}, Labels: labels,
		ConfigNamespace: pod.Namespace, DNSDomain: pod.Namespace + ".svc.cluster.local",
		Locality:         &core.Locality{Region: node["topology.kubernetes.io/region"], Zone: node["topology.kubernetes.io/zone"], SubZone: node["topology.istio.io/subzone"]},
		VerifiedIdentity: &spiffe.Identity{TrustDomain: "cluster.local", Namespace: pod.Namespace, ServiceAccount: pod.Account},
		Metadata: &model.NodeMetadata{
			Namespace: pod.Namespace, Labels: labels, ClusterID: "Kubernetes", ServiceAccount: pod.Account, IstioVersion: version,
			NodeName: pod.Node,
		},
	})
	g := &generated{pod: pod, routes: map[string]*route.RouteConfiguration{}, endpoints: map[string]*endpoint.ClusterLoadAssignment{}}
	g.listeners = s.Listeners(p)
	g.clusters = s.Clusters(p)
	for _, r := range s.RoutesFromListeners(p, g.listeners) {
		g.routes[r.Name] = r
	}
	for _, e := range s.Endpoints(p) {
		g.endpoints[e.ClusterName] = e
	}
	return g
}
