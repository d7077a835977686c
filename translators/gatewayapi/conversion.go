// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"net/http"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
)

// Conversion turns the rules of one route into the model's routes for one port.
type Conversion struct {
	Reader translators.Reader
	Report *Report
	Route  Route
	// Port that clients have dialled; it stands in redirects that name none.
	Port uint16
	// Grants: a backend in another namespace needs a ReferenceGrant there.
	Grants bool
}

// Failure is the status that requests to an invalid backend are answered with: 500, and
// of a GRPCRoute 503, which is UNAVAILABLE to its clients.
func (c *Conversion) Failure() uint32 {
	if c.Route.Object.Kind == GRPCRouteKind {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// fail answers everything with the failure's status.
func (c *Conversion) fail() model.Route {
	return model.Route{Direct: &model.Direct{Status: c.Failure()}}
}

// Convert gives what becomes of the requests of a rule; Match and Src are left empty.
// What cannot be done as it is written answers with Failure.
func (c *Conversion) Convert(rule Rule) model.Route {
	out := model.Route{}
	filters, ok := c.Filters(rule.Field+".filters", rule.Filters)
	if !ok {
		return c.fail()
	}
	only, filters, ok := c.ofOnly(rule, filters)
	if !ok {
		return c.fail()
	}
	out.ResponseHeaders, out.CORS = filters.Response, filters.CORS
	if filters.Redirect != nil {
		out.Redirect = filters.Redirect
		return out
	}
	out.Backends = model.Shares(c.backends(rule, only))
	if len(out.Backends) == 0 {
		c.nowhere(rule)
		out.Direct = &model.Direct{Status: c.Failure()}
		return out
	}
	out.RequestHeaders, out.Rewrite, out.Mirrors = filters.Request, filters.Rewrite, filters.Mirrors
	c.times(rule, &out)
	if p := c.session(rule); p != nil {
		for i := range out.Backends {
			out.Backends[i].Policy = p
		}
	}
	return out
}

// ofOnly takes the filters of a rule's only backend for the rule's own: there is nothing
// that they do not apply to. It returns the index of that backend, or -1.
func (c *Conversion) ofOnly(rule Rule, filters Filters) (int, Filters, bool) {
	only := -1
	for i, b := range rule.Backends {
		switch {
		case b.Weight == 0:
		case only >= 0:
			return -1, filters, true
		default:
			only = i
		}
	}
	if only < 0 || len(rule.Backends[only].Filters) == 0 {
		return only, filters, true
	}
	b := rule.Backends[only]
	own, ok := c.Filters(b.Field+".filters", b.Filters)
	return only, filters.then(own), ok
}

// nowhere explains a rule that forwards nothing.
func (c *Conversion) nowhere(rule Rule) {
	if len(rule.Backends) == 0 {
		c.Report.Say(rule.Field+".backendRefs", "no-backends", model.Cosmetic, model.Translated,
			"the rule has no backends and no redirect: its requests are answered as those of an invalid backend", "name the service itself to pass them on")
		return
	}
	c.Report.Say(rule.Field+".backendRefs", "no-weights", model.Cosmetic, model.Translated,
		"every backend has weight 0: the rule's requests are answered as those of an invalid backend", "give one a weight")
}
