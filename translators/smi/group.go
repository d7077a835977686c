// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	specs4 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha4"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// match is one match of a route group and where it is written.
type match struct {
	HTTPMatch
	field string
}

// matchesOf lists a route group's matches, whatever its version.
func matchesOf(o *objects.Object) []match {
	var out []match
	add := func(path string, ms []HTTPMatch) {
		for i, m := range ms {
			out = append(out, match{m, fmt.Sprintf("%s[%d]", path, i)})
		}
	}
	switch v := o.Value.(type) {
	case *FlatHTTPRouteGroup:
		add("matches", v.Matches)
	case *HTTPRouteGroup:
		add("spec.matches", v.Spec.Matches)
	}
	return out
}

var methods = []string{"*", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}

var headerName = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)

// authorityHeaders are names under which the host is meant: HTTP/2 has no Host.
var authorityHeaders = []string{"host", ":authority"}

func validateGroup(o *objects.Object, rep *report) {
	const effect = model.Narrows
	seen := map[string]bool{}
	for _, m := range matchesOf(o) {
		if m.Name != "" && seen[m.Name] {
			rep.refused(o, m.field+".name", "duplicate-name", effect, fmt.Sprintf("two matches are named %q: a rule could mean either", m.Name), "")
		}
		seen[m.Name] = true
		for i, method := range m.Methods {
			if !slices.Contains(methods, method) {
				rep.refused(o, fmt.Sprintf("%s.methods[%d]", m.field, i), "unknown-value", effect,
					fmt.Sprintf("%q is not a method", method), "use "+strings.Join(methods[1:], ", ")+" or *")
			}
		}
		if err := checkRegex(m.PathRegex); err != nil {
			rep.refused(o, m.field+".pathRegex", "bad-regex", effect, err.Error(), "")
		} else if openEnded(m.PathRegex) {
			rep.say(o, m.field+".pathRegex", "path-anchored", model.Narrows, model.Approximated,
				"an expression must match the whole path, also where ^ stands only at its start", "add .* to match what begins like this")
		}
		if hosts, _ := m.conditions(); len(hosts) > 1 {
			rep.refused(o, m.field+".headers", "two-hosts", effect, "a request has one host: two conditions on it cannot both be kept", "write one expression")
		}
		for _, h := range m.Headers {
			field := m.field + ".headers"
			if !headerName.MatchString(h.Name) && !slices.Contains(authorityHeaders, h.Name) {
				rep.refused(o, field, "bad-header", effect, fmt.Sprintf("%q is not the name of a header", h.Name), "")
			}
			if err := checkRegex(h.Value); err != nil {
				rep.refused(o, field, "bad-regex", effect, fmt.Sprintf("header %s: %v", h.Name, err), "")
			}
		}
	}
}

// methodsOf lists the methods of a match, sorted; nil is any.
func (m match) methodsOf() []string {
	if slices.Contains(m.Methods, "*") {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(m.Methods)))
}

// conditions splits a match's headers into those on the host and the others.
func (m match) conditions() (hosts []model.StringMatch, headers []model.NamedMatch) {
	for _, h := range m.Headers {
		name := strings.ToLower(h.Name)
		value := whole(h.Value)
		switch {
		case slices.Contains(authorityHeaders, name):
			if value.Kind != model.Present { // every request has a host
				hosts = append(hosts, value)
			}
		default:
			headers = append(headers, model.NamedMatch{Name: name, Match: value})
		}
	}
	slices.SortFunc(headers, func(a, b model.NamedMatch) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Match.Kind, b.Match.Kind), cmp.Compare(a.Match.Value, b.Match.Value))
	})
	return hosts, slices.CompactFunc(headers, func(a, b model.NamedMatch) bool { return a == b })
}

// path is the condition on the path; nil if it can be any.
func (m match) path() *model.StringMatch {
	if m.PathRegex == "" {
		return nil
	}
	if p := whole(m.PathRegex); p.Kind != model.Present {
		return &p
	}
	return nil
}

// operation is the match as a permission. One that any request satisfies still
// needs a request: an opaque connection is none.
func (m match) operation(ports []uint16) model.Operation {
	op := model.Operation{Ports: ports}
	for _, method := range m.methodsOf() {
		op.Methods = append(op.Methods, model.StringMatch{Kind: model.Exact, Value: method})
	}
	op.Hosts, op.Headers = m.conditions()
	if p := m.path(); p != nil {
		op.Paths = []model.StringMatch{*p}
	} else if len(op.Methods)+len(op.Hosts)+len(op.Headers) == 0 {
		op.Paths = []model.StringMatch{{Kind: model.Present}}
	}
	return op
}

// routes is the match as routes, one per method.
func (m match) routes() []model.RouteMatch {
	rm := model.RouteMatch{Path: m.path()}
	hosts, headers := m.conditions()
	if len(hosts) > 0 {
		rm.Authority = &hosts[0]
	}
	rm.Headers = headers
	ms := m.methodsOf()
	if len(ms) == 0 {
		return []model.RouteMatch{rm}
	}
	var out []model.RouteMatch
	for _, method := range ms {
		one := rm
		one.Method = &model.StringMatch{Kind: model.Exact, Value: method}
		out = append(out, one)
	}
	return out
}

// portsOf lists the ports of a TCPRoute or UDPRoute as written.
func portsOf(o *objects.Object) []int {
	switch v := o.Value.(type) {
	case *specs4.TCPRoute:
		return v.Spec.Matches.Ports
	case *specs4.UDPRoute:
		return v.Spec.Matches.Ports
	}
	return nil
}

func validatePorts(o *objects.Object, rep *report) {
	for i, p := range portsOf(o) {
		if !validPort(p) {
			rep.refused(o, fmt.Sprintf("spec.matches.ports[%d]", i), "bad-port", model.Narrows, fmt.Sprintf("%d is not between 1 and %d", p, math.MaxUint16), "")
		}
	}
}

// portSet is a set of ports; all is every port.
type portSet struct {
	all   bool
	ports []uint16 // sorted, if not all
}

func (s *portSet) add(ports []int) {
	if len(ports) == 0 {
		*s = portSet{all: true}
		return
	}
	if s.all {
		return
	}
	for _, p := range ports {
		s.ports = append(s.ports, uint16(p))
	}
	slices.Sort(s.ports)
	s.ports = slices.Compact(s.ports)
}

// within restricts the set to one port; 0 restricts nothing.
func (s portSet) within(port int) portSet {
	if port == 0 {
		return s
	}
	if s.all || slices.Contains(s.ports, uint16(port)) {
		return portSet{ports: []uint16{uint16(port)}}
	}
	return portSet{}
}

func (s portSet) empty() bool { return !s.all && len(s.ports) == 0 }
