// SPDX-License-Identifier: Apache-2.0

package render

import (
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// commonRetry moves the retries that most routes of a virtual host have to the host, which
// Envoy gives to routes without any of their own. A plane's default retries are said once
// like that, and not with each route: they are as large as the rest of it.
func commonRetry(h *route.VirtualHost) {
	var forwarding []*route.RouteAction
	for _, r := range h.Routes {
		if a := r.GetRoute(); a != nil {
			if a.RetryPolicy == nil {
				return // it would be given some
			}
			forwarding = append(forwarding, a)
		}
	}
	if len(forwarding) < 2 {
		return
	}
	sharing := map[string][]*route.RouteAction{}
	common := ""
	for _, a := range forwarding {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(a.RetryPolicy)
		if err != nil {
			return // finish reports it
		}
		key := string(b)
		sharing[key] = append(sharing[key], a)
		if len(sharing[key]) > len(sharing[common]) {
			common = key
		}
	}
	if len(sharing[common]) < 2 {
		return
	}
	h.RetryPolicy = sharing[common][0].RetryPolicy
	for _, a := range sharing[common] {
		a.RetryPolicy = nil
	}
}
