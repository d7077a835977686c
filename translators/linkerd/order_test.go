// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/gatewayapi"
)

// Expressions are read once each, and not for each prefix that they may tie with: a
// Server's routes are put in order for each of its pods.
func TestOrderReadsExpressionsOnce(t *testing.T) {
	const n = 100
	var in []candidate
	for i := range n {
		expression := gatewayapi.Match{RouteMatch: model.RouteMatch{Path: &model.StringMatch{Kind: model.Regex, Value: fmt.Sprintf("/b%d/[0-9]+", i)}}}
		prefix := gatewayapi.Match{Prefix: fmt.Sprintf("/b%d/7", i), RouteMatch: model.RouteMatch{Path: &model.StringMatch{Kind: model.Segments, Value: fmt.Sprintf("/b%d/7", i)}}}
		in = append(in, candidate{Match: expression, rule: i}, candidate{Match: prefix, rule: i})
	}
	if got := len(order(in)); got != 3*n { // each prefix also as an exact path
		t.Errorf("%d routes", got)
	}
	if got := testing.AllocsPerRun(1, func() { order(in) }); got > 200*n {
		t.Errorf("%.0f allocations for %d expressions", got, n)
	}
}
