// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strconv"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// Indexes of frontends for hosts.
const (
	byHost = "host" // "host:port"
	byPort = "port" // of those for hosts
)

func hostPort(f *model.Frontend) string { return f.Host + ":" + strconv.Itoa(int(f.Port)) }

func indexHosts(s *incr.Store) {
	index := func(name string, value func(*model.Frontend) string) {
		s.Index(merge.Frontends, name, func(_ string, v any) []string {
			if f := v.(*model.Frontend); f.Host != "" {
				return []string{value(f)}
			}
			return nil
		})
	}
	index(byHost, hostPort)
	index(byPort, func(f *model.Frontend) string { return strconv.Itoa(int(f.Port)) })
}

// hostStage makes the route tables of hosts without service. Requests get there by
// their authority alone, from any address.
func (b *builder) hostStage() incr.Stage {
	return incr.Stage{Name: "plan/host",
		Keys: map[incr.Table]func(string, any) []string{
			merge.Frontends: func(k string, v any) []string {
				if v.(*model.Frontend).Host == "" {
					return nil
				}
				return []string{k}
			},
		},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			f, _ := r.Get(merge.Frontends, key).(*model.Frontend)
			if f == nil || f.Host == "" {
				return nil
			}
			c := &compiler{r: r, node: b.node}
			if first := r.Select(merge.Frontends, byHost, hostPort(f))[0].Key; first != key {
				c.put(Diagnostics, key, []model.Diagnostic{shadowedHost(f, first)})
				return c.rows
			}
			app := f.App
			if app == "" {
				app = model.AppDetect // nobody says what speaks there; the client may know
			}
			for _, c.v6 = range []bool{false, true} {
				c.lead(HostScopeKey(f.Host, f.Port, c.v6), &RouteTable{Name: c.named(key), Routes: c.routes(f, app)})
			}
			if c.sayCounted(key, f.Src); len(c.found) > 0 {
				c.put(Diagnostics, key, c.found)
			}
			return unique(c.rows)
		}}
}

func shadowedHost(f *model.Frontend, first string) model.Diagnostic {
	d := model.Diagnostic{Code: "host-twice", Effect: model.Degrades, Outcome: model.Refused,
		Message: fmt.Sprintf("%s has the host already: requests for it get those routes", first),
		Advice:  "let one namespace say how the host is routed"}
	if len(f.Src) > 0 {
		d.Source = f.Src[0]
	}
	return d
}
