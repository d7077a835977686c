// SPDX-License-Identifier: Apache-2.0

package generate

import "fmt"

// sidecar hides services from clients.
func (d *draft) sidecar() {
	about := func(f ...string) { d.about("Sidecar", f...) }
	d.add("VirtualService", "default", "old", object{"hosts": list{"old.default.svc.cluster.local"}, "http": list{object{"directResponse": object{"status": 207}}}})
	d.add("VirtualService", "other", "api", object{"hosts": list{"api.other.svc.cluster.local"}, "http": list{object{"directResponse": object{"status": 208}}}})
	spec := object{}
	about("egress.hosts")
	spec["egress"] = list{object{"hosts": some(d, 1, 3, list{"./*", "other/*", "*/*", "./ratings.default.svc.cluster.local", "./old.default.svc.cluster.local",
		"*/api.other.svc.cluster.local", "~/*", "*/*.default.svc.cluster.local"})}}
	namespace := pick(d, "default", "default", "other", "istio-system")
	if d.one(3) && namespace != "istio-system" {
		about("workloadSelector.labels")
		spec["workloadSelector"] = object{"labels": object{"app": pick(d, "client", "second")}}
	}
	if d.one(3) {
		about("outboundTrafficPolicy.mode")
		spec["outboundTrafficPolicy"] = object{"mode": pick(d, "REGISTRY_ONLY", "ALLOW_ANY")}
	}
	d.add("Sidecar", namespace, "s", spec)
	if d.one(4) {
		d.about("MeshConfig", "outboundTrafficPolicy.mode")
		d.mesh = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"
	}
	for _, from := range []string{"client", "second", "other/client"} {
		for _, h := range some(d, 2, 4, []string{"ratings.default", "old.default", "api.other", "unknown.example"}) {
			d.ask("%s GET http://%s/", from, h)
		}
	}
	d.ask("client tcp://db.default:9000 spread *20")
}

// visibility is who sees what: exportTo of several objects for one host.
func (d *draft) visibility() {
	scopes := []list{{"."}, {"*"}, {"other"}, {"default"}, {"default", "other"}}
	host := "reviews.default.svc.cluster.local"
	for i, ns := range []string{"default", "other"} {
		if i == 1 && d.one(3) {
			break
		}
		d.about("VirtualService", "exportTo")
		spec := object{"hosts": list{host}, "http": list{object{"match": list{object{"uri": object{"prefix": pick(d, "/a", "/")}}}, "directResponse": object{"status": 207 + i}}}}
		if !d.one(4) {
			spec["exportTo"] = pick(d, scopes...)
		}
		d.addAt("VirtualService", ns, "v", fmt.Sprintf("2024-0%d-01T00:00:00Z", 1+d.IntN(9)), spec)
	}
	for i, ns := range []string{"default", "other", "istio-system"} {
		if d.one(2) {
			continue
		}
		d.about("DestinationRule", "exportTo")
		spec := object{"host": host, "subsets": list{object{"name": "s", "labels": object{"version": fmt.Sprintf("v%d", i+1)}}}}
		if d.one(2) {
			spec["exportTo"] = pick(d, scopes...)
		}
		d.add("DestinationRule", ns, "d", spec)
	}
	d.add("VirtualService", "default", "ratings", object{"hosts": list{"ratings.default.svc.cluster.local"}, "http": list{object{"route": list{object{"destination": object{"host": host, "subset": "s"}}}}}})
	switch d.IntN(4) {
	case 0:
		d.about("MeshConfig", "defaultVirtualServiceExportTo")
		d.mesh = "defaultVirtualServiceExportTo: [\".\"]\n"
	case 1:
		d.about("MeshConfig", "defaultDestinationRuleExportTo")
		d.mesh = "defaultDestinationRuleExportTo: [\".\"]\n"
	}
	d.about("VirtualService", "hosts")
	for _, from := range []string{"client", "other/client"} {
		for _, p := range []string{"/a", "/b"} {
			d.ask("%s GET http://reviews.default%s", from, p)
		}
		d.ask("%s GET http://ratings.default/", from)
	}
}

// protocols is what a port speaks, as it says or not.
func (d *draft) protocols() {
	name := pick(d, "http", "http2", "grpc", "tcp", "-", "foo", "http-x", "tcp-x", "grpc-web")
	app := ""
	if d.one(2) {
		app = "/" + pick(d, "http", "tcp", "kubernetes.io+h2c", "grpc", "kubernetes.io+ws", "unknown")
		d.about("Service", "spec.ports.appProtocol")
	}
	if name == "-" && app != "" {
		name = "x"
	}
	d.about("Service", "spec.ports.name")
	d.world = append(d.world, fmt.Sprintf("service default/p 10.96.0.30 %s%s:80:8080 app=ratings", name, app))
	if d.one(2) {
		d.about("VirtualService", "http.route.destination")
		d.add("VirtualService", "default", "p", object{"hosts": list{"p"}, "http": list{object{"match": list{object{"uri": object{"prefix": "/d"}}}, "directResponse": object{"status": 207}},
			object{"route": list{object{"destination": object{"host": pick(d, "p", "old")}}}}}})
	}
	d.ask("client GET http://p/")
	d.ask("client GET http://p/d")
	d.ask("client h2c://p/")
	d.ask("client grpc://p/S/M")
	d.ask("other/client GET http://p.default/")
}
