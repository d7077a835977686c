// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Annotations of services about endpoints that fail.
const (
	accrualKey         = "balancer.linkerd.io/failure-accrual"
	accrualMaxKey      = accrualKey + "-consecutive-max-failures"
	accrualMinKey      = accrualKey + "-consecutive-min-penalty"
	accrualLongestKey  = accrualKey + "-consecutive-max-penalty"
	accrualJitterKey   = accrualKey + "-consecutive-jitter-ratio"
	successKey         = "balancer.alpha.linkerd.io/failure-accrual-success-rate-"
	successThreshold   = successKey + "threshold"
	successWindow      = successKey + "window"
	successMinRequests = successKey + "min-requests"
)

// Modes of failure accrual.
const (
	accrualConsecutive = "consecutive"
	accrualUnified     = "unified"
)

// breaker reads the annotations of failure accrual; nil: no endpoint is taken out of
// use, also where one of them is wrong.
func breaker(o *objects.Object, rep *report) *model.Outlier {
	mode, ok := o.Annotations[accrualKey]
	if !ok {
		return nil
	}
	wrong := func(key string, err error) *model.Outlier {
		rep.refused(o, annotation(key), "invalid-annotation", model.Degrades, err.Error()+": no endpoint is taken out of use, as in Linkerd", "")
		return nil
	}
	all, every := uint32(100), uint32(0)
	out := &model.Outlier{Consecutive5xx: 7, BaseEjection: time.Second, MaxEjection: time.Minute, MaxPercent: &all, PanicPercent: every}
	jitter := 0.5
	for _, a := range []struct {
		key  string
		read func(string) error
	}{
		{accrualMaxKey, func(v string) error { return readUint(v, &out.Consecutive5xx) }},
		{accrualMinKey, func(v string) (err error) { out.BaseEjection, err = readDuration(v); return err }},
		{accrualLongestKey, func(v string) (err error) { out.MaxEjection, err = readDuration(v); return err }},
		{accrualJitterKey, func(v string) error { return readRatio(v, 100, &jitter) }},
	} {
		if v, there := o.Annotations[a.key]; there {
			if err := a.read(v); err != nil {
				return wrong(a.key, err)
			}
		}
	}
	switch {
	case out.BaseEjection > out.MaxEjection:
		return wrong(accrualMinKey, fmt.Errorf("the shortest penalty, %s, is longer than the longest, %s", out.BaseEjection, out.MaxEjection))
	case out.MaxEjection == 0:
		return wrong(accrualLongestKey, fmt.Errorf("the longest penalty is 0"))
	}
	out.Jitter = time.Duration(jitter * float64(out.BaseEjection))
	switch strings.TrimSpace(mode) {
	case accrualConsecutive:
		rep.approximated(o, annotation(accrualKey), "failure-accrual", model.Degrades,
			"an endpoint that fails is left alone for a time, and is in use again without a single request that tries it; the gRPC code PERMISSION_DENIED is no failure, and UNKNOWN is one", "")
		return out
	case accrualUnified:
		if key, err := successRate(o, out); err != nil {
			return wrong(key, err)
		}
		rep.approximated(o, annotation(accrualKey), "failure-accrual", model.Degrades,
			"the rate of success is looked at once in each window, and not over a window that slides; an endpoint is in use again without a single request that tries it; 429 is no failure", "")
		return out
	}
	return wrong(accrualKey, fmt.Errorf("%q is not %s or %s", mode, accrualConsecutive, accrualUnified))
}

// successRate reads what mode unified adds; the key is that of a wrong annotation.
func successRate(o *objects.Object, out *model.Outlier) (key string, err error) {
	threshold := 0.8
	out.Interval, out.MinRequests = 10*time.Second, 5
	if v, ok := o.Annotations[successThreshold]; ok {
		if err := readRatio(v, 1, &threshold); err != nil {
			return successThreshold, err
		}
	}
	if v, ok := o.Annotations[successWindow]; ok {
		if out.Interval, err = readDuration(v); err != nil {
			return successWindow, err
		}
		if out.Interval < 10*time.Millisecond {
			return successWindow, fmt.Errorf("a window of %s is shorter than 10ms", out.Interval)
		}
	}
	if v, ok := o.Annotations[successMinRequests]; ok {
		if err := readUint(v, &out.MinRequests); err != nil {
			return successMinRequests, err
		}
		if out.MinRequests > 1e6 && threshold > 0 {
			return successMinRequests, fmt.Errorf("%d requests are more than a million", out.MinRequests)
		}
	}
	if threshold > 0 { // 0: any rate is good enough
		out.FailurePercent = min(100, uint32((1-threshold)*100+0.5))
		out.FailurePercent = max(1, out.FailurePercent)
	}
	return "", nil
}

func readUint(s string, to *uint32) error {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a number", s)
	}
	*to = uint32(n)
	return nil
}

func readRatio(s string, most float64, to *float64) error {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(f >= 0 && f <= most) {
		return fmt.Errorf("%q is not a number from 0 to %g", s, most)
	}
	*to = f
	return nil
}
