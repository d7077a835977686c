// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"testing"

	"fairlead.io/fairlead/model"
)

func TestRewrittenPath(t *testing.T) {
	segments := func(v string) *model.StringMatch { return &model.StringMatch{Kind: model.Segments, Value: v} }
	for _, c := range []struct {
		by         string
		match      *model.StringMatch
		path, want string
	}{
		{"/b", segments("/a"), "/a", "/b"},
		{"/b", segments("/a"), "/a/", "/b/"},
		{"/b/", segments("/a"), "/a", "/b"},
		{"/b/", segments("/a"), "/a/x", "/b/x"},
		{"/", segments("/a"), "/a", "/"},
		{"/", segments("/a"), "/a/", "/"},
		{"/", segments("/a"), "/a/x", "/x"},
		{"/b", segments("/"), "/", "/b/"},
		{"/b", segments("/"), "/x", "/b/x"},
		{"/", segments("/"), "/x", "/x"},
		{"/", &model.StringMatch{Kind: model.Prefix, Value: "/a"}, "/a/x", "//x"},
		{"/b", &model.StringMatch{Kind: model.Exact, Value: "/a"}, "/a", "/b"},
		{"/b", nil, "/a/x", "/b"},
	} {
		if got := RewrittenPath(&model.Rewrite{Path: c.by}, c.match, c.path); got != c.want {
			t.Errorf("%s by %s for %+v: %s, want %s", c.path, c.by, c.match, got, c.want)
		}
	}
	if got := RewrittenPath(&model.Rewrite{Path: "/b", FullPath: "/c"}, segments("/a"), "/a/x"); got != "/c" {
		t.Errorf("the whole path: %s", got)
	}
}
