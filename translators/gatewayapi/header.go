// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
)

// authority is the name under which the model sets the host.
const authority = ":authority"

// headerName is what a header may be called.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$")

// headers translates a modifier. The host of a request, which is no header to a proxy,
// is returned by itself.
func (c *Conversion) headers(field string, in *gatewayv1.HTTPHeaderFilter, request bool) (out model.HeaderEdit, host string) {
	values := func(field string, in []gatewayv1.HTTPHeader) (list []model.Header, host string) {
		for _, h := range in {
			name := strings.ToLower(string(h.Name))
			if request && name == "host" {
				host = cmp.Or(host, h.Value)
				continue
			}
			if !slices.ContainsFunc(list, func(x model.Header) bool { return x.Name == name }) { // the first counts, as the API says
				list = append(list, model.Header{Name: name, Value: h.Value})
			}
		}
		slices.SortFunc(list, func(a, b model.Header) int { return strings.Compare(a.Name, b.Name) })
		return list, host
	}
	out.Set, host = values(field+".set", in.Set)
	var added string
	out.Add, added = values(field+".add", in.Add)
	if added != "" {
		c.Report.Say(field+".add", "one-host", model.Degrades, model.Approximated, "a request has one host: another is not added", "set it")
	}
	for i, name := range in.Remove {
		if !headerName.MatchString(name) || request && strings.EqualFold(name, "host") {
			c.Report.Say(fmt.Sprintf("%s.remove[%d]", field, i), "not-removable", model.Degrades, model.Approximated,
				fmt.Sprintf("%q is no header that can be removed: it stays", name), "remove the entry")
			continue
		}
		out.Remove = append(out.Remove, strings.ToLower(name))
	}
	if len(out.Remove) > 0 {
		slices.Sort(out.Remove)
		out.Remove = slices.Compact(out.Remove)
	}
	return out, host
}
