// SPDX-License-Identifier: Apache-2.0

package generate

import "fmt"

// permissions is one to three AuthorizationPolicies over ratings, db or everything.
func (d *draft) permissions() {
	app := pick(d, "ratings", "ratings", "ratings", "db")
	for i := range 1 + d.IntN(3) {
		spec := object{}
		action := pick(d, "ALLOW", "ALLOW", "DENY")
		d.about("AuthorizationPolicy", "action")
		spec["action"] = action
		namespace := "default"
		switch d.IntN(6) {
		case 0:
			d.about("AuthorizationPolicy", "selector.matchLabels")
		case 1:
			namespace = "istio-system"
			spec["selector"] = object{"matchLabels": object{"app": app}}
		default:
			d.about("AuthorizationPolicy", "selector.matchLabels")
			spec["selector"] = object{"matchLabels": object{"app": app}}
		}
		var rules list
		for range d.IntN(3) {
			rules = append(rules, d.rule(app))
		}
		if len(rules) > 0 {
			spec["rules"] = rules
		} else {
			d.about("AuthorizationPolicy", "rules")
		}
		d.add("AuthorizationPolicy", namespace, fmt.Sprintf("p%d", i), spec)
	}
	for _, from := range []string{"client", "second", "other/client"} {
		if app == "db" {
			d.ask("%s tcp://db.default:9000 spread *30", from)
			continue
		}
		d.ask("%s GET http://ratings.default%s%s", from, pick(d, "/a", "/b", "/a/b"), pick(d, "", " x-t:1"))
		d.ask("%s %s http://ratings.default/a", from, pick(d, "GET", "POST", "DELETE"))
	}
	if app != "db" && d.one(4) {
		d.about("VirtualService", "http.rewrite.uri")
		d.add("VirtualService", "default", "ratings", object{"hosts": list{"ratings"}, "http": list{object{"match": list{object{"uri": object{"prefix": "/old"}}}, "rewrite": object{"uri": "/a"},
			"route": list{object{"destination": object{"host": "ratings"}}}}, object{"route": list{object{"destination": object{"host": "ratings"}}}}}})
		d.ask("client GET http://ratings.default/old")
	}
	d.ask("client GET http://reviews.default/ spread")
	d.ask("client GET http://api.other/a")
}

func (d *draft) rule(app string) object {
	r := object{}
	about := func(f string) { d.about("AuthorizationPolicy", "rules."+f) }
	if d.one(2) {
		source := object{}
		for _, f := range some(d, 1, 2, []string{"principals", "namespaces", "serviceAccounts", "ipBlocks", "notPrincipals", "notNamespaces", "notIpBlocks", "notServiceAccounts"}) {
			about("from.source." + f)
			source[f] = map[string]list{
				"principals":         {pick(d, "cluster.local/ns/default/sa/client", "*/sa/client", "cluster.local/ns/default/*", "*")},
				"notPrincipals":      {pick(d, "cluster.local/ns/default/sa/client", "*/sa/second")},
				"namespaces":         {pick(d, "default", "other")},
				"notNamespaces":      {pick(d, "default", "other")},
				"serviceAccounts":    {pick(d, "client", "default/second", "other/client")},
				"notServiceAccounts": {pick(d, "client", "default/second")},
				"ipBlocks":           {pick(d, "10.0.1.1", "10.0.1.2/31")},
				"notIpBlocks":        {pick(d, "10.0.1.1", "10.0.1.2/31")},
			}[f]
		}
		if source["serviceAccounts"] != nil || source["notServiceAccounts"] != nil {
			for _, f := range []string{"principals", "namespaces", "notPrincipals", "notNamespaces"} {
				delete(source, f)
				delete(d.fields, "AuthorizationPolicy rules.from.source."+f)
			}
		}
		r["from"] = list{object{"source": source}}
	}
	if d.one(2) || len(r) == 0 {
		op := object{}
		kinds := []string{"methods", "paths", "hosts", "ports", "notMethods", "notPaths", "notHosts", "notPorts"}
		if app == "db" && !d.one(3) {
			kinds = []string{"ports", "notPorts"}
		}
		for _, f := range some(d, 1, 2, kinds) {
			about("to.operation." + f)
			op[f] = map[string]list{
				"methods": {"GET", pick(d, "POST", "P*")}, "notMethods": {pick(d, "GET", "DELETE")},
				"paths": {pick(d, "/a", "/a*", "*/b", "/{*}", "/a/{**}")}, "notPaths": {pick(d, "/a", "/b*")},
				"hosts": {pick(d, "ratings.default", "ratings*", "*.default")}, "notHosts": {pick(d, "ratings.default", "ratings")},
				"ports": {pick(d, "8080", "9000", "1234")}, "notPorts": {pick(d, "8080", "9000")},
			}[f]
		}
		r["to"] = list{object{"operation": op}}
	}
	if d.one(4) {
		key := pick(d, "request.headers[x-t]", "source.ip", "source.namespace", "destination.port", "source.principal")
		about("when.key")
		value := map[string]string{"request.headers[x-t]": "1", "source.ip": "10.0.1.1", "source.namespace": "default", "destination.port": "8080",
			"source.principal": "cluster.local/ns/default/sa/client"}[key]
		c := object{"key": key}
		if d.one(3) {
			about("when.notValues")
			c["notValues"] = list{value}
		} else {
			about("when.values")
			c["values"] = list{value}
		}
		r["when"] = list{c}
	}
	return r
}

// authentication is PeerAuthentications at several places.
func (d *draft) authentication() {
	mode := func() object { return object{"mode": pick(d, "STRICT", "PERMISSIVE", "UNSET", "DISABLE")} }
	d.about("PeerAuthentication", "mtls.mode")
	for i, ns := range some(d, 1, 2, []string{"default", "istio-system", "other"}) {
		d.add("PeerAuthentication", ns, fmt.Sprintf("n%d", i), object{"mtls": mode()})
	}
	if d.one(2) {
		d.about("PeerAuthentication", "selector.matchLabels")
		spec := object{"selector": object{"matchLabels": object{"app": "ratings"}}, "mtls": mode()}
		if d.one(2) {
			d.about("PeerAuthentication", "portLevelMtls")
			spec["portLevelMtls"] = object{"8080": mode()}
		}
		d.add("PeerAuthentication", "default", "w", spec)
	}
	for _, from := range []string{"client", "legacy/client"} {
		d.ask("%s GET http://ratings.default/", from)
		d.ask("%s GET http://old.default/", from)
		d.ask("%s GET http://api.other/", from)
		d.ask("%s tcp://db.default:9000 spread *30", from)
	}
}
