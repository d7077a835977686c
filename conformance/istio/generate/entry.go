// SPDX-License-Identifier: Apache-2.0

package generate

import "fmt"

// entries is a ServiceEntry, with addresses, endpoints and workloads as its resolution
// can have, and what steers it.
func (d *draft) entries() {
	about := func(f ...string) { d.about("ServiceEntry", f...) }
	proto := pick(d, "HTTP", "HTTP", "HTTP", "HTTP2", "TCP", "TLS")
	number := map[string]int{"HTTP": 80, "HTTP2": 80, "TCP": 9090, "TLS": 443}[proto]
	port := object{"number": number, "name": "p", "protocol": proto}
	about("ports.protocol", "hosts", "resolution")
	spec := object{"ports": list{port}}
	host := "ext.example.com"
	spec["hosts"] = list{host}
	resolution := pick(d, "STATIC", "STATIC", "DNS", "NONE", "DNS_ROUND_ROBIN")
	spec["resolution"] = resolution
	switch resolution {
	case "STATIC":
		d.static(about, spec, port)
	case "NONE":
		if d.one(2) {
			spec["hosts"] = list{"*.example.com"}
		}
	default:
		d.world = append(d.world, "host ext.example.com 203.0.113.230", "host a.example.net 203.0.113.231")
		if d.one(2) {
			about("endpoints.address")
			spec["endpoints"] = list{object{"address": "a.example.net"}}
		}
	}
	if d.one(4) {
		about("location")
		spec["location"] = pick(d, "MESH_EXTERNAL", "MESH_INTERNAL")
	}
	if d.one(4) {
		about("exportTo")
		spec["exportTo"] = pick(d, list{"."}, list{"*"}, list{"other"})
	}
	if d.one(4) && resolution != "NONE" {
		about("addresses")
		spec["addresses"] = list{"240.0.0.10"}
		d.world = append(d.world, "host ext.example.com 240.0.0.10")
	}
	d.add("ServiceEntry", "default", "ext", spec)
	if d.one(3) {
		d.about("MeshConfig", "outboundTrafficPolicy.mode")
		d.mesh = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"
	}
	if d.one(3) && (proto == "HTTP" || proto == "HTTP2") {
		d.about("VirtualService", "http.route.destination")
		d.add("VirtualService", "default", "ext", object{"hosts": list{host}, "http": list{
			object{"match": list{object{"uri": object{"prefix": "/a"}}}, "route": list{object{"destination": object{"host": "ratings"}}}},
			object{"rewrite": object{"uri": "/new"}, "route": list{object{"destination": object{"host": host}}}}}})
	}
	d.askEntry(proto, number)
}

func (d *draft) askEntry(proto string, number int) {
	for _, from := range []string{"client", "other/client"} {
		for _, h := range []string{"ext.example.com", "sub.example.com", "else.example.org"} {
			switch proto {
			case "TCP":
				d.ask("%s tcp://%s:%d *20", from, h, number)
			case "TLS":
				d.ask("%s tls://%s *20", from, h)
			case "HTTP2":
				d.ask("%s h2c://%s/ *20", from, h)
			default:
				d.ask("%s GET http://%s%s *20", from, h, pick(d, "/", "/a", "/b"))
			}
		}
	}
	if number == 80 {
		d.ask("client GET http://ratings/ host=ext.example.com")
	}
}

func (d *draft) static(about func(...string), spec, port object) {
	if d.one(4) {
		about("ports.targetPort")
		port["targetPort"] = 8080
	}
	if d.one(3) {
		about("workloadSelector.labels")
		d.about("WorkloadEntry", "labels", "address")
		spec["workloadSelector"] = object{"labels": object{"app": "vm"}}
		for i := range 1 + d.IntN(2) {
			w := object{"address": fmt.Sprintf("10.0.5.%d", i+1), "labels": object{"app": "vm"}}
			if d.one(2) {
				d.about("WorkloadEntry", "ports")
				w["ports"] = object{"p": 9000}
			}
			if d.one(2) {
				d.about("WorkloadEntry", "weight")
				w["weight"] = 1 + d.IntN(4)
			}
			d.add("WorkloadEntry", "default", fmt.Sprintf("vm%d", i), w)
		}
		return
	}
	about("endpoints.address")
	var eps list
	for i := range 1 + d.IntN(2) {
		e := object{"address": fmt.Sprintf("203.0.113.21%d", i)}
		if d.one(3) {
			about("endpoints.ports")
			e["ports"] = object{"p": 8000}
		}
		if d.one(3) {
			about("endpoints.weight")
			e["weight"] = 1 + d.IntN(4)
		}
		eps = append(eps, e)
	}
	spec["endpoints"] = eps
}
