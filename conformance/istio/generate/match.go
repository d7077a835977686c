// SPDX-License-Identifier: Apache-2.0

package generate

// condition is one part of a match: how it is written, and what meets and what misses it.
type condition struct {
	field    string // below http.match
	put      func(object)
	meet     func(*request)
	miss     func(*request)
	replaces string // conditions of one name exclude each other
}

func set(key string, value any) func(object) { return func(m object) { m[key] = value } }

// put2 sets an entry of a map in a match.
func put2(key, name string, value any) func(object) {
	return func(m object) {
		in, _ := m[key].(object)
		if in == nil {
			in = object{}
			m[key] = in
		}
		in[name] = value
	}
}

// conditions draws one of each sort.
func (d *draft) conditions() []condition {
	path := pick(d, "/a", "/a/b", "/ab", "/x/1", "/Case")
	header, value := pick(d, "x-a", "x-b"), pick(d, "1", "2", "abc")
	other := pick(d, "x-c", "x-a")
	param := pick(d, "p", "q")
	to := func(p string) func(*request) { return func(q *request) { q.path = p } }
	with := func(h string) func(*request) { return func(q *request) { q.headers = append(q.headers, h) } }
	ask := func(p string) func(*request) { return func(q *request) { q.query = append(q.query, p) } }
	nothing := func(*request) {}
	all := []condition{
		{"uri.exact", set("uri", object{"exact": path}), to(path), to(pick(d, path+"/", path+"x", "/")), "uri"},
		{"uri.prefix", set("uri", object{"prefix": path}), to(pick(d, path, path+"x", path+"/y")), to(pick(d, "/z"+path, path[:len(path)-1])), "uri"},
		{"uri.regex", set("uri", object{"regex": pick(d, "/a.*", "/[a-z]+/[0-9]+", ".*b")}), to(pick(d, "/ab", "/x/1", "/a/b")), to(pick(d, "/x/1y", "/zz")), "uri"},
		{"ignoreUriCase", func(m object) { m["uri"] = object{"prefix": "/Case"}; m["ignoreUriCase"] = true }, to(pick(d, "/CASE", "/case/x", "/Case")), to("/cas"), "uri"},
		{"headers.exact", put2("headers", header, object{"exact": value}), with(header + ":" + value), with(header + ":" + value + "0"), "h"},
		{"headers.prefix", put2("headers", header, object{"prefix": value}), with(header + ":" + value + "0"), with(header + ":0" + value), "h"},
		{"headers.regex", put2("headers", header, object{"regex": value + "+"}), with(header + ":" + value), with(header + ":" + value + "z"), "h"},
		{"headers", put2("headers", header, object{}), with(header + ":" + pick(d, "", "z")), nothing, "h"},
		{"withoutHeaders.exact", put2("withoutHeaders", other, object{"exact": value}), nothing, with(other + ":" + value), "w"},
		{"withoutHeaders.prefix", put2("withoutHeaders", other, object{"prefix": value}), with(other + ":0" + value), with(other + ":" + value + "0"), "w"},
		{"withoutHeaders.regex", put2("withoutHeaders", other, object{"regex": value + ".*"}), nothing, with(other + ":" + value + "0"), "w"},
		{"withoutHeaders", put2("withoutHeaders", other, object{}), nothing, with(other + ":"), "w"},
		{"queryParams.exact", put2("queryParams", param, object{"exact": value}), ask(param + "=" + value), ask(param + "=" + value + "0"), "q"},
		{"queryParams.prefix", put2("queryParams", param, object{"prefix": value}), ask(param + "=" + value + "0"), ask(param + "=0"), "q"},
		{"queryParams.regex", put2("queryParams", param, object{"regex": "[0-9]+"}), ask(param + "=12"), ask(param + "=1x"), "q"},
		{"method.exact", set("method", object{"exact": pick(d, "POST", "PUT")}), func(q *request) { q.method = "POST" }, func(q *request) { q.method = "GET" }, "method"},
		{"method.prefix", set("method", object{"prefix": "P"}), func(q *request) { q.method = "PUT" }, func(q *request) { q.method = "DELETE" }, "method"},
		{"method.regex", set("method", object{"regex": "GET|DELETE"}), func(q *request) { q.method = "DELETE" }, func(q *request) { q.method = "POST" }, "method"},
		{"authority.exact", set("authority", object{"exact": "reviews"}), nothing, func(q *request) { q.host = "reviews.default" }, "authority"},
		{"authority.prefix", set("authority", object{"prefix": "reviews.d"}), func(q *request) { q.host = "reviews.default" }, nothing, "authority"},
		{"authority.regex", set("authority", object{"regex": "reviews(:[0-9]+)?"}), func(q *request) { q.authority = "reviews:80" }, func(q *request) { q.host = "reviews.default.svc" }, "authority"},
		{"scheme.exact", set("scheme", object{"exact": pick(d, "http", "https")}), nothing, nothing, "scheme"},
		{"port", set("port", pick(d, 80, 80, 8080)), nothing, nothing, "port"},
		{"sourceLabels", set("sourceLabels", object{"app": pick(d, "second", "client")}), func(q *request) { q.source = "second" }, func(q *request) { q.source = "client" }, "source"},
		{"sourceNamespace", set("sourceNamespace", pick(d, "default", "other")), func(q *request) { q.source = "other/client" }, func(q *request) { q.source = "second" }, "source"},
		{"gateways", set("gateways", list{"mesh"}), nothing, nothing, "gateways"},
		{"name", set("name", "m"), nothing, nothing, "name"},
	}
	return all
}

// match draws the conditions of one match and asks what meets it, and what just does not.
func (d *draft) match(n int, host string) object {
	m := object{}
	var chosen []condition
	taken := map[string]bool{}
	for _, c := range some(d, 12, 12, d.conditions()) {
		if len(chosen) == n || taken[c.replaces] || taken["gateways"] && c.replaces == "source" || taken["source"] && c.replaces == "gateways" {
			continue
		}
		taken[c.replaces] = true
		chosen = append(chosen, c)
		d.about("VirtualService", "http.match."+c.field)
		c.put(m)
	}
	miss := d.IntN(len(chosen))
	met, missed := plainRequest(host), plainRequest(host)
	for i, c := range chosen {
		c.meet(&met)
		if i == miss {
			c.miss(&missed)
		} else {
			c.meet(&missed)
		}
	}
	for _, q := range []request{met, missed} {
		if q.source == "other/client" {
			q.authority = "" // a bare name is its own namespace's
		}
		if d.one(4) {
			q.scheme = "h2c"
		}
		d.ask("%s", q)
	}
	return m
}
