// SPDX-License-Identifier: Apache-2.0

package generate

// trafficPolicy is a DestinationRule whose policy stands at one of the four places where
// it can, with a route that uses it.
func (d *draft) trafficPolicy() {
	policy := object{}
	var fields []string
	host := "reviews"
	block := func(name string, value object, f ...string) {
		in, _ := policy[name].(object)
		if in == nil {
			in = object{}
			policy[name] = in
		}
		for k, v := range value {
			if have, ok := in[k].(object); ok {
				for kk, vv := range v.(object) {
					have[kk] = vv
				}
				continue
			}
			in[k] = v
		}
		for _, f := range f {
			fields = append(fields, name+"."+f)
		}
	}
	for range 1 + d.IntN(2) {
		switch d.IntN(9) {
		case 0:
			block("loadBalancer", object{"simple": pick(d, "ROUND_ROBIN", "RANDOM", "LEAST_REQUEST")}, "simple")
			d.ask("client GET http://reviews/ *60 order spread")
		case 1, 2:
			d.hash(block)
		case 3:
			host = "ratings"
			block("connectionPool", object{"tcp": object{"maxConnections": 1}, "http": object{"http1MaxPendingRequests": 1}}, "tcp.maxConnections", "http.http1MaxPendingRequests")
			d.ask("client GET http://ratings/ x-echo-delay:900ms *6 together")
		case 4:
			block("connectionPool", object{"http": object{"maxRequestsPerConnection": 1 + d.IntN(3)}}, "http.maxRequestsPerConnection")
		case 5:
			block("connectionPool", object{"http": object{"h2UpgradePolicy": pick(d, "UPGRADE", "DO_NOT_UPGRADE")}}, "http.h2UpgradePolicy")
		case 6:
			block("connectionPool", object{"tcp": object{"connectTimeout": "0.5s", "tcpKeepalive": object{"time": "30s"}}, "http": object{"idleTimeout": "2s"}}, "tcp.connectTimeout", "tcp.tcpKeepalive", "http.idleTimeout")
		case 7:
			host = "ratings"
			n := 2 + d.IntN(2)
			block("outlierDetection", object{pick(d, "consecutive5xxErrors", "consecutiveGatewayErrors"): n, "interval": "60s", "baseEjectionTime": "30s", "maxEjectionPercent": pick(d, 0, 100)}, "consecutive5xxErrors", "consecutiveGatewayErrors", "maxEjectionPercent")
			d.ask("client GET http://ratings/ x-echo-status:%d *%d", pick(d, 500, 503), n)
			d.ask("client GET http://ratings/ *3")
		case 8:
			d.locality(block)
		}
	}
	if lb, ok := policy["loadBalancer"].(object); ok && lb["consistentHash"] != nil {
		delete(lb, "simple")
	}
	spec := object{"host": host}
	about := func(at string) {
		for _, f := range fields {
			d.about("DestinationRule", at+"."+f)
		}
	}
	switch d.IntN(4) {
	case 0:
		about("subsets.trafficPolicy")
		spec["subsets"] = list{object{"name": "all", "labels": object{"app": host}, "trafficPolicy": policy}}
		d.add("VirtualService", "default", host, object{"hosts": list{host}, "http": list{object{"route": list{object{"destination": object{"host": host, "subset": "all"}}}}}})
	case 1:
		about("trafficPolicy.portLevelSettings")
		policy["port"] = object{"number": pick(d, 80, 80, 8080)}
		spec["trafficPolicy"] = object{"portLevelSettings": list{policy}, "loadBalancer": object{"simple": "RANDOM"}}
	default:
		about("trafficPolicy")
		spec["trafficPolicy"] = policy
		if d.one(3) {
			d.about("DestinationRule", "exportTo")
			spec["exportTo"] = pick(d, list{"."}, list{"*"}, list{"other"})
		}
	}
	d.add("DestinationRule", "default", host, spec)
	d.ask("client GET http://%s/", host)
	d.ask("client h2c://%s/", host)
	d.ask("other/client GET http://%s.default/", host)
	if d.one(3) {
		d.add("VirtualService", "default", "old", object{"hosts": list{"old"}, "http": list{object{"route": list{object{"destination": object{"host": host}}}}}})
		d.ask("client GET http://old/ x-user:alice *40 spread")
	}
}

type blockFunc = func(name string, value object, fields ...string)

func (d *draft) hash(block blockFunc) {
	by, field := object{}, ""
	switch d.IntN(4) {
	case 0:
		by["httpHeaderName"], field = "x-user", "httpHeaderName"
		d.ask("client GET http://reviews/ x-user:%s *40 spread", pick(d, "alice", "bob"))
	case 1:
		c := object{"name": "user"}
		if d.one(2) {
			c["ttl"], c["path"] = pick(d, "0s", "60s"), "/"
		}
		by["httpCookie"], field = c, "httpCookie"
		d.ask("client GET http://reviews/ cookie:user=carol *40 spread")
	case 2:
		by["useSourceIp"], field = true, "useSourceIp"
		d.ask("second GET http://reviews/ *40 spread")
	default:
		by["httpQueryParameterName"], field = "q", "httpQueryParameterName"
		d.ask("client GET http://reviews/?q=1 *40 spread")
	}
	f := []string{"consistentHash." + field}
	switch d.IntN(3) {
	case 0:
		by["maglev"] = object{}
		f = append(f, "consistentHash.maglev")
	case 1:
		by["ringHash"] = object{"minimumRingSize": pick(d, 64, 2048)}
		f = append(f, "consistentHash.ringHash.minimumRingSize")
	}
	d.ask("client GET http://reviews/ *40 spread")
	block("loadBalancer", object{"consistentHash": by}, f...)
}

func (d *draft) locality(block blockFunc) {
	d.world = append(d.world, "pod default/reviews-v2 10.0.0.12 node=node-2 app=reviews,version=v2", "pod default/reviews-v3 10.0.0.13 node=node-3 app=reviews,version=v3")
	l := object{}
	f := []string{"localityLbSetting"}
	switch d.IntN(4) {
	case 0:
		l["enabled"] = d.one(2)
		f[0] += ".enabled"
	case 1:
		l["distribute"] = list{object{"from": pick(d, "r1/z1/*", "r1/*"), "to": object{"r1/*": 30, "r2/*": 70}}}
		f[0] += ".distribute"
	case 2:
		l["failover"] = list{object{"from": "r1", "to": "r2"}}
		f[0] += ".failover"
	case 3:
		l["failoverPriority"] = list{pick(d, "version", "app", "topology.kubernetes.io/region")}
		f[0] += ".failoverPriority"
	}
	block("loadBalancer", object{"localityLbSetting": l}, f...)
	if !d.one(4) {
		block("outlierDetection", object{"consecutive5xxErrors": 100}, "consecutive5xxErrors")
	}
	d.ask("client GET http://reviews/ *200")
}
