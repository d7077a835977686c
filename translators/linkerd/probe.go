// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.io/fairlead/model"
)

// probes are the paths that the kubelet asks for, by port. Linkerd lets in anybody who
// asks for one of them, unless a Server has routes.
func (g *guard) probes() map[uint16][]string {
	out := map[uint16][]string{}
	for _, c := range containers(g.pod) {
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p == nil || p.HTTPGet == nil {
				continue
			}
			port, ok := probePort(c, p.HTTPGet.Port)
			if path, valid := probePath(p.HTTPGet.Path); ok && valid && !slices.Contains(out[port], path) {
				out[port] = append(out[port], path)
			}
		}
	}
	return out
}

func (g *guard) probedPorts() []uint16 { return slices.Sorted(maps.Keys(g.probes())) }

// probeRules let in everybody who asks for what a probe does.
func (g *guard) probeRules(port uint16) []model.AuthRule {
	paths := g.probes()[port]
	if len(paths) == 0 {
		return nil
	}
	op := model.Operation{Ports: []uint16{port}, Methods: []model.StringMatch{{Kind: model.Exact, Value: http.MethodGet}}}
	slices.Sort(paths)
	for _, p := range paths {
		op.Paths = append(op.Paths, model.StringMatch{Kind: model.Exact, Value: p})
	}
	return []model.AuthRule{{To: []model.Operation{op}, Src: []model.Source{g.o.Source(Plane, "spec.containers")}}}
}

// probePort is the port that a probe asks at; a name is one of the same container.
func probePort(c corev1.Container, port intstr.IntOrString) (uint16, bool) {
	if port.Type == intstr.Int {
		return uint16(port.IntVal), validPort(int64(port.IntVal))
	}
	for _, p := range c.Ports {
		if strings.EqualFold(p.Name, port.StrVal) && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && validPort(int64(p.ContainerPort)) {
			return uint16(p.ContainerPort), true
		}
	}
	return 0, false
}

// probePath is the path without its query.
func probePath(s string) (string, bool) {
	if s == "" {
		return "/", true
	}
	u, err := url.ParseRequestURI(s)
	if err != nil || u.Host != "" {
		return "", false
	}
	return u.EscapedPath(), true
}
