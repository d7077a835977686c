// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// targeted translates a policy that names what it is for: a waypoint would judge by it what
// is sent to a service; here it is judged at the pods where that arrives. The rows are
// those of the pods.
func (t *Translator) targeted(r translators.Reader, n *notes, p *security.AuthorizationPolicy) map[string]*model.Authorization {
	out := map[string]*model.Authorization{}
	for _, w := range t.guarded(r, n, targetRefs(p)) {
		var a *model.Authorization
		switch why := t.unsayable(r, n.o, p, w); {
		case n.o.Invalid:
			a = t.failClosed(n, p, &model.Authorization{})
		case why != "":
			n.refused("spec", "policy-of-waypoint", model.Narrows, why+": everything that is sent to its pods is denied", "")
			a = &model.Authorization{Deny: true, Rules: []model.AuthRule{{Src: []model.Source{n.o.Source(Plane, "spec")}}}}
		default:
			a = t.judged(n, p, &model.Authorization{}, &ruleTranslation{t: t, n: n, domains: t.mesh(r).trustDomains(), at: w})
		}
		w.rows(n.o, a, out)
	}
	return out
}

// rows adds an authorization, nil if there is none, for each target.
func (w *waypointReach) rows(o *objects.Object, a *model.Authorization, to map[string]*model.Authorization) {
	if a == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(w.pods)) {
		row := *a
		row.Target = w.pods[key]
		to[rowKey(o)+"@"+w.key()+"@"+key] = &row
	}
}

// key is that of the service; pods that are led by themselves have none.
func (w *waypointReach) key() string {
	if w.service == nil {
		return ""
	}
	return w.service.Key()
}

// guarded finds what targets are, says what becomes of each, and leaves out what no
// waypoint judges.
func (t *Translator) guarded(r translators.Reader, n *notes, refs []targetRef) []*waypointReach {
	var out []*waypointReach
	for _, ref := range refs {
		services, pods := t.led(r, n.o.Namespace, ref), t.ledPods(r, n.o.Namespace, ref)
		if len(services)+len(pods) == 0 {
			t.judgeIdleTarget(r, n, ref)
			continue
		}
		if len(pods) > 0 || slices.ContainsFunc(services, func(o *objects.Object) bool { return selectorOfService(o) != nil }) {
			n.approximated(ref.field, "policy-of-waypoint", model.Narrows,
				fmt.Sprintf("Istio's waypoint judges what is sent to %s; here it is judged where it arrives, at the pods, as is everything else that is sent to them", namesOf(services, pods)), "")
		}
		for _, o := range services {
			if slices.ContainsFunc(out, func(have *waypointReach) bool { return have.service == o }) {
				continue
			}
			w := t.waypointReach(r, o)
			if w.outside != "" {
				n.refused(ref.field, "no-pods", model.Widens,
					fmt.Sprintf("Istio's waypoint judges what is sent to %s %s; where %s takes it there are no pods that it selects: there it is not judged", o.Kind.Kind, o.Key(), w.outside),
					"keep the waypoint for it, or let the destination judge")
			}
			if w.answers {
				n.refused(ref.field, "answered-by-route", model.Widens,
					fmt.Sprintf("Istio's waypoint judges what is sent to %s %s; requests that its routes answer by themselves, by a redirect or with a response of their own, arrive nowhere: they are not judged", o.Kind.Kind, o.Key()),
					"let the application answer them")
			}
			out = append(out, w)
		}
		if len(pods) > 0 {
			out = append(out, reachOfPods(pods))
		}
	}
	return out
}

// reachOfPods is that of pods whose own labels name their waypoint, and of all pods of
// namespaces.
func reachOfPods(pods []*objects.Object) *waypointReach {
	w := &waypointReach{pods: map[string]model.Target{}}
	for _, o := range pods {
		if o.Kind == objects.NamespaceKind {
			w.pods[o.Name+"/"] = model.Target{Namespace: o.Name}
			continue
		}
		labels := map[string]string{useWaypointLabel: o.Labels[useWaypointLabel]}
		key := o.Namespace + "/" + o.Labels[useWaypointLabel]
		if of := o.Labels[useWaypointNamespaceLabel]; of != "" {
			labels[useWaypointNamespaceLabel] = of
			key += "@" + of
		}
		w.pods[key] = model.Target{Namespace: o.Namespace, Labels: labels}
	}
	return w
}

// namesOf names what a waypoint is in front of.
func namesOf(services, pods []*objects.Object) string {
	var names []string
	for _, o := range services {
		names = append(names, o.Kind.Kind+" "+o.Key())
	}
	labelled := 0
	for _, o := range pods {
		if o.Kind == objects.NamespaceKind {
			names = append(names, "all pods of namespace "+o.Name)
		} else {
			labelled++
		}
	}
	if labelled > 0 {
		names = append(names, fmt.Sprintf("%d pods that are labelled with it", labelled))
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("%d others", len(names)-3))
	}
	return strings.Join(names, ", ")
}

// judgeIdleTarget says why a target has nobody who would judge.
func (t *Translator) judgeIdleTarget(r translators.Reader, n *notes, ref targetRef) {
	for group, kind := range map[string]objects.Kind{"": objects.ServiceKind, networkingGroup: serviceEntryKind} {
		if !ref.is(group, kind.Kind) {
			continue
		}
		if r.Get(kind, n.o.Namespace, ref.GetName()) == nil {
			n.refused(ref.field, "unsupported-target", model.Degrades,
				fmt.Sprintf("there is no %s %s/%s: nothing is judged by it, nor is it in Istio", kind.Kind, n.o.Namespace, ref.GetName()), "")
			return
		}
		n.refused(ref.field, "unsupported-target", model.Degrades,
			fmt.Sprintf("%s %s/%s is behind no waypoint: nothing is judged by it, nor is it by Istio's sidecars", kind.Kind, n.o.Namespace, ref.GetName()),
			"use a selector to guard workloads")
		return
	}
	n.refused(ref.field, "unsupported-target", model.Degrades,
		fmt.Sprintf("nothing is led through %s %s as a waypoint, and a gateway for traffic from outside is not served: nothing is judged by it", ref.GetKind(), ref.GetName()),
		"use a selector to guard workloads")
}

// unsayable is why a policy cannot be said of pods without letting in more than Istio
// does, "" if it can.
func (t *Translator) unsayable(r translators.Reader, o *objects.Object, p *security.AuthorizationPolicy, w *waypointReach) string {
	if w.rewritten && asksAsSent(p) {
		return fmt.Sprintf("the policy looks at paths, hosts or headers, which the routes of Service %s change before they arrive", w.key())
	}
	if !allows(o, p) {
		return ""
	}
	if other := t.allowsMore(r, o, w); other != "" {
		return fmt.Sprintf("AuthorizationPolicy %s allows something else at the same pods, and Istio asks both, each at its place", other)
	}
	return ""
}

// allows reports whether a policy lets in what it matches.
func allows(o *objects.Object, p *security.AuthorizationPolicy) bool {
	dry, err := strconv.ParseBool(o.Annotations[dryRunAnnotation])
	return p.GetAction() == security.AuthorizationPolicy_ALLOW && !o.Invalid && !(err == nil && dry)
}

// asksAsSent reports whether a policy looks at what a route may change.
func asksAsSent(p *security.AuthorizationPolicy) bool {
	return slices.ContainsFunc(p.GetRules(), func(r *security.Rule) bool {
		return slices.ContainsFunc(r.GetTo(), func(to *security.Rule_To) bool {
			op := to.GetOperation()
			return len(op.GetHosts())+len(op.GetNotHosts())+len(op.GetPaths())+len(op.GetNotPaths()) > 0
		}) || slices.ContainsFunc(r.GetWhen(), func(w *security.Condition) bool { return strings.HasPrefix(w.GetKey(), prefixHeader) })
	})
}

// allowsMore names a policy that allows something at some of the pods, and is not for the
// same services: the rules of both would add up here. In Istio each has to allow.
func (t *Translator) allowsMore(r translators.Reader, o *objects.Object, w *waypointReach) string {
	root := t.mesh(r).root
	own, ownPods := t.targetedBy(r, o)
	for _, q := range r.List(authorizationPolicyKind, "") {
		spec := authorizationPolicySpec(q)
		if q == o || !allows(q, spec) {
			continue
		}
		if len(targetRefs(spec)) == 0 {
			if to := target(root, q, spec.GetSelector()); w.meets(r, to) && !onlyFromWaypoint(q, spec, w.waypoint(r)) {
				return q.Key()
			}
			continue
		}
		others, otherPods := t.targetedBy(r, q)
		if slices.Equal(own, others) && slices.Equal(ownPods, otherPods) {
			continue
		}
		for _, to := range reachOfPods(otherPods).pods {
			if !slices.Equal(ownPods, otherPods) && w.meets(r, to) {
				return q.Key()
			}
		}
		for _, u := range others {
			if slices.Contains(own, u) && slices.Contains(others, w.service) {
				continue
			}
			for _, to := range t.waypointReach(r, u).pods {
				if w.meets(r, to) {
					return q.Key()
				}
			}
		}
	}
	return ""
}

// targetedBy are all services, and pods without them, that the targets of a policy are.
func (t *Translator) targetedBy(r translators.Reader, o *objects.Object) (services, pods []*objects.Object) {
	for _, ref := range targetRefs(authorizationPolicySpec(o)) {
		for _, svc := range t.led(r, o.Namespace, ref) {
			if !slices.Contains(services, svc) {
				services = append(services, svc)
			}
		}
		for _, p := range t.ledPods(r, o.Namespace, ref) {
			if !slices.Contains(pods, p) {
				pods = append(pods, p)
			}
		}
	}
	return services, pods
}

// meets reports whether some pod is both here and of a target.
func (w *waypointReach) meets(r translators.Reader, to model.Target) bool {
	for _, p := range w.pods {
		if (to.Namespace == "" || to.Namespace == p.Namespace) && sharesPod(r, p.Namespace, p.Labels, to.Labels) {
			return true
		}
	}
	return false
}

func (w *waypointReach) waypoint(r translators.Reader) string {
	if w.service == nil {
		return ""
	}
	return waypointOf(r, w.service)
}

// onlyFromWaypoint reports whether a policy allows no more than that connections come
// through a waypoint, which is where the others are judged.
func onlyFromWaypoint(o *objects.Object, p *security.AuthorizationPolicy, waypoint string) bool {
	namespace, name, _ := strings.Cut(waypoint, "/")
	isIts := func(s *security.Source) bool {
		return len(s.GetPrincipals())+len(s.GetServiceAccounts()) > 0 &&
			!slices.ContainsFunc(s.GetPrincipals(), func(v string) bool { return !strings.HasSuffix(v, "/ns/"+namespace+"/sa/"+name) }) &&
			!slices.ContainsFunc(s.GetServiceAccounts(), func(v string) bool {
				return v != namespace+"/"+name && (v != name || o.Namespace != namespace)
			})
	}
	return name != "" && len(p.GetRules()) > 0 && !slices.ContainsFunc(p.GetRules(), func(r *security.Rule) bool {
		return len(r.GetFrom()) == 0 || len(r.GetTo())+len(r.GetWhen()) > 0 ||
			slices.ContainsFunc(r.GetFrom(), func(f *security.Rule_From) bool { return !isIts(f.GetSource()) })
	})
}

// judgeWaypointIdentity notes a policy that lets in a waypoint, through which others come
// in Istio.
func judgeWaypointIdentity(r translators.Reader, n *notes, p *security.AuthorizationPolicy) {
	note := func(field, namespace, account string) {
		key := namespace + "/" + account
		if len(r.Select(objects.ServiceKind, byWaypoint, key))+len(r.Select(objects.NamespaceKind, byWaypoint, key)) > 0 {
			n.approximated(field, "waypoint-identity", model.Narrows,
				fmt.Sprintf("in Istio this lets in what waypoint %s lets through; clients come by themselves here, and are not let in by it", key),
				"allow the clients themselves")
		}
	}
	for i, rule := range p.GetRules() {
		for j, f := range rule.GetFrom() {
			field := at(at("spec.rules", i)+".from", j) + ".source"
			for k, v := range f.GetSource().GetPrincipals() {
				if parts := strings.Split(v, "/"); len(parts) == 5 {
					note(at(field+".principals", k), parts[2], parts[4])
				}
			}
			for k, v := range f.GetSource().GetServiceAccounts() {
				ns, sa, ok := strings.Cut(v, "/")
				if !ok {
					ns, sa = n.o.Namespace, v
				}
				note(at(field+".serviceAccounts", k), ns, sa)
			}
		}
	}
}
