// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
)

// readable leaves of routes what connections of the mode can be compared with. Server
// names are read in mode TLS alone. One that no handshake can say is refused: Envoy
// would refuse, because of it, the listener of all services. A route that has lost all
// of its names takes nothing, as opposed to one that never had any.
func (c *compiler) readable(p *servicePort, routes []model.ConnectionRoute, mode Mode) []model.ConnectionRoute {
	var out []model.ConnectionRoute
	for _, r := range routes {
		if len(r.ServerNames) > 0 {
			if mode != TLS {
				continue
			}
			names := make([]string, 0, len(r.ServerNames))
			for _, n := range r.ServerNames {
				if isServerName(n) {
					names = append(names, n)
				} else {
					c.say(badServerName(p, &r, n))
				}
			}
			if r.ServerNames = names; len(names) == 0 {
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// isServerName reports whether it is a name that a client may say, or "*." and the end
// of some. It is lenient: names with underscores are asked for. xds/render asks no more
// of one.
func isServerName(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(label string) bool {
		return label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != ""
	})
}

func badServerName(p *servicePort, r *model.ConnectionRoute, name string) model.Diagnostic {
	d := model.Diagnostic{Code: "server-name", Effect: model.Degrades, Outcome: model.Refused,
		Message: fmt.Sprintf("%s: no client can ask for the server name %q: nothing is routed by it", p.key, name),
		Advice:  "write a DNS name, or *. and the end of one"}
	if len(r.Src) > 0 {
		d.Source = r.Src[0]
	}
	return d
}
