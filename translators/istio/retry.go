// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// retriableStatusCodes is the condition under which Envoy looks at status codes.
const retriableStatusCodes = "retriable-status-codes"

// Up to this release the default also retried 503; later ones take it to be unsafe.
const lastRetrying503 = 23

// defaultRetry is the policy of a route that says nothing about retries.
func (t *Translator) defaultRetry() *model.Retry {
	r := &model.Retry{
		Attempts:      2,
		On:            []string{"cancelled", "connect-failure", "refused-stream", retriableStatusCodes, "unavailable"},
		AvoidPrevious: true,
	}
	if t.minor <= lastRetrying503 {
		r.StatusCodes = []uint32{http.StatusServiceUnavailable}
	}
	return r
}

// retry translates the policy of a route; nil is no retries.
func (t *Translator) retry(in *networking.HTTPRetry) *model.Retry {
	r := t.defaultRetry()
	if in == nil {
		return r
	}
	if in.GetAttempts() <= 0 {
		return nil
	}
	r.Attempts = uint32(in.GetAttempts())
	if in.GetRetryOn() != "" {
		r.On, r.StatusCodes = parseRetryOn(in.GetRetryOn())
	}
	r.PerTryTimeout = duration(in.GetPerTryTimeout())
	r.Backoff = duration(in.GetBackoff())
	r.OtherLocations = in.GetRetryRemoteLocalities().GetValue()
	if in.GetRetryIgnorePreviousHosts() != nil {
		r.AvoidPrevious = in.GetRetryIgnorePreviousHosts().GetValue()
	}
	return r
}

// parseRetryOn tells conditions and status codes apart; codes bring their condition.
func parseRetryOn(s string) (on []string, codes []uint32) {
	for _, part := range retryOnParts(s) {
		if code, err := strconv.Atoi(part); err == nil && http.StatusText(code) != "" {
			codes = append(codes, uint32(code))
		} else {
			on = append(on, part)
		}
	}
	if len(codes) > 0 {
		on = append(on, retriableStatusCodes)
	}
	slices.Sort(on)
	slices.Sort(codes)
	return slices.Compact(on), slices.Compact(codes)
}

func retryOnParts(s string) []string {
	var out []string
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
