// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"strings"
)

// request is one that is being made up.
type request struct {
	source, method, scheme, host, authority, path string
	query                                         []string
	headers                                       []string // NAME:VALUE
	port                                          int
	times                                         int
}

func (q request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", q.source)
	if q.scheme != "grpc" {
		fmt.Fprintf(&b, "%s ", q.method)
	}
	host := q.host
	if strings.HasPrefix(q.source, "other/") && !strings.Contains(host, ".") {
		host += ".default"
	}
	fmt.Fprintf(&b, "%s://%s", q.scheme, host)
	if q.port != 0 {
		fmt.Fprintf(&b, ":%d", q.port)
	}
	b.WriteString(q.path)
	if len(q.query) > 0 {
		b.WriteString("?" + strings.Join(q.query, "&"))
	}
	seen := map[string]bool{}
	for _, h := range q.headers {
		if name, _, _ := strings.Cut(h, ":"); !seen[name] {
			seen[name] = true
			if strings.ContainsAny(h, " ") {
				h = `"` + h + `"`
			}
			b.WriteString(" " + h)
		}
	}
	if q.authority != "" {
		b.WriteString(" host=" + q.authority)
	}
	if q.times > 0 {
		fmt.Fprintf(&b, " *%d", q.times)
	}
	return b.String()
}

// plainRequest is one for a host, with nothing particular.
func plainRequest(host string) request {
	return request{source: "client", method: "GET", scheme: "http", host: host, path: "/"}
}
