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

// defaultRetry is Istio's own policy.
func (p profile) defaultRetry() *model.Retry {
	r := &model.Retry{
		Attempts:      2,
		On:            []string{"cancelled", "connect-failure", "refused-stream", retriableStatusCodes, "unavailable"},
		AvoidPrevious: true,
	}
	if p.retries503 {
		r.StatusCodes = []uint32{http.StatusServiceUnavailable}
	}
	return r
}

// retry translates the policy of a route, or if it has none the mesh's; nil is no
// retries. What a policy does not say is as in Istio's own.
func (t *Translator) retry(mesh *meshConfig, in *networking.HTTPRetry) *model.Retry {
	if in == nil {
		in = mesh.retry
	}
	r := t.profile.defaultRetry()
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

// routeRetry is the policy of a route to backends. Requests that are hashed stay with their
// endpoint, unless it is said that a retry goes elsewhere; Istio looks at this for single
// destinations alone.
func (h *httpTranslation) routeRetry(in *networking.HTTPRetry, to []model.Backend) *model.Retry {
	mesh := h.t.mesh(h.r)
	out := h.t.retry(mesh, in)
	if in == nil {
		in = mesh.retry
	}
	hashed := len(to) == 1 && to[0].Policy != nil && len(to[0].Policy.Hash) > 0
	if out != nil && hashed && in.GetRetryIgnorePreviousHosts() == nil {
		out.AvoidPrevious = false
	}
	return out
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
