// SPDX-License-Identifier: Apache-2.0

package live

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/lab/load"
	"fairlead.io/fairlead/model"
)

// query is the line as a question about the plan. address is that of {NAME}.
func (l *Line) query(from string, address func(name, form string) (string, error)) (trace.Query, error) {
	r, err := l.request(address)
	if err != nil {
		return trace.Query{}, err
	}
	q := trace.Query{From: from, URL: r.URL, Method: r.Method, Host: r.Host, V6: l.Family == "6"}
	if r.Target != "" { // the request line's own: an absolute one names the authority
		scheme, rest, absolute := strings.Cut(r.Target, "://")
		_, host, _ := strings.Cut(r.URL, "://")
		host, _, _ = strings.Cut(host, "/")
		if absolute {
			authority, path, _ := strings.Cut(rest, "/")
			q.Host, q.URL = authority, scheme+"://"+host+"/"+path
		} else {
			own, _, _ := strings.Cut(r.URL, "://")
			q.URL = own + "://" + host + r.Target
		}
	}
	for _, h := range l.Headers {
		q.Headers = append(q.Headers, model.Header{Name: h[0], Value: r.Headers[h[0]]})
	}
	return q, nil
}

// misbehaves are URLs that ask the echo server to fail, to be late or to be large.
var misbehaves = regexp.MustCompile(`[?&](fail|delay|status|abort|size)=`)

// asksNothing reports whether the line sends nothing that the plan can be asked about.
func (l *Line) asksNothing() bool { return l.Want.Status == "dns" || l.Method == "CONNECT" }

// connected are the URLs' schemes without requests.
var connected = []string{"tcp", "tcp-banner", "tls", "udp"}

// foreseen reports whether an answer has an outcome like a result.
func foreseen(a *trace.Answer, r load.Result) error {
	var all []string
	for _, o := range a.Outcomes {
		if matchesOutcome(a, o, r) {
			return nil
		}
		all = append(all, fmt.Sprintf("%s %d %s (%s)", o.Verdict, o.Status, podNames(o), o.Why))
	}
	return fmt.Errorf("got %s, and explain foresees %s", describe(r), strings.Join(all, " or "))
}

func matchesOutcome(a *trace.Answer, o trace.Outcome, r load.Result) bool {
	scheme, _, _ := strings.Cut(a.URL, "://")
	if o.Verdict == trace.Reached {
		pod := answer(r).Pod
		if r.Answer == nil { // what the application is asked to do is nothing that the plan knows
			return misbehaves.MatchString(a.URL) || r.Error == "" && r.Status != 403 && r.Status != 404
		}
		return len(o.Endpoints) == 0 || slices.ContainsFunc(o.Endpoints, func(e trace.Endpoint) bool {
			_, name, _ := strings.Cut(e.Pod, "/")
			return name == pod || e.Pod == ""
		})
	}
	switch {
	case o.Status == 0:
		return r.Error != ""
	case scheme == "grpc" && o.GRPC != nil:
		return r.GRPC != nil && *r.GRPC == *o.GRPC
	case scheme == "grpc":
		return r.GRPC != nil && *r.GRPC != 0
	case scheme == "ws":
		return r.Status == int(o.Status) || r.Error != ""
	}
	return r.Status == int(o.Status)
}

func podNames(o trace.Outcome) string {
	var out []string
	for _, e := range o.Endpoints {
		out = append(out, e.Pod)
	}
	return strings.Join(out, ",")
}

// grpcOf is the status of gRPC that a client makes of one of HTTP.
var grpcOf = map[uint32]uint32{400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}

// results are what a client would see if everything came as an answer says: of each
// endpoint as many as its share, and nothing of those that are in reserve.
func results(a *trace.Answer, n int, facts func(trace.Endpoint) echo.Facts) []load.Result {
	var out []load.Result
	scheme, _, _ := strings.Cut(a.URL, "://")
	for _, o := range a.Outcomes {
		count := max(1, int(math.Round(o.Share*float64(n))))
		first := slices.MinFunc(append([]trace.Endpoint{{Priority: math.MaxUint32}}, o.Endpoints...),
			func(a, b trace.Endpoint) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
		used := slices.DeleteFunc(slices.Clone(o.Endpoints), func(e trace.Endpoint) bool { return e.Priority > first })
		total := uint32(0)
		for _, e := range used {
			total += max(1, e.Weight)
		}
		if o.Verdict != trace.Reached || len(o.Endpoints) == 0 {
			for range count {
				out = append(out, ended(scheme, o))
			}
			continue
		}
		for _, e := range used {
			for range max(1, int(math.Round(float64(count)*float64(max(1, e.Weight))/float64(total)))) {
				out = append(out, reached(scheme, a, o, e, facts))
			}
		}
	}
	return out
}

// ended is what a client sees of an outcome that is not an endpoint's answer.
func ended(scheme string, o trace.Outcome) load.Result {
	switch {
	case o.Verdict == trace.Reached:
		return load.Result{Status: 200, Answer: &echo.Answer{}}
	case o.Status == 0 || slices.Contains(connected, scheme):
		return load.Result{Error: "failed"}
	case scheme == "grpc" && o.GRPC != nil:
		return load.Result{GRPC: o.GRPC}
	case scheme == "grpc":
		code := grpcOf[o.Status]
		if code == 0 {
			code = 2
		}
		return load.Result{GRPC: &code}
	}
	return load.Result{Status: int(o.Status)}
}

func reached(scheme string, a *trace.Answer, o trace.Outcome, e trace.Endpoint, facts func(trace.Endpoint) echo.Facts) load.Result {
	r := load.Result{Status: 200, Answer: &echo.Answer{Facts: facts(e), Headers: map[string][]string{}}}
	switch scheme {
	case "ws":
		r.Status = 101
	case "grpc":
		r.GRPC = new(uint32)
	}
	if o.Tunnel != nil { // the echo server stands for its target
		r.Answer.Method, r.Answer.Authority = o.Tunnel.Method(), o.Tunnel.Target()
	}
	if o.Sent == nil {
		return r
	}
	r.Answer.Path, r.Answer.Authority = o.Sent.Path, o.Sent.Authority
	for _, h := range a.Headers {
		r.Answer.Headers[strings.ToLower(h.Name)] = append(r.Answer.Headers[strings.ToLower(h.Name)], h.Value)
	}
	for _, n := range o.Sent.Removed {
		delete(r.Answer.Headers, n)
	}
	for _, h := range o.Sent.Set {
		r.Answer.Headers[h.Name] = []string{h.Value}
	}
	for _, h := range o.Sent.Added {
		r.Answer.Headers[h.Name] = append(r.Answer.Headers[h.Name], h.Value)
	}
	return r
}
