// SPDX-License-Identifier: Apache-2.0

// Package triage asks both halves the same, and says whether they answer alike: equal,
// as a diagnostic has declared, or neither, which is a bug.
package triage

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/conformance/istio/wire"
	"fairlead.io/fairlead/conformance/istio/world"
)

// step is the unit in which times are compared: scenarios use multiples of it.
const step = 300 * time.Millisecond

// describe is what a client and the servers have seen of one request, without what
// differs from run to run or is no business of configuration.
//
// Where hosts that nobody knows are refused, Istio answers 502 at ports for which a sidecar
// happens to have a listener of requests, and closes at others: refused is refused.
func (a *asker) describe(q *world.Request, r *wire.Reply) string {
	w := a.world
	timed := a.delays || q.Waits()
	if a.refuses && r.Server == nil && (r.Failure == "closed" || r.Status == http.StatusBadGateway) {
		return "refused"
	}
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	switch {
	case r.Failure != "":
		say("%s", r.Failure)
	case r.Status != 0:
		say("%d", r.Status)
	default:
		say("ok")
	}
	if r.Failure == "" {
		if r.Server == nil && ownWords(r.Body) {
			r.Headers.Del("content-type")
		} else if r.Server == nil && r.Status != 0 {
			say("body{%s}", strings.TrimSpace(r.Body))
		}
		if h := responseHeaders(r); h != "" {
			say("headers{%s}", h)
		}
	}
	if n := (r.Took + step/5) / step; timed && n > 0 {
		say("took %v", time.Duration(n)*step)
	}
	rest := slices.Clone(r.Seen)
	if r.Server != nil {
		say("%s", arrival(w, q, r.Server, true))
		if i := slices.IndexFunc(rest, func(a wire.Arrival) bool { return a.Server == r.Server.Server }); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		}
	}
	var more []string
	for i := range rest {
		more = append(more, arrival(w, q, &rest[i], false))
	}
	slices.Sort(more)
	for _, m := range more {
		say("and %s", m)
	}
	return strings.Join(out, " ")
}

// arrival is where a request came to, and as what.
func arrival(w *world.World, q *world.Request, a *wire.Arrival, headers bool) string {
	name := a.Server.Addr().String()
	if p := w.PodAt(a.Server.Addr()); p != nil {
		name = strings.TrimPrefix(p.Key(), "default/")
	}
	if q.Spread {
		name = "somebody"
	}
	s := fmt.Sprintf("→ %s:%d", name, a.Server.Port())
	if a.Method == "" {
		if a.Authority != "" {
			s += " sni=" + a.Authority
		}
		return s
	}
	s += fmt.Sprintf(" %s %s %s %s", a.Proto, a.Method, a.Authority, a.Path)
	if headers {
		if h := requestHeaders(a.Headers); h != "" {
			s += " {" + h + "}"
		}
	}
	return s
}

// noise is what proxies add on their own account: for tracing, for each other, and for
// people.
var noise = map[string]bool{
	"x-request-id": true, "x-forwarded-proto": true, "x-envoy-attempt-count": true, "x-envoy-expected-rq-timeout-ms": true,
	"x-envoy-internal": true, "x-envoy-decorator-operation": true, "x-envoy-peer-metadata": true, "x-envoy-peer-metadata-id": true,
	"x-forwarded-client-cert": true, "x-b3-traceid": true, "x-b3-spanid": true, "x-b3-sampled": true, "x-b3-parentspanid": true,
	"traceparent": true, "tracestate": true, "x-forwarded-for": true, "x-envoy-original-path": true, "x-envoy-original-host": true,
	"content-length": true, "transfer-encoding": true, "connection": true, wire.ID: true, "x-forwarded-host": true, "user-agent": true, "accept-encoding": true,
	"x-envoy-external-address": true, "te": true, "x-envoy-original-dst-host": true, "x-envoy-retry-on": true, "x-envoy-max-retries": true,
	"grpc-timeout": true, "x-envoy-is-timeout-retry": true, "x-envoy-hedge-on-per-try-timeout": true,
}

func requestHeaders(h map[string][]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if noise[k] || strings.HasPrefix(k, "x-echo-") {
			continue
		}
		out = append(out, k+"="+strings.Join(h[k], ","))
	}
	return strings.Join(out, " ")
}

// responseNoise differs by moment, or by which proxy was last.
var responseNoise = map[string]bool{
	"date": true, "server": true, "x-envoy-upstream-service-time": true, "content-length": true, "connection": true, "transfer-encoding": true,
	"x-envoy-decorator-operation": true, "x-echo": true, "x-envoy-attempt-count": true, "x-envoy-overloaded": true,
	"x-envoy-ratelimited": true, "x-envoy-peer-metadata": true, "x-envoy-peer-metadata-id": true,
}

func responseHeaders(r *wire.Reply) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(r.Headers)) {
		name := strings.ToLower(k)
		v := strings.Join(r.Headers[http.CanonicalHeaderKey(k)], ",")
		switch {
		case responseNoise[name], name == "x-upstream-only" && v == "u", name == "content-type" && r.Server != nil:
			continue
		case name == "grpc-message":
			continue
		case name == "set-cookie":
			v = cookie(v)
		}
		out = append(out, name+"="+v)
	}
	return strings.Join(out, " ")
}

// cookie is one without its value, which is a hash of addresses.
func cookie(v string) string {
	name, rest, _ := strings.Cut(v, "=")
	_, attributes, _ := strings.Cut(rest, ";")
	return name + "=…;" + attributes
}

// ownWords reports whether a body is what Envoy says, or does not, of why it could not
// reach anybody. That is for people.
func ownWords(b string) bool {
	b = strings.TrimSpace(b)
	return b == "" || slices.ContainsFunc([]string{"upstream connect error", "no healthy upstream", "upstream request timeout", "fault filter abort", "no service has this host"},
		func(p string) bool { return strings.HasPrefix(b, p) })
}
