// SPDX-License-Identifier: Apache-2.0

// Package world says what a scenario is: the cluster that it plays in, the objects of
// Istio that are in force there, and the requests that are sent. It knows neither of
// the two halves that are compared.
package world

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Pod is one pod. Its address answers at every port of wire.EchoPorts.
type Pod struct {
	Namespace, Name string
	Addr            netip.Addr
	Account         string
	Labels          map[string]string
	Node            string
	// Outside the mesh: it has no sidecar, and is not captured.
	Outside bool
}

// Key is ns/name.
func (p *Pod) Key() string { return p.Namespace + "/" + p.Name }

// Service is one service; its endpoints are the pods that it selects.
type Service struct {
	Namespace, Name string
	Addr            netip.Addr // invalid: headless
	Ports           []Port
	Selector        map[string]string
	Annotations     map[string]string
}

// Port is a port of a service.
type Port struct {
	Name        string
	AppProtocol string
	Port        uint16
	Target      uint16
}

// World is the cluster of one scenario.
type World struct {
	Namespaces map[string]map[string]string // labels
	Nodes      map[string]map[string]string // labels
	Pods       []*Pod
	Services   []*Service
	// DNS is what names mean that are no service's.
	DNS map[string]netip.Addr
}

// Base is what every scenario starts from.
//
// "reviews" has three versions, a pod each; the other services have one pod. What has
// no version is v1.
const Base = `
namespace default istio-injection=enabled
namespace other istio-injection=enabled
namespace legacy
namespace istio-system
node node-1 topology.kubernetes.io/region=r1,topology.kubernetes.io/zone=z1
node node-2 topology.kubernetes.io/region=r1,topology.kubernetes.io/zone=z2
node node-3 topology.kubernetes.io/region=r2,topology.kubernetes.io/zone=z3
pod default/client 10.0.1.1 app=client
pod default/second 10.0.1.2 app=second,tier=edge
pod other/client 10.0.1.3 app=client
pod legacy/client 10.0.1.4 app=client
pod default/reviews-v1 10.0.0.11 app=reviews,version=v1
pod default/reviews-v2 10.0.0.12 app=reviews,version=v2
pod default/reviews-v3 10.0.0.13 app=reviews,version=v3
pod default/ratings 10.0.0.21 app=ratings
pod default/old 10.0.0.31 app=old
pod default/httpbin 10.0.0.51 app=httpbin
pod default/db-v1 10.0.0.61 app=db,version=v1
pod default/db-v2 10.0.0.62 app=db,version=v2
pod default/web-0 10.0.0.71 app=web
pod other/api 10.0.0.41 app=api
service default/reviews 10.96.0.1 http:80:8080 app=reviews
service default/ratings 10.96.0.2 http:80:8080 app=ratings
service default/old 10.96.0.3 http:80:8080 app=old
service default/httpbin 10.96.0.5 http:8000:8080 app=httpbin
service default/db 10.96.0.6 tcp:9000:9000 app=db
service default/web None http:80:80 app=web
service other/api 10.96.0.4 http:80:8080 app=api
`

// Parse adds what lines say to a world: the base's for a scenario's own.
func (w *World) Parse(text string) error {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if err := w.line(f[0], f[1:]); err != nil {
			return fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
		}
	}
	return nil
}

func (w *World) line(what string, f []string) error {
	if len(f) == 0 {
		return fmt.Errorf("no name")
	}
	rest := f[1:]
	switch what {
	case "namespace":
		put(&w.Namespaces, f[0], labels(rest))
	case "node":
		put(&w.Nodes, f[0], labels(rest))
	case "host":
		a, err := netip.ParseAddr(rest[0])
		put(&w.DNS, f[0], a)
		return err
	case "pod":
		return w.pod(f[0], rest)
	case "service":
		return w.service(f[0], rest)
	case "no":
		w.remove(f[0])
	default:
		return fmt.Errorf("want namespace, node, host, pod, service or no")
	}
	return nil
}

func (w *World) pod(key string, f []string) error {
	ns, name, _ := strings.Cut(key, "/")
	p := &Pod{Namespace: ns, Name: name, Node: "node-1", Account: name, Labels: map[string]string{}}
	var err error
	if p.Addr, err = netip.ParseAddr(f[0]); err != nil {
		return err
	}
	for _, o := range f[1:] {
		k, v, set := strings.Cut(o, "=")
		switch {
		case k == "node" && !strings.Contains(o, ","):
			p.Node = v
		case k == "account":
			p.Account = v
		case o == "outside":
			p.Outside = true
		case set:
			p.Labels = labels([]string{o})
		default:
			return fmt.Errorf("option %q", o)
		}
	}
	if p.Labels["version"] == "" {
		p.Labels["version"] = "v1"
	}
	w.remove(key)
	w.Pods = append(w.Pods, p)
	return nil
}

func (w *World) service(key string, f []string) error {
	ns, name, _ := strings.Cut(key, "/")
	s := &Service{Namespace: ns, Name: name, Annotations: map[string]string{}}
	var err error
	if f[0] != "None" {
		if s.Addr, err = netip.ParseAddr(f[0]); err != nil {
			return err
		}
	}
	for _, o := range f[1:] {
		if strings.Contains(o, "=") {
			if v, ok := strings.CutPrefix(o, "exportTo="); ok {
				s.Annotations["networking.istio.io/exportTo"] = v
				continue
			}
			s.Selector = labels([]string{o})
			continue
		}
		for _, one := range strings.Split(o, ",") {
			p, err := port(one)
			if err != nil {
				return err
			}
			s.Ports = append(s.Ports, p)
		}
	}
	w.Services = slices.DeleteFunc(w.Services, func(x *Service) bool { return x.Namespace == ns && x.Name == name })
	w.Services = append(w.Services, s)
	return nil
}

// port reads NAME[/APP-PROTOCOL]:PORT[:TARGET]; the name may be "-".
func port(s string) (Port, error) {
	f := strings.Split(s, ":")
	if len(f) < 2 {
		return Port{}, fmt.Errorf("port %q: want NAME:PORT:TARGET", s)
	}
	var p Port
	p.Name, p.AppProtocol, _ = strings.Cut(f[0], "/")
	if p.Name == "-" {
		p.Name = ""
	}
	if _, err := fmt.Sscan(f[1], &p.Port); err != nil {
		return p, err
	}
	p.Target = p.Port
	if len(f) > 2 {
		if _, err := fmt.Sscan(f[2], &p.Target); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (w *World) remove(key string) {
	ns, name, _ := strings.Cut(key, "/")
	w.Pods = slices.DeleteFunc(w.Pods, func(p *Pod) bool { return p.Namespace == ns && p.Name == name })
}

// Pod with this key, ns/name or, in the namespace default, name; nil if there is none.
func (w *World) Pod(key string) *Pod {
	if !strings.Contains(key, "/") {
		key = "default/" + key
	}
	for _, p := range w.Pods {
		if p.Key() == key {
			return p
		}
	}
	return nil
}

// PodAt is the pod that has the address; nil if none has.
func (w *World) PodAt(a netip.Addr) *Pod {
	for _, p := range w.Pods {
		if p.Addr == a {
			return p
		}
	}
	return nil
}

// Meshed reports whether the pod has a sidecar in Istio and is captured here.
func (w *World) Meshed(p *Pod) bool {
	return !p.Outside && w.Namespaces[p.Namespace]["istio-injection"] == "enabled"
}

// Endpoints are the pods of a service.
func (w *World) Endpoints(s *Service) []*Pod {
	var out []*Pod
	if len(s.Selector) == 0 {
		return nil
	}
	for _, p := range w.Pods {
		if p.Namespace == s.Namespace && has(p.Labels, s.Selector) {
			out = append(out, p)
		}
	}
	return out
}

// Resolve is what the cluster's DNS says of a name that a pod asks for.
func (w *World) Resolve(host string, from *Pod) (netip.Addr, error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		return a, nil
	}
	if a, ok := w.DNS[host]; ok {
		return a, nil
	}
	name, ns := strings.TrimSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc"), ""
	name, ns, _ = strings.Cut(name, ".")
	if ns == "" && from != nil {
		ns = from.Namespace
	}
	for _, s := range w.Services {
		if s.Name != name || s.Namespace != ns {
			continue
		}
		if s.Addr.IsValid() {
			return s.Addr, nil
		}
		if eps := w.Endpoints(s); len(eps) > 0 {
			return eps[0].Addr, nil
		}
	}
	return somewhere(host), nil
}

// somewhere is an address in the Internet for a name, the same each time.
func somewhere(host string) netip.Addr {
	h := uint32(2166136261)
	for _, c := range []byte(host) {
		h = (h ^ uint32(c)) * 16777619
	}
	return netip.AddrFrom4([4]byte{203, 0, 113, byte(h%200) + 10})
}

func labels(f []string) map[string]string {
	out := map[string]string{}
	for _, o := range f {
		for _, kv := range strings.Split(o, ",") {
			k, v, _ := strings.Cut(kv, "=")
			out[k] = v
		}
	}
	return out
}

func has(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func put[V any](m *map[string]V, k string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[k] = v
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
