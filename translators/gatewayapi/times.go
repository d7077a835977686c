// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// durationText is the API's own format of durations (GEP-2257).
var durationText = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// Duration reads a duration; ok is false if it is not written as the API has it.
func Duration(d gatewayv1.Duration) (out time.Duration, ok bool) {
	if !durationText.MatchString(string(d)) {
		return 0, false
	}
	out, err := time.ParseDuration(string(d))
	return out, err == nil
}

// duration is one that Validate has judged; 0 where none is given.
func duration(d *gatewayv1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	out, _ := Duration(*d)
	return out
}

// times fills in timeouts and retries. Without retries the time of one try is that of
// the whole request.
func (c *Conversion) times(rule Rule, out *model.Route) {
	var try time.Duration
	if t := rule.Timeouts; t != nil {
		out.Timeout, try = duration(t.Request), duration(t.BackendRequest)
	}
	if rule.Retry == nil {
		if try > 0 {
			out.Timeout = try
		}
		return
	}
	out.Retry = c.retry(rule.Field+".retry", rule.Retry)
	out.Retry.PerTryTimeout = try
}

// retry repeats what failed on the way, and the statuses that are named.
func (c *Conversion) retry(field string, in *gatewayv1.HTTPRouteRetry) *model.Retry {
	out := &model.Retry{Attempts: 1, On: []string{"connect-failure", "refused-stream", "reset"}, Backoff: duration(in.Backoff)}
	if in.Attempts != nil {
		out.Attempts = uint32(*in.Attempts)
	}
	if len(in.Codes) > 0 {
		out.On = append(out.On, "retriable-status-codes")
		for _, code := range in.Codes {
			out.StatusCodes = append(out.StatusCodes, uint32(code))
		}
		slices.Sort(out.StatusCodes)
		slices.Sort(out.On)
	}
	if out.Backoff > 0 {
		c.Report.Say(field+".backoff", "random-backoff", model.Degrades, model.Approximated,
			fmt.Sprintf("the first wait is random between 0 and %s, and later ones up to twice as long each: it may be shorter than the minimum", out.Backoff), "")
	}
	return out
}

// sessionCookie is what a session's cookie is called where no name is given.
const sessionCookie = "fairlead-session"

// session keeps the requests of a session on one endpoint, by a hash of its cookie or
// header; nil if there is no session.
func (c *Conversion) session(rule Rule) *model.TrafficPolicy {
	in, field := rule.Session, rule.Field+".sessionPersistence"
	if in == nil {
		return nil
	}
	const advice = "let the application share its sessions"
	if given(in.Type, "") == string(gatewayv1.HeaderBasedSessionPersistence) {
		c.Report.Refuse(field+".type", "header-session", "no header that names a session is handed out: requests go to any endpoint", "use a cookie")
		return nil
	}
	cookie := &model.HashCookie{Name: given(in.SessionName, sessionCookie), Path: "/", TTL: new(time.Duration)}
	if in.CookieConfig != nil && given(in.CookieConfig.LifetimeType, "") == string(gatewayv1.PermanentCookieLifetimeType) {
		*cookie.TTL = duration(in.AbsoluteTimeout)
	} else if in.AbsoluteTimeout != nil {
		c.Report.Say(field+".absoluteTimeout", "session-without-end", model.Degrades, model.Approximated,
			"the session ends when the browser forgets the cookie, and no earlier", "make the cookie Permanent")
	}
	c.Report.Say(field, "hashed-session", model.Degrades, model.Approximated,
		"the endpoint is found by a hash of the cookie: some sessions move when endpoints come or go, and each request is split by weight anew", advice)
	return &model.TrafficPolicy{Balance: model.ByRing, Hash: []model.HashOn{{Cookie: cookie}}}
}
