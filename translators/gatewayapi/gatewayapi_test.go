// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"math/rand/v2"
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// Durations are those of GEP-2257: a part of what Go takes.
func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": 0, "1h": time.Hour, "1m30s": 90 * time.Second, "10ms": 10 * time.Millisecond,
		"1h2m3s4ms": time.Hour + 2*time.Minute + 3*time.Second + 4*time.Millisecond, "99999ms": 99999 * time.Millisecond} {
		if got, ok := Duration(gatewayv1.Duration(text)); !ok || got != want {
			t.Errorf("%q: %s, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "1", "1d", "-1s", "1.5s", "1us", "100000s", "1h1h1h1h1h", " 1s", "1S"} {
		if got, ok := Duration(gatewayv1.Duration(text)); ok {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}

// What is more specific comes first, and no two orders contradict each other.
func TestRank(t *testing.T) {
	ordered := []Rank{
		{Exact: true, Path: 2, Method: 1}, {Exact: true, Path: 2}, {Regex: true, Path: 9, Headers: 1}, {Regex: true, Path: 9}, {Regex: true, Path: 3},
		{Path: 5}, {Path: 1, Method: 1, Headers: 1}, {Path: 1, Method: 1}, {Path: 1, Headers: 2}, {Path: 1, Headers: 1, Query: 1}, {Path: 1, Headers: 1},
		{Path: 1, Query: 2}, {Path: 1, Query: 1}, {Path: 1},
	}
	for i := range ordered {
		for j := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := ordered[i].Compare(ordered[j]); got != want {
				t.Errorf("%+v against %+v: %d, want %d", ordered[i], ordered[j], got, want)
			}
		}
	}
}

// Whatever a match asks for, it asks for no less than its own parts say.
func TestMatchKeepsConditions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	paths := []string{"/", "/a", "/a/", "/a/b"}
	for range 500 {
		var in gatewayv1.HTTPRouteMatch
		kind := []gatewayv1.PathMatchType{gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchRegularExpression}[rnd.IntN(3)]
		value := paths[rnd.IntN(len(paths))]
		in.Path = &gatewayv1.HTTPPathMatch{Type: &kind, Value: &value}
		names := map[string]bool{}
		for range rnd.IntN(4) {
			name := []string{"X-A", "x-a", "x-b"}[rnd.IntN(3)]
			names[map[string]string{"X-A": "x-a"}[name]+map[string]string{"x-a": "x-a", "x-b": "x-b"}[name]] = true
			in.Headers = append(in.Headers, gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(name), Value: "1"})
		}
		m := httpMatch("m", in)
		switch {
		case m.Broken:
			t.Errorf("%s %s is broken", kind, value)
		case len(m.RouteMatch.Headers) != len(names) || m.Rank.Headers != len(names):
			t.Errorf("%+v: headers %+v, want %v", in.Headers, m.RouteMatch.Headers, names)
		case kind == gatewayv1.PathMatchPathPrefix && value == "/":
			if m.Path != nil || m.Whole().Path == nil {
				t.Errorf("the prefix / is %+v, written out %+v", m.Path, m.Whole().Path)
			}
		case m.Path == nil || kind == gatewayv1.PathMatchPathPrefix && m.Path.Kind != model.Segments || kind != gatewayv1.PathMatchPathPrefix && m.Path.Kind != model.Exact:
			t.Errorf("%s %s is %+v", kind, value, m.Path)
		}
	}
}
