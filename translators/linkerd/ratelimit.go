// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"math"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/linkerd/api"
	"fairlead.io/fairlead/translators/objects"
)

// rateLimit is the limit of a Server: that of the oldest policy that is for it.
func (g *guard) rateLimit(s server) (*model.RateLimit, []model.Source) {
	for _, o := range oldest(g.r, rateLimitKind, s.o.Namespace) {
		v, ok := o.Value.(*api.HTTPLocalRateLimitPolicy)
		if !ok || o.Invalid || !limits(v, s.o) {
			continue
		}
		out := &model.RateLimit{}
		if v.Spec.Total != nil {
			out.Total = perSecond(v.Spec.Total.RequestsPerSecond)
		}
		if v.Spec.Identity != nil {
			out.PerIdentity = perSecond(v.Spec.Identity.RequestsPerSecond)
		}
		for _, x := range v.Spec.Overrides {
			ids := []string{}
			for _, ref := range x.ClientRefs {
				if isKind(ref.Group, ref.Kind, objects.ServiceAccountKind) {
					ids = append(ids, model.SPIFFE(g.t.trustDomain, or(ref.Namespace, o.Namespace), ref.Name))
				}
			}
			slices.Sort(ids)
			out.Overrides = append(out.Overrides, model.RateLimitOverride{Identities: slices.Compact(ids), PerSecond: perSecond(x.RequestsPerSecond)})
		}
		return out, []model.Source{o.Source(Plane, "spec")}
	}
	return nil, nil
}

func limits(v *api.HTTPLocalRateLimitPolicy, s *objects.Object) bool {
	ref := v.Spec.TargetRef
	return isKind(ref.Group, ref.Kind, serverKind) && ref.Name == s.Name
}

func perSecond(n int64) uint32 { return uint32(min(max(0, n), math.MaxUint32)) }

// validateRateLimit judges a limit alone, as Linkerd's webhook does.
func validateRateLimit(o *objects.Object, rep *report) {
	v, ok := o.Value.(*api.HTTPLocalRateLimitPolicy)
	if !ok {
		return
	}
	const effect = model.Degrades
	if ref := v.Spec.TargetRef; !isKind(ref.Group, ref.Kind, serverKind) {
		rep.invalid(o, "spec.targetRef.kind", effect, "a limit is for a Server of policy.linkerd.io, not for %s", ref.Kind)
	}
	total := int64(math.MaxInt64)
	number := func(field string, l *api.Limit) {
		if l != nil && l.RequestsPerSecond <= 0 {
			rep.invalid(o, field+".requestsPerSecond", effect, "%d is not a number of requests", l.RequestsPerSecond)
		}
	}
	number("spec.total", v.Spec.Total)
	number("spec.identity", v.Spec.Identity)
	if v.Spec.Total != nil {
		total = v.Spec.Total.RequestsPerSecond
	}
	if v.Spec.Identity != nil && v.Spec.Identity.RequestsPerSecond > total {
		rep.invalid(o, "spec.identity.requestsPerSecond", effect, "%d is more than the total", v.Spec.Identity.RequestsPerSecond)
	}
	for i, x := range v.Spec.Overrides {
		field := at("spec.overrides", i)
		number(field, &api.Limit{RequestsPerSecond: x.RequestsPerSecond})
		if x.RequestsPerSecond > total {
			rep.invalid(o, field+".requestsPerSecond", effect, "%d is more than the total", x.RequestsPerSecond)
		}
		for j, ref := range x.ClientRefs {
			if !isKind(ref.Group, ref.Kind, objects.ServiceAccountKind) {
				rep.invalid(o, at(field+".clientRefs", j)+".kind", effect, "a client is a ServiceAccount, not %s", ref.Kind)
			}
		}
	}
}

// judgeRateLimit tells what becomes of a limit.
func (t *Translator) judgeRateLimit(r reader, o *objects.Object, rep *report) {
	v, ok := o.Value.(*api.HTTPLocalRateLimitPolicy)
	if !ok {
		return
	}
	s := r.Get(serverKind, o.Namespace, v.Spec.TargetRef.Name)
	if s == nil {
		rep.refused(o, "spec.targetRef.name", "unknown-server", model.Degrades, fmt.Sprintf("there is no Server %s/%s: nothing is limited", o.Namespace, v.Spec.TargetRef.Name), "")
		return
	}
	for _, first := range oldest(r, rateLimitKind, o.Namespace) {
		w, ok := first.Value.(*api.HTTPLocalRateLimitPolicy)
		if !ok || first.Invalid || !limits(w, s) {
			continue
		}
		if first != o {
			rep.say(o, "spec.targetRef", "two-limits", model.Degrades, model.Translated,
				fmt.Sprintf("Server %s is limited by %s, which is older: this one has no effect, as in Linkerd", s.Key(), first.Key()), "delete one of the two")
		}
		break
	}
	if !serverOf(s).requests() {
		rep.say(o, "spec.targetRef.name", "no-requests", model.Degrades, model.Translated,
			fmt.Sprintf("Server %s is opaque: there are no requests to count", s.Key()), "")
		return
	}
	if v.Spec.Total != nil && (v.Spec.Identity != nil || len(v.Spec.Overrides) > 0) {
		rep.approximated(o, "spec.total", "limit-of-all-asked-last", model.Degrades,
			"requests that the limit of their client refuses leave more of the total to others, where Linkerd counts them there first", "")
	}
}
