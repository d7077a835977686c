// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func only(t *testing.T, rows ...input) plan.Route {
	t.Helper()
	tab := table(t, store(append(world(), rows...)...), "shop/web:80")
	if len(tab.Routes) != 1 {
		t.Fatalf("routes %+v", tab.Routes)
	}
	return tab.Routes[0]
}

func TestRouteKeepsItsActions(t *testing.T) {
	prefix, age := "/b", int64(5)
	in := model.Route{
		Redirect:    &model.Redirect{Status: 301, Prefix: &prefix},
		Backends:    []model.Backend{to("web", 1)}, // a redirect needs none
		Fault:       &model.Fault{Delay: time.Second, DelayPerMillion: 1},
		CORS:        &model.CORS{MaxAge: &age},
		Timeout:     time.Minute,
		IdleTimeout: time.Second,
		Retry:       &model.Retry{Attempts: 1, BackoffMax: time.Second, MaxBody: 1},
		Rewrite:     &model.Rewrite{FullPath: "/x"},
	}
	got := only(t, frontend("red", model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{in}}))
	id := got.ID
	got.ID = ""
	want := plan.Route{Redirect: in.Redirect, Fault: in.Fault, CORS: in.CORS, Timeout: in.Timeout, IdleTimeout: in.IdleTimeout, Retry: in.Retry, Rewrite: in.Rewrite}
	if d := diff(want, got); d != "" || id == "" {
		t.Errorf("id %q, -want +got:\n%s", id, d)
	}
}

func TestMissingBackendsWithAStatus(t *testing.T) {
	missing := func(weight, status uint32) model.Backend {
		return model.Backend{Namespace: "shop", Service: "gone", Port: 80, Missing: true, Weight: weight, Status: status}
	}
	web := func(weight uint32) model.Backend {
		return model.Backend{Namespace: "shop", Service: "web", Port: 80, Weight: weight}
	}
	for name, c := range map[string]struct {
		backends []model.Backend
		want     []plan.WeightedCluster
	}{
		"alone":             {[]model.Backend{missing(0, 500)}, []plan.WeightedCluster{{Status: 500, Weight: 1}}},
		"a share":           {[]model.Backend{web(60), missing(20, 500), missing(20, 418)}, []plan.WeightedCluster{{Name: "shop/web:80", Weight: 3}, {Status: 500, Weight: 1}, {Status: 418, Weight: 1}}},
		"no share":          {[]model.Backend{web(60), missing(0, 500)}, []plan.WeightedCluster{{Name: "shop/web:80", Weight: 1}}},
		"without endpoints": {[]model.Backend{missing(1, 0)}, []plan.WeightedCluster{{Name: "missing/shop/gone:80", Weight: 1}}},
	} {
		got := only(t, frontend("red", model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{Backends: c.backends}}}))
		if d := diff(c.want, got.Clusters); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
	}
}

func TestRetriesOfServicesThatNobodyRoutes(t *testing.T) {
	retry := &model.Retry{Attempts: 2, On: []string{"unavailable"}}
	red := input{"defaults", "red", &model.Defaults{Retry: retry}}
	blue := input{"defaults", "blue", &model.Defaults{}}
	for name, c := range map[string]struct {
		rows []input
		want *model.Retry
	}{
		"nobody's":       {[]input{red, blue}, nil},
		"a mesh's":       {[]input{red, blue, namespace(model.Namespace{Name: "shop", Mesh: "red"})}, retry},
		"an owner's":     {[]input{red, blue, namespace(model.Namespace{Name: "shop", Mesh: "red", Owner: "blue"})}, nil},
		"routed already": {[]input{red, blue, namespace(model.Namespace{Name: "shop", Mesh: "red"}), frontend("red", model.Frontend{Namespace: "shop", Service: "web", Port: 80, Routes: []model.Route{{Backends: []model.Backend{to("web", 1)}}}})}, nil},
	} {
		if d := diff(c.want, only(t, c.rows...).Retry); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
	}
}

func TestSegments(t *testing.T) {
	for value, paths := range map[string]map[string]bool{
		"/a": {"/a": true, "/a/": true, "/a/b": true, "/ab": false, "/": false},
		"/":  {"/": true, "/a": true, "": false},
	} {
		for path, want := range paths {
			if got := plan.Matches(model.StringMatch{Kind: model.Segments, Value: value}, path); got != want {
				t.Errorf("segments %s of %s: %v", value, path, got)
			}
		}
	}
	if !plan.Matches(model.StringMatch{Kind: model.Segments, Value: "/A", IgnoreCase: true}, "/a/B") {
		t.Error("segments in any case")
	}
}
