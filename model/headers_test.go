// SPDX-License-Identifier: Apache-2.0

package model

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHeaderEditThen(t *testing.T) {
	first := HeaderEdit{Set: []Header{{"a", "1"}, {"b", "1"}}, Add: []Header{{"c", "1"}, {"d", "1"}}, Remove: []string{"e"}}
	next := HeaderEdit{Set: []Header{{"a", "2"}, {"c", "2"}}, Add: []Header{{"d", "2"}}, Remove: []string{"b", "e"}}
	want := HeaderEdit{Set: []Header{{"a", "2"}, {"c", "2"}}, Add: []Header{{"d", "1"}, {"d", "2"}}, Remove: []string{"b", "e"}}
	if d := cmp.Diff(want, first.Then(next)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(first, first.Then(HeaderEdit{})); d != "" {
		t.Error("nothing after it:", d)
	}
	if got := (HeaderEdit{}).Then(HeaderEdit{}); !got.IsZero() {
		t.Errorf("nothing after nothing: %+v", got)
	}
}
