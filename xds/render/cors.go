// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"

	cors "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model"
)

// corsPolicy is what browsers are told of a route.
func corsPolicy(c *model.CORS) (*cors.CorsPolicy, error) {
	m := &cors.CorsPolicy{}
	if c.Credentials {
		m.AllowCredentials = wrapperspb.Bool(true)
	}
	if c.AnswerAll {
		m.ForwardNotMatchingPreflights = wrapperspb.Bool(false)
	}
	for _, o := range c.Origins {
		s, err := originMatcher(o)
		if err != nil {
			return nil, fmt.Errorf("origin: %w", err)
		}
		m.AllowOriginStringMatch = append(m.AllowOriginStringMatch, s)
	}
	for _, l := range []struct {
		to     *string
		header string
		values []string
	}{
		{&m.AllowMethods, "access-control-allow-methods", c.Methods},
		{&m.AllowHeaders, "access-control-allow-headers", c.Headers},
		{&m.ExposeHeaders, "access-control-expose-headers", c.Expose},
	} {
		*l.to = strings.Join(l.values, ",")
		if err := checkHeaderValue(l.header, *l.to); err != nil {
			return nil, err
		}
	}
	if c.MaxAge != nil {
		m.MaxAge = strconv.FormatInt(*c.MaxAge, 10)
	}
	return m, nil
}

func originMatcher(o model.StringMatch) (*matcher.StringMatcher, error) {
	if o.Kind == model.Present { // any; CORS is about requests that have one
		o = model.StringMatch{Kind: model.Exact, Value: "*"}
	}
	return stringMatcher(o)
}
