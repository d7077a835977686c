// SPDX-License-Identifier: Apache-2.0

package generate

import "fmt"

// httpRoutes is a VirtualService of http routes: of one to four, in which matches,
// actions and what else a route does are drawn.
func (d *draft) httpRoutes() {
	d.subsets()
	var routes list
	n := 1 + d.IntN(4)
	for i := range n {
		r := object{}
		if i < n-1 || d.one(2) {
			var ms list
			for range 1 + d.IntN(2) {
				ms = append(ms, d.match(1+d.IntN(3), "reviews"))
			}
			r["match"] = ms
		}
		d.action(r, i)
		if d.one(2) {
			for range 1 + d.IntN(2) {
				d.extra(r)
			}
		}
		routes = append(routes, r)
	}
	d.ask("%s", plainRequest("reviews"))
	q := plainRequest("reviews")
	q.path, q.source = "/a/b", pick(d, "client", "second", "other/client")
	d.ask("%s", q)
	d.add("VirtualService", "default", "reviews", object{"hosts": list{"reviews"}, "http": routes})
	if d.one(5) {
		d.secondVirtualService()
	}
	d.policyFor()
}

// policyFor adds, now and then, what is said of a destination beside the routes.
func (d *draft) policyFor() {
	if !d.one(6) {
		return
	}
	d.about("DestinationRule", "trafficPolicy.connectionPool.http.maxRequestsPerConnection")
	d.add("DestinationRule", "default", "ratings", object{"host": "ratings", "trafficPolicy": object{"connectionPool": object{"http": object{"maxRequestsPerConnection": 1}}}})
}

// secondVirtualService is for the same host and comes later, or for another.
func (d *draft) secondVirtualService() {
	d.about("VirtualService", "hosts")
	host := pick(d, "reviews", "ratings", "*.default.svc.cluster.local")
	d.addAt("VirtualService", "default", "z-second", "2024-05-01T00:00:00Z", object{"hosts": list{host}, "http": list{object{"directResponse": object{"status": 207}}}})
	d.ask("%s", plainRequest("ratings"))
	d.ask("%s", plainRequest("old"))
}

// destination draws where requests go.
func (d *draft) destination() object {
	switch d.IntN(6) {
	case 0, 1:
		d.about("VirtualService", "http.route.destination.subset")
		return object{"host": "reviews", "subset": pick(d, "v1", "v2", "v3")}
	case 2:
		d.about("VirtualService", "http.route.destination.port.number")
		return object{"host": "httpbin", "port": object{"number": 8000}}
	case 3:
		d.about("VirtualService", "http.route.destination.host")
		return object{"host": "api.other.svc.cluster.local"}
	}
	return object{"host": pick(d, "ratings", "old")}
}

func (d *draft) action(r object, i int) {
	switch d.IntN(10) {
	case 0:
		d.redirect(r)
	case 1:
		d.about("VirtualService", "http.directResponse.status")
		a := object{"status": pick(d, 200, 204, 418, 503)}
		if d.one(2) {
			d.about("VirtualService", "http.directResponse.body.string")
			a["body"] = object{"string": fmt.Sprintf("route %d", i)}
		}
		r["directResponse"] = a
	case 2, 3:
		d.about("VirtualService", "http.route.weight")
		w := 10 + d.IntN(80)
		a := object{"destination": object{"host": "reviews", "subset": "v1"}, "weight": w}
		b := object{"destination": d.destination(), "weight": 100 - w}
		if d.one(2) {
			d.about("VirtualService", "http.route.headers.request.set", "http.route.headers.response.add")
			a["headers"] = object{"request": object{"set": object{"x-to": "first"}}, "response": object{"add": object{"x-from": "first"}}}
		}
		r["route"] = list{a, b}
		q := plainRequest("reviews")
		q.times = 200
		d.ask("%s", q)
	default:
		d.about("VirtualService", "http.route.destination")
		r["route"] = list{object{"destination": d.destination()}}
	}
}

func (d *draft) redirect(r object) {
	a := object{}
	for _, f := range some(d, 1, 3, []string{"uri", "authority", "scheme", "redirectCode", "port"}) {
		d.about("VirtualService", "http.redirect."+f)
		a[f] = map[string]any{"uri": "/new", "authority": pick(d, "other.example", "other.example:8443"), "scheme": pick(d, "https", "http"),
			"redirectCode": pick(d, 302, 303, 307, 308), "port": pick(d, 80, 443, 8443)}[f]
	}
	if a["port"] != nil && a["authority"] != nil {
		a["authority"] = "other.example" // two ports make no address
	}
	r["redirect"] = a
}

// extra is what a route does besides.
func (d *draft) extra(r object) {
	_, direct := r["directResponse"]
	_, redirects := r["redirect"]
	routes := !direct && !redirects
	about := func(f ...string) {
		for _, f := range f {
			d.about("VirtualService", "http."+f)
		}
	}
	choice := d.IntN(10)
	if !routes && choice > 1 {
		choice = d.IntN(2)
	}
	switch choice {
	case 0:
		about("headers.response.set", "headers.response.add", "headers.response.remove")
		d.headers(r, "response", object{"set": object{"x-upstream-only": "set"}, "add": object{"x-more": pick(d, "1", "2")}, "remove": list{"x-not-there"}})
	case 1:
		about("corsPolicy.allowOrigins", "corsPolicy.allowMethods")
		c := object{"allowOrigins": list{object{pick(d, "exact", "prefix"): "https://ok.example"}}, "allowMethods": list{"GET", "PUT"}}
		if d.one(2) {
			about("corsPolicy.allowHeaders", "corsPolicy.maxAge", "corsPolicy.allowCredentials", "corsPolicy.exposeHeaders")
			c["allowHeaders"], c["maxAge"], c["allowCredentials"], c["exposeHeaders"] = list{"x-h"}, "60s", d.one(2), list{"x-e"}
		}
		if d.one(3) {
			about("corsPolicy.unmatchedPreflights")
			c["unmatchedPreflights"] = pick(d, "FORWARD", "IGNORE")
		}
		r["corsPolicy"] = c
		for _, o := range []string{"https://ok.example", "https://bad.example"} {
			q := plainRequest("reviews")
			q.method, q.headers = "OPTIONS", []string{"origin:" + o, "access-control-request-method:PUT"}
			d.ask("%s", q)
		}
	case 2:
		about("headers.request.set", "headers.request.add", "headers.request.remove")
		d.headers(r, "request", object{"set": object{pick(d, "x-a", "x-set"): "new"}, "add": object{"x-b": "more"}, "remove": list{pick(d, "x-c", "user-agent")}})
	case 3:
		w := object{}
		switch d.IntN(3) {
		case 0:
			about("rewrite.uri")
			w["uri"] = pick(d, "/", "/new", "/new/")
		case 1:
			about("rewrite.uriRegexRewrite")
			w["uriRegexRewrite"] = object{"match": pick(d, "^/([^/]+)/(.*)$", "(a)"), "rewrite": pick(d, `/\1`, `<\0>`)}
		default:
			about("rewrite.authority")
		}
		if len(w) == 0 || d.one(2) {
			about("rewrite.authority")
			w["authority"] = pick(d, "in.example", "in.example:8080")
		}
		r["rewrite"] = w
	case 4:
		about("timeout")
		r["timeout"] = "0.3s"
		q := plainRequest("reviews")
		q.headers, q.times = []string{"x-echo-delay:900ms"}, 1
		d.ask("%s", q)
	case 5, 6:
		d.retries(r)
	case 7:
		if _, cors := r["corsPolicy"]; !cors || d.one(2) {
			d.fault(r)
		}
	case 8:
		about("mirror")
		r["mirror"] = d.mirrored()
		if d.one(2) {
			about("mirrorPercentage")
			r["mirrorPercentage"] = object{"value": pick(d, 0, 40, 100)}
			q := plainRequest("reviews")
			q.times = 200
			d.ask("%s", q)
		}
	case 9:
		about("mirrors")
		r["mirrors"] = list{object{"destination": d.mirrored(), "percentage": object{"value": pick(d, 30, 100)}}, object{"destination": object{"host": "httpbin", "port": object{"number": 8000}}}}
		delete(r, "mirror")
		delete(r, "mirrorPercentage")
		q := plainRequest("reviews")
		q.times = 200
		d.ask("%s", q)
	}
}

func (d *draft) mirrored() object {
	return pick(d, object{"host": "old"}, object{"host": "reviews", "subset": "v3"}, object{"host": "api.other.svc.cluster.local"})
}

func (d *draft) headers(r object, side string, edit object) {
	h, _ := r["headers"].(object)
	if h == nil {
		h = object{}
		r["headers"] = h
	}
	h[side] = edit
}

func (d *draft) retries(r object) {
	d.about("VirtualService", "http.retries.attempts")
	a := object{"attempts": d.IntN(4)}
	on := pick(d, "", "5xx", "gateway-error", "418,reset", "connect-failure,refused-stream", "retriable-4xx", "reset")
	if on != "" {
		d.about("VirtualService", "http.retries.retryOn")
		a["retryOn"] = on
	}
	if d.one(3) && a["attempts"] != 0 {
		d.about("VirtualService", "http.retries.retryIgnorePreviousHosts")
		a["retryIgnorePreviousHosts"] = d.one(2)
	}
	r["retries"] = a
	for _, h := range some(d, 1, 2, []string{"x-echo-status:500", "x-echo-status:503", "x-echo-status:418", "x-echo-status:409", "x-echo-reset:1"}) {
		q := plainRequest("reviews")
		q.headers, q.times = []string{h}, 1
		d.ask("%s", q)
	}
	// Which of several servers is asked again is left open.
	if dests, ok := r["route"].(list); ok && len(dests) == 1 {
		r["route"] = list{object{"destination": object{"host": "ratings"}}}
	} else if ok {
		r["route"] = list{object{"destination": object{"host": "old"}}}
	}
}

func (d *draft) fault(r object) {
	f := object{}
	if d.one(2) {
		d.about("VirtualService", "http.fault.abort.httpStatus", "http.fault.abort.percentage")
		f["abort"] = object{"httpStatus": pick(d, 400, 503, 555), "percentage": object{"value": pick(d, 100, 100, 40, 0)}}
		q := plainRequest("reviews")
		q.times = 200
		d.ask("%s", q)
	} else {
		d.about("VirtualService", "http.fault.delay.fixedDelay", "http.fault.delay.percentage")
		f["delay"] = object{"fixedDelay": "0.3s", "percentage": object{"value": pick(d, 100, 0)}}
	}
	r["fault"] = f
}
