// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// everything is the wildcard of origins, methods and headers.
const everything = "*"

// defaultMaxAge in seconds, where none is given.
const defaultMaxAge = 5

// allMethods are those that a wildcard stands for where it must not be answered.
var allMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

func (c *Conversion) cors(field string, in *gatewayv1.HTTPCORSFilter) *model.CORS {
	out := &model.CORS{Methods: texts(in.AllowMethods), Headers: texts(in.AllowHeaders), Expose: texts(in.ExposeHeaders),
		Credentials: in.AllowCredentials != nil && *in.AllowCredentials, AnswerAll: true}
	for _, o := range in.AllowOrigins {
		out.Origins = append(out.Origins, origin(string(o)))
	}
	age := int64(in.MaxAge)
	if age == 0 {
		age = defaultMaxAge
	}
	out.MaxAge = &age
	if out.Credentials {
		c.spelledOut(field, out)
	}
	return out
}

// spelledOut replaces wildcards, which mean nothing to a browser that sends credentials.
func (c *Conversion) spelledOut(field string, p *model.CORS) {
	if slices.Contains(p.Methods, everything) {
		p.Methods = allMethods
		c.Report.Say(field+".allowMethods", "wildcard-spelled-out", model.Cosmetic, model.Approximated,
			"with credentials the methods are answered by name: all that the API has", "name the methods")
	}
	const advice = "name the headers"
	if slices.Contains(p.Headers, everything) {
		p.Headers = nil
		c.Report.Say(field+".allowHeaders", "wildcard-with-credentials", model.Narrows, model.Approximated,
			"with credentials a wildcard would have to be answered by what was asked for, which is not done: only the safelisted headers are allowed", advice)
	}
	if slices.Contains(p.Expose, everything) {
		p.Expose = nil
		c.Report.Say(field+".exposeHeaders", "wildcard-with-credentials", model.Narrows, model.Approximated,
			"with credentials a wildcard must not be answered: only the safelisted headers are exposed", advice)
	}
}

// origin reads an origin. Browsers leave the default port out of theirs.
func origin(s string) model.StringMatch {
	if s == everything {
		return model.StringMatch{Kind: model.Present}
	}
	if rest, ok := strings.CutPrefix(s, "http://"); ok {
		s = "http://" + strings.TrimSuffix(rest, ":80")
	} else if rest, ok := strings.CutPrefix(s, "https://"); ok {
		s = "https://" + strings.TrimSuffix(rest, ":443")
	}
	if !strings.Contains(s, everything) {
		return model.StringMatch{Kind: model.Exact, Value: s}
	}
	m, err := model.NormalizeRegex(strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, ".*"))
	if err != nil {
		panic("gatewayapi: " + err.Error()) // the text is quoted
	}
	return m
}
