// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// profile is a ServiceProfile.
type profile struct {
	*api.ServiceProfile
	o      *objects.Object
	opaque portSet
}

func (t *Translator) profileOf(o *objects.Object) (profile, bool) {
	v, ok := o.Value.(*api.ServiceProfile)
	if !ok {
		return profile{}, false
	}
	opaque, _ := readPorts(strings.Join(v.Spec.OpaquePorts, ","))
	return profile{v, o, opaque}, true
}

// profiled is the service that a name in DNS is of.
func (t *Translator) profiled(name string) (namespace, service string, ok bool) {
	rest, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), ".svc."+t.domain)
	if !ok {
		return "", "", false
	}
	service, namespace, ok = strings.Cut(rest, ".")
	return namespace, service, ok && service != "" && namespace != "" && !strings.Contains(namespace, ".")
}

// overrides reports whether a profile counts for requests: it has a route, or a backend
// with a weight. Then neither routes nor annotations of others do.
func (p profile) overrides() bool {
	return len(p.Spec.Routes) > 0 || p.splits()
}

// splits reports whether traffic goes to the profile's backends.
func (p profile) splits() bool {
	return slices.ContainsFunc(p.Spec.DstOverrides, func(d api.WeightedDst) bool { return d.Weight.Sign() > 0 })
}

// Bounds of a budget that Linkerd's proxies take.
const (
	maxRetryRatio = 1000
	minBudgetTTL  = time.Second
	maxBudgetTTL  = time.Minute
)

// defaultBudget is what holds where a profile says nothing.
var defaultBudget = model.RetryBudget{Percent: 20, AtLeast: 10, Interval: 10 * time.Second}

// budget is the profile's retry budget; nil if its proxies would not take it: nothing
// is retried then.
func (p profile) budget() *model.RetryBudget {
	b := p.Spec.RetryBudget
	if b == nil {
		d := defaultBudget
		return &d
	}
	ttl, err := time.ParseDuration(b.TTL)
	if err != nil || ttl < minBudgetTTL || ttl > maxBudgetTTL || !(b.RetryRatio >= 0 && b.RetryRatio <= maxRetryRatio) {
		return nil
	}
	return &model.RetryBudget{Percent: percent(b.RetryRatio), AtLeast: b.MinRetriesPerSecond, Interval: ttl}
}

// percent is a ratio in percent, of which a proxy knows a hundred; rounded to what was
// written, which has fewer digits than the number has.
func percent(ratio float32) float64 {
	return min(100, math.Round(float64(ratio)*1e5)/1e3)
}

// profileRetries is how often one request is repeated at most. Linkerd knows no bound
// but the budget. A proxy must have one: the fewest retries of its budget are under way
// at once, not begun in a second, so a single request could be repeated for ever.
const profileRetries = 3

// profileRoutes are a profile's routes, in their order, and one for all other requests.
func (v *view) profileRoutes(p profile) []model.Route {
	var policy *model.TrafficPolicy
	budget := p.budget()
	if budget != nil && slices.ContainsFunc(p.Spec.Routes, func(r api.ProfileRoute) bool { return r.IsRetryable }) {
		policy = &model.TrafficPolicy{Limits: model.Limits{RetryBudget: budget}}
	}
	backends := v.overridden(p, policy)
	var out []model.Route
	for i, r := range p.Spec.Routes {
		field := at("spec.routes", i)
		rt := model.Route{Backends: backends, Timeout: goDuration(r.Timeout), Src: []model.Source{p.o.Source(Plane, field)}}
		if codes := failures(r.ResponseClasses); r.IsRetryable && budget != nil && len(codes) > 0 {
			rt.Retry = &model.Retry{Attempts: profileRetries, On: []string{onStatusCodes}, StatusCodes: codes, MaxBody: retryMaxBody}
		}
		ms, _ := conditions(r.Condition)
		for _, m := range ms {
			one := rt
			one.Match = m
			out = append(out, one)
		}
	}
	return append(out, model.Route{Backends: backends, Src: []model.Source{p.o.Source(Plane, "spec")}})
}

// overridden are a profile's backends, or the service itself.
func (v *view) overridden(p profile, policy *model.TrafficPolicy) []model.Backend {
	if !p.splits() {
		b := v.own()
		b.Policy = policy
		return []model.Backend{b}
	}
	weights := wholeWeights(p.Spec.DstOverrides)
	var out []model.Backend
	for i, d := range p.Spec.DstOverrides {
		b, ok := v.t.override(d.Authority, v.n)
		b.Weight, b.Policy = weights[i], policy
		b.Missing = !ok
		out = append(out, b)
	}
	return model.Shares(out)
}

// override reads the authority of a backend; its port is the one that was asked for, if
// it gives none.
func (t *Translator) override(authority string, port uint16) (model.Backend, bool) {
	host := authority
	if h, p, err := net.SplitHostPort(authority); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return model.Backend{Service: authority, Port: port}, false
		}
		host, port = h, uint16(n)
	}
	ns, name, ok := t.profiled(host)
	if !ok {
		return model.Backend{Service: host, Port: port}, false
	}
	return model.Backend{Namespace: ns, Service: name, Port: port}, true
}

// wholeWeights are weights as whole numbers: as they are, or in thousandths if one is
// not whole.
func wholeWeights(in []api.WeightedDst) []uint32 {
	out := make([]uint32, len(in))
	unit := int64(1000)
	for _, d := range in {
		if d.Weight.MilliValue()%1000 != 0 {
			unit = 1
		}
	}
	for i, d := range in {
		out[i] = uint32(min(max(0, d.Weight.MilliValue()/unit), math.MaxUint32))
	}
	return out
}

// failures are the statuses that count as failures: those of the first class that has
// them decides, and without a class it is 5xx.
func failures(classes []api.ResponseClass) []uint32 {
	var out []uint32
	for s := uint32(100); s < 600; s++ {
		failed := s >= 500
		for _, c := range classes {
			if c.Condition != nil && holds(*c.Condition, s) {
				failed = c.IsFailure
				break
			}
		}
		if failed {
			out = append(out, s)
		}
	}
	return out
}

// holds reports whether a status satisfies a condition on answers: all of what it says.
func holds(m api.ResponseMatch, s uint32) bool {
	if m.Status != nil {
		first, last := m.Status.Min, m.Status.Max
		if first == 0 {
			first = last
		}
		if last == 0 {
			last = first
		}
		if s < first || s > last {
			return false
		}
	}
	if len(m.Any) > 0 && !slices.ContainsFunc(m.Any, func(x api.ResponseMatch) bool { return holds(x, s) }) {
		return false
	}
	return !slices.ContainsFunc(m.All, func(x api.ResponseMatch) bool { return !holds(x, s) }) && (m.Not == nil || !holds(*m.Not, s))
}

// goDuration reads a duration as Go writes it; 0 if there is none.
func goDuration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0
	}
	return d
}

// connections puts what becomes of connections that are not HTTP: a profile's backends
// take them, too.
func (v *view) connections(f *model.Frontend) {
	for _, ns := range append(v.clients(), "") {
		if slices.Contains(v.skipping(), ns) {
			f.Connections = append(f.Connections, model.ConnectionRoute{SourceNamespace: ns, Backends: v.untouched(), Src: f.Src})
			continue
		}
		for _, p := range v.profilesFor(ns) {
			c := model.ConnectionRoute{SourceNamespace: ns, Backends: []model.Backend{v.bare(v.own())}, Src: []model.Source{p.o.Source(Plane, "spec.dstOverrides")}}
			if p.splits() {
				c.Backends = nil
				for _, b := range v.overridden(p, nil) {
					c.Backends = append(c.Backends, v.bare(b))
				}
			}
			f.Connections = append(f.Connections, c)
		}
	}
	if !slices.ContainsFunc(v.profiles, profile.splits) {
		f.Connections = nil
		return
	}
	if n := len(f.Connections); n == 0 || f.Connections[n-1].SourceNamespace != "" {
		f.Connections = append(f.Connections, model.ConnectionRoute{Backends: []model.Backend{v.bare(v.own())}, Src: f.Src})
	}
}

// bare is a backend of connections: nothing is counted there.
func (v *view) bare(b model.Backend) model.Backend {
	b.Policy = nil
	return b
}

// opaque is a port that is not looked into.
func (v *view) opaque(f *model.Frontend) {
	v.app = model.AppTCP
	v.connections(f)
	for _, rt := range v.routes {
		if !rt.o.Invalid {
			v.rep.say(rt.o, "spec.parentRefs", "opaque-port", model.Degrades, model.Translated,
				fmt.Sprintf("port %d of %s is opaque: its connections go to the service itself, as in Linkerd", v.n, v.svc.Key()),
				"set the port's appProtocol to http or kubernetes.io/h2c if it is")
		}
	}
}
