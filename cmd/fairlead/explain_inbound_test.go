// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/model"
)

func TestInboundText(t *testing.T) {
	var out bytes.Buffer
	p := page{w: &out}
	prefix := &model.StringMatch{Kind: model.Prefix, Value: "/a"}
	p.inbound(0, &explain.Inbound{
		RateLimit: &model.RateLimit{Total: 9, PerIdentity: 3, Overrides: []model.RateLimitOverride{
			{Identities: []string{"x", "y"}, PerSecond: 1}, {Identities: []string{"z"}}}},
		Routes: []explain.InboundRoute{
			{Match: model.RouteMatch{Path: prefix}, Allow: []explain.Rule{{ID: "1"}}},
			{Redirect: &model.Redirect{Status: 301}},
		},
	})
	const want = `limit: 9 requests a second in all; 3 of each identity; 1 of each of x, y; any number of each of z
route 1. path prefix "/a" -> where the client was going
  allowed if it comes at all (rule 1)
route 2. everything -> redirects with 301
  allowed to nobody
else 404
`
	if got := out.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
