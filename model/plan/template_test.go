// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"fairlead.io/fairlead/model"
)

// Templates of paths are matched as Envoy does.
func TestTemplatesMatch(t *testing.T) {
	for _, c := range []struct {
		template, path string
		want           bool
	}{
		{"/a/{*}/b", "/a/x/b", true},
		{"/a/{*}/b", "/a//b", false},
		{"/a/{*}/b", "/a/x/y/b", false},
		{"/a/{*}", "/a/x", true},
		{"/a/{*}", "/a/x/", false},
		{"/a/{*}", "/a/", false},
		{"/a/{**}", "/a/", true},
		{"/a/{**}", "/a/x/y", true},
		{"/a/{**}", "/a", false},
		{"/a.b/{**}", "/axb/x", false},
		{"/{*}/b", "/x|y/b", false}, // no character of a path
	} {
		if got := Matches(model.StringMatch{Kind: model.Template, Value: c.template}, c.path); got != c.want {
			t.Errorf("%s with %s: %t", c.template, c.path, got)
		}
	}
}
