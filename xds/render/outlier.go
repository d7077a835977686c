// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typematcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"fairlead.io/fairlead/model"
)

// outlier renders outlier detection. What Envoy looks at unasked, the rate of success
// among all endpoints, is off.
func outlier(in *model.Outlier) (*cluster.OutlierDetection, error) {
	for _, d := range []time.Duration{in.Interval, in.BaseEjection, in.MaxEjection, in.Jitter} {
		if d < 0 {
			return nil, fmt.Errorf("a time of %s in outlier detection", d)
		}
	}
	if in.FailurePercent > 100 || in.PanicPercent > 100 || in.MaxPercent != nil && *in.MaxPercent > 100 {
		return nil, errors.New("more than 100 percent in outlier detection")
	}
	const always, never = 100, 0
	o := &cluster.OutlierDetection{
		EnforcingConsecutive_5Xx:           uint32Value(never),
		EnforcingConsecutiveGatewayFailure: uint32Value(never),
		EnforcingSuccessRate:               uint32Value(never),
		EnforcingFailurePercentage:         uint32Value(never),
		Interval:                           orNil(in.Interval),
		BaseEjectionTime:                   orNil(in.BaseEjection),
		MaxEjectionTime:                    orNil(in.MaxEjection),
		MaxEjectionTimeJitter:              orNil(in.Jitter),
	}
	if n := in.Consecutive5xx; n > 0 {
		o.Consecutive_5Xx, o.EnforcingConsecutive_5Xx = uint32Value(n), uint32Value(always)
	}
	if n := in.ConsecutiveGateway; n > 0 {
		o.ConsecutiveGatewayFailure, o.EnforcingConsecutiveGatewayFailure = uint32Value(n), uint32Value(always)
	}
	if in.SplitLocal {
		o.SplitExternalLocalOriginErrors = true
		o.EnforcingLocalOriginSuccessRate = uint32Value(never)
		o.EnforcingConsecutiveLocalOriginFailure = uint32Value(never)
		if n := in.ConsecutiveLocal; n > 0 {
			o.ConsecutiveLocalOriginFailure, o.EnforcingConsecutiveLocalOriginFailure = uint32Value(n), uint32Value(always)
		}
	}
	if n := in.FailurePercent; n > 0 {
		o.FailurePercentageThreshold, o.EnforcingFailurePercentage = uint32Value(n), uint32Value(always)
		o.FailurePercentageMinimumHosts = uint32Value(1)
		o.FailurePercentageRequestVolume = uint32Value(in.MinRequests)
	}
	if in.MaxPercent != nil {
		o.MaxEjectionPercent = uint32Value(*in.MaxPercent)
	}
	return o, nil
}

// errorMatcher says which answers count as failures, nil if those of 5xx do.
func errorMatcher(in *model.Outlier) *upstream.HttpProtocolOptions_OutlierDetection {
	if in == nil || len(in.StatusCodes) == 0 {
		return nil
	}
	var rules []*matcher.MatchPredicate
	for _, code := range in.StatusCodes {
		rules = append(rules, &matcher.MatchPredicate{Rule: &matcher.MatchPredicate_HttpResponseHeadersMatch{
			HttpResponseHeadersMatch: &matcher.HttpHeadersMatch{Headers: []*route.HeaderMatcher{{
				Name:                 ":status",
				HeaderMatchSpecifier: statusMatch(code),
			}}},
		}})
	}
	any := rules[0]
	if len(rules) > 1 {
		any = &matcher.MatchPredicate{Rule: &matcher.MatchPredicate_OrMatch{OrMatch: &matcher.MatchPredicate_MatchSet{Rules: rules}}}
	}
	return &upstream.HttpProtocolOptions_OutlierDetection{ErrorMatcher: any}
}

// statusMatch compares a status with "503" or "500-599".
func statusMatch(code string) *route.HeaderMatcher_StringMatch {
	first, last, isRange := strings.Cut(code, "-")
	a, _ := strconv.Atoi(first)
	b, _ := strconv.Atoi(last)
	m := &typematcher.StringMatcher{MatchPattern: &typematcher.StringMatcher_Exact{Exact: code}}
	if isRange {
		var all []string
		for n := a; n <= min(b, 599); n++ {
			all = append(all, strconv.Itoa(n))
		}
		m.MatchPattern = &typematcher.StringMatcher_SafeRegex{SafeRegex: &typematcher.RegexMatcher{Regex: strings.Join(all, "|")}}
	}
	return &route.HeaderMatcher_StringMatch{StringMatch: m}
}
