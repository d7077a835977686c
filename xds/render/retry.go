// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previouspriorities "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"fairlead.io/fairlead/model"
)

// retryWords are the words of retry_on that Envoy knows; it takes others without
// a word and never retries for them.
var retryWords = strings.Fields(`5xx gateway-error reset reset-before-request connect-failure
	envoy-ratelimited retriable-4xx refused-stream retriable-status-codes retriable-headers
	http3-post-connect-failure cancelled deadline-exceeded internal resource-exhausted unavailable`)

// hostRetries is how often Envoy looks for a host that it has not tried yet.
const hostRetries = 5

func retryPolicy(r *model.Retry) (*route.RetryPolicy, error) {
	if r == nil {
		return nil, nil
	}
	on := append([]string(nil), r.On...)
	if len(r.StatusCodes) > 0 && !slices.Contains(on, "retriable-status-codes") {
		on = append(on, "retriable-status-codes")
	}
	for _, w := range on {
		if !slices.Contains(retryWords, w) {
			return nil, fmt.Errorf("retry on %q: Envoy has no such condition", w)
		}
	}
	if min(r.PerTryTimeout, r.Backoff, r.BackoffMax) < 0 {
		return nil, errors.New("retry: negative time")
	}
	p := &route.RetryPolicy{
		RetryOn:              strings.Join(on, ","),
		NumRetries:           uint32Value(r.Attempts),
		RetriableStatusCodes: r.StatusCodes,
	}
	if r.PerTryTimeout > 0 {
		p.PerTryTimeout = atLeastMS(r.PerTryTimeout)
	}
	var err error
	if p.RetryBackOff, err = backOff(r); err != nil {
		return nil, err
	}
	if r.AvoidPrevious {
		p.RetryHostPredicate = []*route.RetryPolicy_RetryHostPredicate{previousHosts()}
		p.HostSelectionRetryMaxAttempts = hostRetries
	}
	if r.OtherLocations {
		p.RetryPriority = previousPriorities()
	}
	return p, nil
}

// usualBackoff is Envoy's.
const usualBackoff = 25 * time.Millisecond

// backOff is nil if nothing is said of it.
func backOff(r *model.Retry) (*route.RetryPolicy_RetryBackOff, error) {
	base := r.Backoff
	switch {
	case base == 0 && r.BackoffMax == 0:
		return nil, nil
	case r.BackoffMax == 0:
		return &route.RetryPolicy_RetryBackOff{BaseInterval: atLeastMS(base)}, nil
	case base == 0:
		base = min(usualBackoff, r.BackoffMax)
	case base > r.BackoffMax:
		return nil, fmt.Errorf("retry: backoff from %s to %s", base, r.BackoffMax)
	}
	return &route.RetryPolicy_RetryBackOff{BaseInterval: atLeastMS(base), MaxInterval: atLeastMS(r.BackoffMax)}, nil
}

func previousHosts() *route.RetryPolicy_RetryHostPredicate {
	return &route.RetryPolicy_RetryHostPredicate{
		Name: "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &route.RetryPolicy_RetryHostPredicate_TypedConfig{
			TypedConfig: pack(&previoushosts.PreviousHostsPredicate{}),
		},
	}
}

func previousPriorities() *route.RetryPolicy_RetryPriority {
	return &route.RetryPolicy_RetryPriority{
		Name: "envoy.retry_priorities.previous_priorities",
		ConfigType: &route.RetryPolicy_RetryPriority_TypedConfig{
			// Other priorities are looked at anew after every second failure.
			TypedConfig: pack(&previouspriorities.PreviousPrioritiesConfig{UpdateFrequency: 2}),
		},
	}
}
