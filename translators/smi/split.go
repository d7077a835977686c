// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"fmt"
	"math"
	"slices"

	split1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha1"
	split2 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha2"
	split3 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha3"
	split4 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha4"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// trafficsplit is a TrafficSplit, whatever its version.
type trafficsplit struct {
	t        *Translator
	service  string
	backends []share
	matches  []reference
}

// share is a backend. Weights are whole numbers, or thousandths for all if one is
// not whole.
type share struct {
	service string
	weight  int64
}

func (t *Translator) splitOf(o *objects.Object) trafficsplit {
	s := trafficsplit{t: t}
	switch v := o.Value.(type) {
	case *split1.TrafficSplit:
		s.service = v.Spec.Service
		unit := int64(1000)
		for _, b := range v.Spec.Backends {
			milli := int64(0)
			if b.Weight != nil {
				milli = b.Weight.MilliValue()
			}
			if milli%1000 != 0 {
				unit = 1
			}
			s.backends = append(s.backends, share{b.Service, milli})
		}
		for i := range s.backends {
			s.backends[i].weight /= unit
		}
	case *split2.TrafficSplit:
		s.service = v.Spec.Service
		for _, b := range v.Spec.Backends {
			s.backends = append(s.backends, share{b.Service, int64(b.Weight)})
		}
	case *split3.TrafficSplit:
		s.service, s.matches = v.Spec.Service, v.Spec.Matches
		for _, b := range v.Spec.Backends {
			s.backends = append(s.backends, share{b.Service, int64(b.Weight)})
		}
	case *split4.TrafficSplit:
		s.service, s.matches = v.Spec.Service, v.Spec.Matches
		for _, b := range v.Spec.Backends {
			s.backends = append(s.backends, share{b.Service, int64(b.Weight)})
		}
	}
	return s
}

func (s trafficsplit) validate(o *objects.Object, rep *report) {
	apex, ok := s.t.localName(s.service, o.Namespace)
	if !ok {
		rep.refused(o, "spec.service", "bad-service", model.Degrades, fmt.Sprintf("%q does not name a service of namespace %s", s.service, o.Namespace), "")
	}
	if len(s.backends) == 0 {
		rep.refused(o, "spec.backends", "no-backends", model.Degrades, "a split needs backends", "")
		return
	}
	var sum int64
	for i, b := range s.backends {
		field := fmt.Sprintf("spec.backends[%d]", i)
		switch name, ok := s.t.localName(b.service, o.Namespace); {
		case !ok:
			rep.refused(o, field+".service", "bad-service", model.Degrades, fmt.Sprintf("%q does not name a service of namespace %s", b.service, o.Namespace), "")
		case name == apex:
			rep.refused(o, field+".service", "own-backend", model.Degrades, "a service cannot be a backend of its own split", "add a service that selects what the root does")
		}
		if b.weight < 0 || b.weight > math.MaxUint32 {
			rep.refused(o, field+".weight", "bad-weight", model.Degrades, fmt.Sprintf("weights are between 0 and %d", uint32(math.MaxUint32)), "")
			continue
		}
		if b.weight == 0 && !written(o, field+".weight") {
			rep.say(o, field+".weight", "weight-omitted", model.Degrades, model.Approximated, "no weight is given: it is 0, and the backend gets nothing", "give it a weight")
		}
		sum += b.weight
	}
	switch {
	case sum > math.MaxUint32:
		rep.refused(o, "spec.backends", "bad-weight", model.Degrades, fmt.Sprintf("weights sum to more than %d", uint32(math.MaxUint32)), "")
	case sum == 0:
		rep.refused(o, "spec.backends", "zero-weights", model.Degrades, "all weights are 0: nothing says where traffic goes",
			"delete the split to send it to the root service")
	}
}

// written reports whether a field stands in the object's file; true if it has none.
func written(o *objects.Object, field string) bool {
	_, ok := o.Place.Lines[field]
	return ok || o.Place.Lines == nil
}

// split translates what the splits of one apex service come to.
func (t *Translator) split(r translators.Reader, k translators.Key) translators.Result {
	rep := &report{}
	var chosen *objects.Object
	for _, o := range r.Select(trafficSplit, byApex, k.Namespace+"/"+k.Name) {
		switch {
		case o.Invalid:
			rep.say(o, "spec.service", "split-unused", model.Degrades, model.Refused,
				fmt.Sprintf("the split is invalid: without another, traffic goes to the service %s itself", k.Name), "repair it")
		case chosen != nil:
			rep.refused(o, "spec.service", "two-splits", model.Degrades,
				fmt.Sprintf("%s is split by %s %s already, which is older", k.Name, trafficSplit.Kind, chosen.Key()), "delete one of the two")
		default:
			chosen = o
		}
	}
	if chosen == nil {
		return translators.Result{Diagnostics: rep.out}
	}
	c := splitter{r: r, o: chosen, split: t.splitOf(chosen), rep: rep}
	return translators.Result{Frontends: c.frontends(k), Diagnostics: rep.out}
}

// splitter translates one TrafficSplit.
type splitter struct {
	r     translators.Reader
	o     *objects.Object
	split trafficsplit
	rep   *report
}

func (c *splitter) frontends(k translators.Key) []*model.Frontend {
	apex := c.r.Service(k.Namespace, k.Name)
	if apex == nil {
		c.rep.refused(c.o, "spec.service", "unknown-service", model.Degrades, fmt.Sprintf("there is no service %s/%s: nothing is split", k.Namespace, k.Name), "")
		return nil
	}
	c.nested(k)
	backends := c.backends(k.Namespace)
	matches := c.matches()
	c.ports(apex)
	var out []*model.Frontend
	for _, p := range apex.Ports {
		if p.Protocol != model.TCP {
			continue
		}
		if f := c.frontend(k, p, backends, matches); f != nil {
			out = append(out, f)
		}
	}
	return out
}

// ports says which ports have nothing that could be split: an error only if there are no
// others.
func (c *splitter) ports(apex *model.Service) {
	has := func(fits func(model.ServicePort) bool) bool { return slices.ContainsFunc(apex.Ports, fits) }
	outcome := func(others bool) model.Outcome {
		if others {
			return model.Approximated
		}
		return model.Refused
	}
	for _, p := range apex.Ports {
		switch {
		case p.Protocol != model.TCP:
			c.rep.say(c.o, "spec.service", "udp-not-split", model.Degrades, outcome(has(func(p model.ServicePort) bool { return p.Protocol == model.TCP })),
				fmt.Sprintf("port %d is UDP and is not split", p.Port), "")
		case len(c.split.matches) > 0 && !splitsRequests(p):
			c.rep.say(c.o, "spec.matches", "matches-need-http", model.Degrades, outcome(has(splitsRequests)),
				fmt.Sprintf("port %d is not HTTP: its connections go to %s itself", p.Port, apex.Name), "")
		}
	}
}

// splitsRequests reports whether requests of a port are split, rather than connections.
func splitsRequests(p model.ServicePort) bool {
	return p.Protocol == model.TCP && (p.App == model.AppUndeclared || p.App.IsHTTP())
}

// nested says that a backend's own split does not count.
func (c *splitter) nested(k translators.Key) {
	for i, b := range c.split.backends {
		name, _ := c.split.t.localName(b.service, k.Namespace)
		if slices.ContainsFunc(c.r.Select(trafficSplit, byApex, k.Namespace+"/"+name), func(o *objects.Object) bool { return !o.Invalid }) {
			c.rep.say(c.o, fmt.Sprintf("spec.backends[%d].service", i), "nested-split", model.Degrades, model.Approximated,
				fmt.Sprintf("%s is split itself; splits are not hierarchical, its own endpoints are used", name), "")
		}
	}
}

// used is a backend that exists.
type used struct {
	service *model.Service
	weight  uint32
	field   string
}

// backends joins those that are named twice and leaves out those that do not exist.
func (c *splitter) backends(namespace string) []used {
	var out []used
	for i, b := range c.split.backends {
		field := fmt.Sprintf("spec.backends[%d].service", i)
		name, _ := c.split.t.localName(b.service, namespace)
		if at := slices.IndexFunc(out, func(u used) bool { return u.service.Name == name }); at >= 0 {
			out[at].weight += uint32(b.weight)
			c.rep.say(c.o, field, "duplicate-backend", model.Cosmetic, model.Approximated, name+" is named twice: its weights are added", "name it once")
			continue
		}
		svc := c.r.Service(namespace, name)
		if svc == nil {
			c.rep.say(c.o, field, "unknown-backend", model.Degrades, model.Approximated,
				fmt.Sprintf("there is no service %s/%s: it gets no traffic until there is", namespace, name), "")
			continue
		}
		out = append(out, used{svc, uint32(b.weight), field})
	}
	return out
}

// matches lists what the split is restricted to; nil is everything, an empty list
// nothing.
func (c *splitter) matches() []model.RouteMatch {
	if len(c.split.matches) == 0 {
		return nil
	}
	out := []model.RouteMatch{}
	for i, ref := range c.split.matches {
		field := fmt.Sprintf("spec.matches[%d]", i)
		switch {
		case ref.Kind != httpRouteGroup.Kind:
			unsupportedReference(c.o, field+".kind", ref.Kind, httpRouteGroup.Kind, model.Degrades, c.rep)
			continue
		case ref.APIGroup != nil && *ref.APIGroup != "" && *ref.APIGroup != httpRouteGroup.Group:
			unsupportedReference(c.o, field+".apiGroup", *ref.APIGroup, httpRouteGroup.Group, model.Degrades, c.rep)
			continue
		}
		group := c.r.Get(httpRouteGroup, c.o.Namespace, ref.Name)
		if group == nil || group.Invalid {
			c.rep.refused(c.o, field+".name", "unknown-route", model.Degrades,
				fmt.Sprintf("there is no valid HTTPRouteGroup %s/%s: no requests are split by it", c.o.Namespace, ref.Name), "")
			continue
		}
		for _, m := range matchesOf(group) {
			out = append(out, m.routes()...)
		}
	}
	return out
}

func (c *splitter) frontend(k translators.Key, p model.ServicePort, backends []used, matches []model.RouteMatch) *model.Frontend {
	shares := c.shares(p, backends)
	if len(shares) == 0 {
		c.rep.say(c.o, "spec.backends", "port-unsplit", model.Degrades, model.Approximated,
			fmt.Sprintf("no backend with a weight has port %d: its traffic goes to %s itself", p.Port, k.Name), "")
		return nil
	}
	src := []model.Source{c.o.Source(Plane, "spec.service"), c.o.Source(Plane, "spec.backends")}
	f := &model.Frontend{Namespace: k.Namespace, Service: k.Name, Port: p.Port, Src: src}
	if p.App == model.AppUndeclared {
		f.App = model.AppHTTP
		c.rep.say(c.o, "spec.service", "assumed-http", model.Degrades, model.Approximated,
			fmt.Sprintf("port %d of %s does not say what it speaks and is taken for HTTP", p.Port, k.Name), "set appProtocol on the port")
	}
	if !splitsRequests(p) {
		if matches != nil {
			return nil
		}
		f.Backends = shares
		return f
	}
	if matches == nil {
		f.Routes = []model.Route{{Backends: shares, Src: src}}
		return f
	}
	for _, m := range matches {
		f.Routes = append(f.Routes, model.Route{Match: m, Backends: shares, Src: append(slices.Clone(src), c.o.Source(Plane, "spec.matches"))})
	}
	root := []model.Backend{{Namespace: k.Namespace, Service: k.Name, Port: p.Port, Weight: 1}}
	f.Routes = append(f.Routes, model.Route{Backends: root, Src: src})
	return f
}

// shares are the backends that have the port and a weight.
func (c *splitter) shares(p model.ServicePort, backends []used) []model.Backend {
	var out []model.Backend
	for _, b := range backends {
		if b.service.Port(p.Port) == nil {
			c.rep.say(c.o, b.field, "port-missing", model.Degrades, model.Approximated,
				fmt.Sprintf("%s has no TCP port %d: it gets none of that port's traffic", b.service.Name, p.Port), "")
			continue
		}
		out = append(out, model.Backend{Namespace: b.service.Namespace, Service: b.service.Name, Port: p.Port, Weight: b.weight})
	}
	return model.Shares(out)
}
