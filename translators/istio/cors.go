// SPDX-License-Identifier: Apache-2.0

package istio

import (
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// cors translates what browsers are told; nil is nothing, also where no origin may call
// and preflight requests go on to the backend.
func cors(in *networking.CorsPolicy) *model.CORS {
	out := &model.CORS{
		Origins:     origins(in),
		Methods:     in.GetAllowMethods(),
		Headers:     in.GetAllowHeaders(),
		Expose:      in.GetExposeHeaders(),
		Credentials: in.GetAllowCredentials().GetValue(),
		AnswerAll:   in.GetUnmatchedPreflights() == networking.CorsPolicy_IGNORE,
	}
	if len(out.Origins) == 0 && !out.AnswerAll {
		return nil
	}
	if d := in.GetMaxAge(); d != nil {
		seconds := d.GetSeconds()
		out.MaxAge = &seconds
	}
	return out
}

// origins are those that may call. The old list is read where the new one is not given.
func origins(in *networking.CorsPolicy) []model.StringMatch {
	var out []model.StringMatch
	for _, o := range in.GetAllowOrigins() {
		out = append(out, origin(o))
	}
	if len(in.GetAllowOrigins()) == 0 {
		for _, o := range in.GetAllowOrigin() { // deprecated, still read
			out = append(out, exactOrigin(o))
		}
	}
	return out
}

func origin(in *networking.StringMatch) model.StringMatch {
	switch m := in.GetMatchType().(type) {
	case *networking.StringMatch_Prefix:
		return model.StringMatch{Kind: model.Prefix, Value: m.Prefix}
	case *networking.StringMatch_Regex:
		return regex(m.Regex)
	}
	return exactOrigin(in.GetExact())
}

// exactOrigin reads "*" as Envoy does: any.
func exactOrigin(s string) model.StringMatch {
	if s == "*" {
		return model.StringMatch{Kind: model.Present}
	}
	return model.StringMatch{Kind: model.Exact, Value: s}
}
