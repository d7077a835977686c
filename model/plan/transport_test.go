// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"fairlead.io/fairlead/model"
)

// A permission for one transport must not open the same port of the other.
func TestTransportOfPermission(t *testing.T) {
	g := &Governed{Allow: [][]model.AuthRule{{{To: []model.Operation{{Protocol: model.UDP, Ports: []uint16{53}}, {Protocol: model.TCP}}}}}}
	for _, c := range []struct {
		port  uint16
		proto model.Protocol
		want  Action
	}{
		{53, model.UDP, Allow}, {53, model.TCP, Allow}, {80, model.TCP, Allow}, {80, model.UDP, Deny},
		{0, "", Deny}, // any other port, either transport: the one that is refused decides
	} {
		if got, _ := g.verdict(&Class{}, c.port, c.proto, false); got != c.want {
			t.Errorf("%s port %d: %s, want %s", c.proto, c.port, got, c.want)
		}
	}
	g = &Governed{Allow: [][]model.AuthRule{{{To: []model.Operation{{Protocol: model.UDP}}}}}}
	if p := g.Policy(80); p == nil || len(p.Allow) != 1 || len(p.Allow[0]) != 0 {
		t.Errorf("a permission for UDP must allow no request: %+v", p)
	}
}
