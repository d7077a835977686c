// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/model"
)

var redirectCodes = map[uint32]route.RedirectAction_RedirectResponseCode{
	http.StatusMovedPermanently:  route.RedirectAction_MOVED_PERMANENTLY,
	http.StatusFound:             route.RedirectAction_FOUND,
	http.StatusSeeOther:          route.RedirectAction_SEE_OTHER,
	http.StatusTemporaryRedirect: route.RedirectAction_TEMPORARY_REDIRECT,
	http.StatusPermanentRedirect: route.RedirectAction_PERMANENT_REDIRECT,
}

var schemeText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*$`)

func redirect(r *model.Redirect, match *model.StringMatch) (*route.RedirectAction, error) {
	code, ok := redirectCodes[r.Status]
	if !ok {
		return nil, fmt.Errorf("redirect with status %d", r.Status)
	}
	a := &route.RedirectAction{ResponseCode: code, HostRedirect: r.Host, PortRedirect: uint32(r.Port)}
	if isDefaultPort(r) {
		a.PortRedirect = 0
	}
	if r.Scheme != "" {
		if !schemeText.MatchString(r.Scheme) {
			return nil, fmt.Errorf("redirect to scheme %q", r.Scheme)
		}
		a.SchemeRewriteSpecifier = &route.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	if strings.ContainsAny(r.Host, "/?# ") || hasPort(r.Host) && r.Port != 0 {
		return nil, fmt.Errorf("redirect to host %q and port %d", r.Host, r.Port)
	}
	if err := checkHeaderValue("location", r.Host); err != nil {
		return nil, err
	}
	return a, redirectPath(a, r, match)
}

func redirectPath(a *route.RedirectAction, r *model.Redirect, match *model.StringMatch) error {
	whole := r.Path
	switch {
	case r.Path != "" && r.Prefix != nil:
		return errors.New("redirect to a path and a prefix")
	case r.Path == "" && r.Prefix == nil:
		return nil
	case r.Prefix != nil && isPrefix(match):
		prefix, expr, err := replacePrefix(*match, *r.Prefix)
		a.PathRewriteSpecifier = &route.RedirectAction_PrefixRewrite{PrefixRewrite: prefix}
		if expr != nil {
			a.PathRewriteSpecifier = &route.RedirectAction_RegexRewrite{RegexRewrite: expr}
		}
		return errors.Join(err, checkHeaderValue("location", *r.Prefix))
	case r.Prefix != nil:
		whole = cmp.Or(*r.Prefix, "/")
	}
	a.PathRewriteSpecifier = &route.RedirectAction_PathRedirect{PathRedirect: whole}
	return checkHeaderValue("location", whole)
}

// isDefaultPort reports whether the port is the one that the scheme means anyway. A mesh
// has plain HTTP between pods.
func isDefaultPort(r *model.Redirect) bool {
	return r.Port == 80 && (r.Scheme == "" || strings.EqualFold(r.Scheme, "http")) || r.Port == 443 && strings.EqualFold(r.Scheme, "https")
}

// hasPort reports whether a host has a port, in so far as a colon can tell.
func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

// namesPort matches an authority with a port.
const namesPort = `.+:[0-9]+`

// withoutPort are the routes of a redirect to the same host at the default port of its
// scheme. Envoy cannot take a port away from a request's host, but replace it: so who
// has said one is told another, and who has not is told none.
func withoutPort(m *route.Route, r *model.Redirect) []*route.Route {
	if r.Host != "" || !isDefaultPort(r) {
		return []*route.Route{m}
	}
	said := proto.CloneOf(m)
	said.Match.Headers = append(said.Match.Headers, &route.HeaderMatcher{
		Name: ":authority",
		HeaderMatchSpecifier: &route.HeaderMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
			MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: namesPort}},
		}},
	})
	said.GetRedirect().PortRedirect = uint32(r.Port)
	return []*route.Route{said, m}
}
