// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Annotations of services and routes.
const (
	retryHTTPKey       = "retry.linkerd.io/http"
	retryGRPCKey       = "retry.linkerd.io/grpc"
	retryLimitKey      = "retry.linkerd.io/limit"
	retryTimeoutKey    = "retry.linkerd.io/timeout"
	timeoutRequestKey  = "timeout.linkerd.io/request"
	timeoutResponseKey = "timeout.linkerd.io/response"
	timeoutIdleKey     = "timeout.linkerd.io/idle"
)

// How Linkerd retries, whatever else is said.
const (
	retryBackoff    = 25 * time.Millisecond
	retryBackoffMax = 250 * time.Millisecond
	retryMaxBody    = 64 << 10
)

// Words of Envoy's for what is retried.
const (
	onStatusCodes = "retriable-status-codes"
	onReset       = "reset"
)

// retries are what annotations say of retries; nil: nothing.
type retries struct {
	limit   uint32
	timeout time.Duration
	http    []uint32 // statuses
	grpc    []string
}

// timeouts are what annotations say of timeouts. Those that are not said are nil.
type timeouts struct{ request, response, idle *time.Duration }

func (t timeouts) none() bool { return t.request == nil && t.response == nil && t.idle == nil }

// readRetries reads the annotations of a service or a route. The error names the one
// that is wrong: none of them counts then.
func readRetries(o *objects.Object, rep *report) (*retries, bool) {
	r := &retries{}
	said, ok := false, true
	get := func(key string, read func(string) error) {
		v, there := o.Annotations[key]
		if !there || !ok {
			return
		}
		if err := read(v); err != nil {
			rep.refused(o, annotation(key), "invalid-annotation", model.Degrades, err.Error()+": no annotation about retries counts", "")
			ok = false
		}
	}
	get(retryLimitKey, func(v string) error {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a number of retries", v)
		}
		r.limit, said = uint32(n), said || n > 0
		return nil
	})
	get(retryTimeoutKey, func(v string) (err error) {
		r.timeout, err = readDuration(v)
		said = said || r.timeout > 0
		return err
	})
	get(retryHTTPKey, func(v string) (err error) {
		r.http, err = readStatuses(v)
		said = true
		return err
	})
	get(retryGRPCKey, func(v string) (err error) {
		r.grpc, err = readCodes(v)
		said = true
		return err
	})
	if !ok || !said {
		return nil, ok
	}
	r.limit = max(r.limit, 1)
	if r.http == nil {
		r.http = statuses(500, 599)
	}
	if r.grpc == nil {
		r.grpc = slices.Clone(grpcFailures)
	}
	return r, true
}

// statuses lists a range, both ends in it.
func statuses(first, last uint32) []uint32 {
	var out []uint32
	for s := first; s <= last; s++ {
		out = append(out, s)
	}
	return out
}

// readStatuses reads "5xx", "gateway-error", statuses and ranges of them.
func readStatuses(v string) ([]uint32, error) {
	var out []uint32
	for part := range strings.SplitSeq(v, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, okA := status(first)
		b, okB := status(last)
		switch {
		case strings.EqualFold(part, "5xx"):
			a, b = 500, 599
		case strings.EqualFold(part, "gateway-error"):
			a, b = 502, 504
		case !okA || !okB || a > b:
			return nil, fmt.Errorf("%q is not a status, a range of them, 5xx or gateway-error", part)
		}
		out = append(out, statuses(a, b)...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func status(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint32(n), err == nil && n >= 100 && n < 600
}

// grpcFailures are the codes that count as failures, as far as a proxy can retry them.
var grpcFailures = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

func readCodes(v string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(v, ",") {
		word := strings.ToLower(part)
		if !slices.Contains(grpcFailures, word) {
			return nil, fmt.Errorf("%q is not one of %s", part, strings.Join(grpcFailures, ", "))
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// policy is the retries as the model has them, for a route of gRPC or of HTTP.
func (r *retries) policy(grpc bool) *model.Retry {
	if r == nil {
		return nil
	}
	out := &model.Retry{Attempts: r.limit, PerTryTimeout: r.timeout, Backoff: retryBackoff, BackoffMax: retryBackoffMax, MaxBody: retryMaxBody}
	if grpc {
		out.On = slices.Clone(r.grpc)
	} else {
		out.On, out.StatusCodes = []string{onStatusCodes}, r.http
	}
	if r.timeout > 0 {
		out.On = append(out.On, onReset) // what a try that is out of time counts as
	}
	slices.Sort(out.On)
	return out
}

// readTimeouts reads the annotations of a service or a route, as readRetries does.
func readTimeouts(o *objects.Object, rep *report) (timeouts, bool) {
	var t timeouts
	for _, a := range []struct {
		key string
		to  **time.Duration
	}{{timeoutRequestKey, &t.request}, {timeoutResponseKey, &t.response}, {timeoutIdleKey, &t.idle}} {
		v, there := o.Annotations[a.key]
		if !there {
			continue
		}
		d, err := readDuration(v)
		if err != nil {
			rep.refused(o, annotation(a.key), "invalid-annotation", model.Degrades, err.Error()+": no annotation about timeouts counts", "")
			return timeouts{}, false
		}
		*a.to = &d
	}
	return t, true
}

// apply puts the timeouts on a route. That of answers begins in Linkerd when a request
// has been sent; here it is one for the whole request.
func (t timeouts) apply(rt *model.Route) {
	value := func(d *time.Duration) time.Duration {
		if d == nil {
			return 0
		}
		return *d
	}
	rt.Timeout, rt.IdleTimeout = value(t.request), value(t.idle)
	if r := value(t.response); r > 0 && (rt.Timeout == 0 || r < rt.Timeout) {
		rt.Timeout = r
	}
}

// readDuration reads a duration as Linkerd's annotations have it: a whole number with
// a unit, or "0".
func readDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	digits := strings.LastIndexFunc(s, func(r rune) bool { return r >= '0' && r <= '9' }) + 1
	n, err := strconv.ParseUint(s[:digits], 10, 63)
	unit, known := units[s[digits:]]
	if s[digits:] == "" && n == 0 && digits > 0 {
		unit, known = 0, true
	}
	if err != nil || !known || unit > 0 && n > uint64(maxDuration/unit) {
		return 0, fmt.Errorf("%q is not a duration such as 500ms, 10s, 5m, 1h or 1d", s)
	}
	return time.Duration(n) * unit, nil
}

const maxDuration = time.Duration(1<<63 - 1)

var units = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// noteRetries tells in what retries and timeouts differ.
func noteRetries(o *objects.Object, rep *report) {
	if v, ok := o.Annotations[retryTimeoutKey]; ok && v != "0" {
		rep.approximated(o, annotation(retryTimeoutKey), "retried-resets", model.Degrades,
			"a try that is out of time is retried, as in Linkerd; tries whose connection breaks off are, too", "")
	}
	if v, ok := o.Annotations[timeoutResponseKey]; ok && v != "0" {
		rep.approximated(o, annotation(timeoutResponseKey), "response-timeout", model.Degrades,
			"the time counts from the beginning of the request, where in Linkerd it counts from its end", cmp.Or("use "+timeoutRequestKey))
	}
}
