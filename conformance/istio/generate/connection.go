// SPDX-License-Identifier: Apache-2.0

package generate

// connections is a VirtualService of tcp or tls routes.
func (d *draft) connections() {
	tls := d.one(2)
	host, port := "db", 9000
	if tls {
		host, port = "secure", 443
		d.world = append(d.world, "service default/secure 10.96.0.22 tls:443:8443 app=db")
	}
	d.add("DestinationRule", "default", host, object{"host": host, "subsets": list{
		object{"name": "v1", "labels": object{"version": "v1"}}, object{"name": "v2", "labels": object{"version": "v2"}}}})
	kind, fqdn := "tcp", host+".default.svc.cluster.local"
	if tls {
		kind = "tls"
	}
	about := func(f string) { d.about("VirtualService", kind+"."+f) }
	sni := list{fqdn}
	var routes list
	for i := range 1 + d.IntN(3) {
		m := object{}
		if tls {
			about("match.sniHosts")
			m["sniHosts"] = list{pick(d, sni[0], "a.secure.example", "*.secure.example")}
		}
		switch d.IntN(5) {
		case 0:
			about("match.sourceLabels")
			m["sourceLabels"] = object{"app": pick(d, "client", "second")}
		case 1:
			about("match.sourceNamespace")
			m["sourceNamespace"] = pick(d, "default", "other")
		case 2:
			about("match.port")
			m["port"] = pick(d, port, port, 1234)
		}
		r := object{"route": d.connectionRoute(about, fqdn, i)}
		if len(m) > 0 {
			r["match"] = list{m}
		}
		routes = append(routes, r)
	}
	about("route.destination")
	hosts := list{fqdn}
	if tls {
		hosts = list{fqdn, "*.secure.example"}
	}
	d.add("VirtualService", "default", host, object{"hosts": hosts, kind: routes})
	for _, from := range []string{"client", "second", "other/client", "legacy/client"} {
		if !tls {
			d.ask("%s tcp://%s.default:9000 *60", from, host)
			continue
		}
		d.ask("%s tls://%s *60", from, fqdn)
		d.ask("%s tls://%s host=a.secure.example *20", from, fqdn)
	}
	if tls {
		d.ask("client tls://%s host=b.secure.example *20", fqdn)
		d.ask("client tls://%s host=elsewhere.example *40", fqdn)
	}
}

func (d *draft) connectionRoute(about func(string), fqdn string, i int) list {
	to := func(subset string) object { return object{"host": fqdn, "subset": subset} }
	switch d.IntN(3) {
	case 0:
		about("route.weight")
		w := 10 + d.IntN(80)
		return list{object{"destination": to("v1"), "weight": w}, object{"destination": to("v2"), "weight": 100 - w}}
	case 1:
		return list{object{"destination": object{"host": "ratings.default.svc.cluster.local", "port": object{"number": 80}}}}
	}
	about("route.destination.subset")
	return list{object{"destination": to([]string{"v1", "v2"}[i%2])}}
}
