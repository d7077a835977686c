// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func TestActionText(t *testing.T) {
	prefix := "/new"
	for want, r := range map[string]plan.Route{
		"answers 503": {},
		"answers 500": {Clusters: []plan.WeightedCluster{{Status: 500, Weight: 1}}},
		"75 % <a>, 25 % answers 500; timeout 1s without a byte; 2 retries on 5xx,503 of bodies up to 65536 bytes": {
			Clusters:    []plan.WeightedCluster{{Name: "a", Weight: 3}, {Status: 500, Weight: 1}},
			IdleTimeout: time.Second, Retry: &model.Retry{Attempts: 2, On: []string{"5xx"}, StatusCodes: []uint32{503}, MaxBody: 65536}},
		`redirects with 301, scheme "https", host "h", path "/p", port 8443`: {
			Redirect: &model.Redirect{Status: 301, Scheme: "https", Host: "h", Path: "/p", Port: 8443}, CORS: &model.CORS{}},
		`redirects with 302, what matched becomes "/new"`: {Redirect: &model.Redirect{Status: 302, Prefix: &prefix}},
		`10 % delayed by 5s; 0.0001 % aborted with 418; answers 200`: {
			Direct: &model.Direct{Status: 200}, Fault: &model.Fault{Delay: 5 * time.Second, DelayPerMillion: 100_000, AbortPerMillion: 1, AbortStatus: 418}},
		`100 % aborted with gRPC status 14; CORS for origin exact "http://a" or prefix "b" in any case; <a>; path becomes "/x"`: {
			Clusters: []plan.WeightedCluster{{Name: "a", Weight: 1}}, Rewrite: &model.Rewrite{FullPath: "/x", Path: "/y"},
			Fault: &model.Fault{AbortPerMillion: 1_000_000, AbortGRPC: 14},
			CORS:  &model.CORS{Origins: []model.StringMatch{{Kind: model.Exact, Value: "http://a"}, {Kind: model.Prefix, Value: "b", IgnoreCase: true}}}},
		"CORS for no origin; where the client was going": {Original: true, CORS: &model.CORS{}},
	} {
		if got := actionText(&r, func(cluster string) string { return "<" + cluster + ">" }); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}
