// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"
	"net/http"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// Filters is what a list of filters does, in terms of the model.
type Filters struct {
	Request, Response model.HeaderEdit
	Redirect          *model.Redirect
	Rewrite           *model.Rewrite
	Mirrors           []model.Mirror
	CORS              *model.CORS
}

// then is one list after another.
func (f Filters) then(next Filters) Filters {
	out := f
	out.Request, out.Response = f.Request.Then(next.Request), f.Response.Then(next.Response)
	out.Mirrors = append(f.Mirrors[:len(f.Mirrors):len(f.Mirrors)], next.Mirrors...)
	if next.Redirect != nil {
		out.Redirect = next.Redirect
	}
	if next.CORS != nil {
		out.CORS = next.CORS
	}
	if r := next.Rewrite; r != nil {
		both := *r
		if f.Rewrite != nil {
			both = *f.Rewrite
			if r.Authority != "" {
				both.Authority = r.Authority
			}
			if r.Path != "" || r.FullPath != "" {
				both.Path, both.FullPath = r.Path, r.FullPath
			}
		}
		out.Rewrite = &both
	}
	return out
}

// Filters translates a list of filters; ok is false if one cannot be done, which must
// not be passed over.
func (c *Conversion) Filters(field string, in []gatewayv1.HTTPRouteFilter) (out Filters, ok bool) {
	ok = true
	for i, f := range in {
		one, done := c.filter(fmt.Sprintf("%s[%d]", field, i), f)
		out, ok = out.then(one), ok && done
	}
	return out, ok
}

func (c *Conversion) filter(field string, in gatewayv1.HTTPRouteFilter) (out Filters, ok bool) {
	switch {
	case in.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && in.RequestHeaderModifier != nil:
		var host string
		out.Request, host = c.headers(field+".requestHeaderModifier", in.RequestHeaderModifier, true)
		if host != "" {
			out.Rewrite = &model.Rewrite{Authority: host}
		}
	case in.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && in.ResponseHeaderModifier != nil:
		out.Response, _ = c.headers(field+".responseHeaderModifier", in.ResponseHeaderModifier, false)
	case in.Type == gatewayv1.HTTPRouteFilterRequestRedirect && in.RequestRedirect != nil:
		out.Redirect = c.redirect(field+".requestRedirect", in.RequestRedirect)
		return out, out.Redirect != nil
	case in.Type == gatewayv1.HTTPRouteFilterURLRewrite && in.URLRewrite != nil:
		out.Rewrite = c.rewrite(field+".urlRewrite", in.URLRewrite)
		return out, out.Rewrite != nil
	case in.Type == gatewayv1.HTTPRouteFilterRequestMirror && in.RequestMirror != nil:
		out.Mirrors = c.mirrors(field+".requestMirror", in.RequestMirror)
	case in.Type == gatewayv1.HTTPRouteFilterCORS && in.CORS != nil:
		out.CORS = c.cors(field+".cors", in.CORS)
	case in.Type == gatewayv1.HTTPRouteFilterExtensionRef:
		c.Report.Refuse(field+".extensionRef", UnsupportedFilter, "extensions of other implementations are not known: the rule's requests fail", "say it with the API's own filters")
		return out, false
	case in.Type == gatewayv1.HTTPRouteFilterExternalAuth:
		c.Report.Say(field+".externalAuth", UnsupportedFilter, model.Narrows, model.Refused,
			"nothing asks an external service whether a request may pass: the rule's requests fail", "use the permissions of a plane that has them")
		return out, false
	default:
		c.Report.Refuse(field+".type", UnsupportedValue, fmt.Sprintf("the filter %q is not known, or does not say what to do: the rule's requests fail", in.Type), "")
		return out, false
	}
	return out, true
}

// Statuses of redirects.
var redirectStatuses = map[int]bool{http.StatusMovedPermanently: true, http.StatusFound: true, http.StatusSeeOther: true,
	http.StatusTemporaryRedirect: true, http.StatusPermanentRedirect: true}

func (c *Conversion) redirect(field string, in *gatewayv1.HTTPRequestRedirectFilter) *model.Redirect {
	out := &model.Redirect{Status: http.StatusFound, Scheme: given(in.Scheme, ""), Host: given(in.Hostname, ""), Port: uint16(number(in.Port, 0))}
	if in.StatusCode != nil {
		if !redirectStatuses[*in.StatusCode] {
			c.Report.Refuse(field+".statusCode", UnsupportedValue, fmt.Sprintf("%d is no status of a redirect: the rule's requests fail", *in.StatusCode), "use 301, 302, 303, 307 or 308")
			return nil
		}
		out.Status = uint32(*in.StatusCode)
	}
	if out.Scheme != "" && out.Scheme != "http" && out.Scheme != "https" {
		c.Report.Refuse(field+".scheme", UnsupportedValue, fmt.Sprintf("%q is not http or https: the rule's requests fail", out.Scheme), "")
		return nil
	}
	switch {
	case out.Port != 0:
	case out.Scheme == "http":
		out.Port = 80
	case out.Scheme == "https":
		out.Port = 443
	case out.Host != "":
		out.Port = c.Port // the port that was dialled stands for a Gateway's listener
	}
	full, prefix, ok := c.path(field+".path", in.Path)
	if !ok {
		return nil
	}
	out.Path, out.Prefix = full, prefix
	return out
}

func (c *Conversion) rewrite(field string, in *gatewayv1.HTTPURLRewriteFilter) *model.Rewrite {
	full, prefix, ok := c.path(field+".path", in.Path)
	if !ok {
		return nil
	}
	out := &model.Rewrite{Authority: given(in.Hostname, ""), FullPath: full}
	if prefix != nil {
		out.Path = *prefix
	}
	return out
}

// path reads a modifier: the whole path, or what replaces a prefix, which is brought to
// the form without trailing slash.
func (c *Conversion) path(field string, in *gatewayv1.HTTPPathModifier) (full string, prefix *string, ok bool) {
	switch {
	case in == nil:
		return "", nil, true
	case in.Type == gatewayv1.FullPathHTTPPathModifier && in.ReplaceFullPath != nil:
		return absolute(*in.ReplaceFullPath), nil, true
	case in.Type == gatewayv1.PrefixMatchHTTPPathModifier && in.ReplacePrefixMatch != nil:
		p := absolute(strings.TrimRight(*in.ReplacePrefixMatch, "/"))
		return "", &p, true
	}
	c.Report.Refuse(field+".type", UnsupportedValue, fmt.Sprintf("%q does not say how the path is to change: the rule's requests fail", in.Type), "")
	return "", nil, false
}

func absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

const million = 1_000_000

// mirrors is one mirror, or none if it gets nothing or its service is not valid: the
// requests themselves are none the worse.
func (c *Conversion) mirrors(field string, in *gatewayv1.HTTPRequestMirrorFilter) []model.Mirror {
	share := uint32(million)
	switch {
	case in.Percent != nil:
		share = uint32(min(max(0, *in.Percent), 100)) * (million / 100)
	case in.Fraction != nil:
		of := int64(max(1, number(in.Fraction.Denominator, 100)))
		share = uint32(min(max(0, int64(in.Fraction.Numerator)), of) * million / of)
	}
	b, ok := c.resolve(field+".backendRef", in.BackendRef, "no copies are sent")
	if !ok || share == 0 {
		return nil
	}
	b.Weight = 1
	return []model.Mirror{{Backend: b, PerMillion: share}}
}
