// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// A policy of paths refuses what servers may take for another path; one that asks for none
// does not mind.
func TestAmbiguousPaths(t *testing.T) {
	everything := []model.AuthRule{{To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Prefix, Value: "/"}}}}}}
	ofPaths := &plan.Policy{Allow: [][]model.AuthRule{everything}}
	denies := &plan.Policy{Deny: []model.AuthRule{{To: []model.Operation{{Paths: []model.StringMatch{{Kind: model.Prefix, Value: "/private"}}}}}}}
	byHeader := &plan.Policy{Allow: [][]model.AuthRule{{{When: []model.Condition{{Kind: model.OnHeader, Name: ":path", Values: []model.StringMatch{{Kind: model.Prefix, Value: "/"}}}}}}}}
	ofMethods := &plan.Policy{Allow: [][]model.AuthRule{{{To: []model.Operation{{Methods: []model.StringMatch{{Kind: model.Exact, Value: "GET"}}}}}}}}
	for path, denied := range map[string]bool{
		"/": false, "/public/x": false, "/a.b/..c/c../...": false, "/public/.hidden": false, "/%252e%252e/x": false, "/a;b=c": false,
		"/public/../private": true, "/public/..": true, "/.": true, "/./x": true, "/public/%2e%2E/x": true, "/public/.%2e": true,
		"//private": true, "/public//": true, `/public\..\x`: true, "/a%2Fb": true, "/a%5cb": true, "/public/..;a/x": true, "/public/#/x": true,
	} {
		q := &plan.Request{Method: "GET", Path: path}
		for name, p := range map[string]*plan.Policy{"allows paths": ofPaths, "denies paths": denies, "allows by the header": byHeader} {
			if got := p.Judge(q).Denied; got != denied {
				t.Errorf("%s: %q denied: %t, want %t", name, path, got, denied)
			}
		}
		if ofMethods.Judge(q).Denied {
			t.Errorf("%q is denied by a policy that asks for no path", path)
		}
	}
}
