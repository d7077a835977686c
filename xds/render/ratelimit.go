// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"time"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	descriptor "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model/plan"
)

// Descriptors of requests that a limit of their own is for: whose they are, or that
// nobody knows.
const (
	clientKey = "client"
	otherKey  = "other"
)

// limited puts a table's limit on a virtual host: one bucket for all of its routes that
// go on. Requests that are refused, redirected or taken by no route are not counted.
//
// A changed table makes new buckets, which are full.
func limited(h *route.VirtualHost, l *plan.Limit) error {
	config, err := rateLimit(l)
	if err != nil || config == nil {
		return err
	}
	filter, err := packChecked(config)
	if err != nil {
		return err
	}
	h.TypedPerFilterConfig = maps.Clone(h.TypedPerFilterConfig)
	h.TypedPerFilterConfig[RateLimitFilter] = filter
	for _, r := range h.Routes {
		if r.GetRedirect() == nil {
			continue
		}
		if r.TypedPerFilterConfig == nil {
			r.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		r.TypedPerFilterConfig[RateLimitFilter] = pack(uncounted())
	}
	return nil
}

// uncounted is the configuration of a route whose requests are not counted. A route has
// to have a bucket; this one is not asked.
func uncounted() *ratelimit.LocalRateLimit {
	return &ratelimit.LocalRateLimit{StatPrefix: "fl", TokenBucket: perSecond(math.MaxUint32)}
}

// rateLimit is nil if there is no limit.
func rateLimit(l *plan.Limit) (*ratelimit.LocalRateLimit, error) {
	m := &ratelimit.LocalRateLimit{
		StatPrefix:                     "fl",
		Status:                         &typev3.HttpStatus{Code: typev3.StatusCode_TooManyRequests},
		RateLimitedAsResourceExhausted: true,
		FilterEnabled:                  always(),
		FilterEnforced:                 always(),
		TokenBucket:                    perSecond(l.Total),
	}
	if l.Total == 0 { // the filter asks for a bucket: one that is never empty
		m.TokenBucket = perSecond(math.MaxUint32)
		m.AlwaysConsumeDefaultTokenBucket = wrapperspb.Bool(false)
	}
	var all []*xdscore.CidrRange
	for _, c := range l.Clients {
		if c.Identity == "" {
			return nil, errors.New("the limit of a client without identity")
		}
		at, err := ranges(c.Addresses)
		if err != nil {
			return nil, fmt.Errorf("limit of %s: %w", c.Identity, err)
		}
		if all = append(all, at...); c.PerSecond == 0 || len(at) == 0 {
			continue
		}
		m.RateLimits = append(m.RateLimits, fromAddresses(clientKey, c.Identity, &matcher.AddressMatcher{Ranges: at}))
		m.Descriptors = append(m.Descriptors, bucket(clientKey, c.Identity, c.PerSecond))
	}
	if l.Others > 0 {
		others := &route.RateLimit{Actions: []*route.RateLimit_Action{{ActionSpecifier: &route.RateLimit_Action_GenericKey_{
			GenericKey: &route.RateLimit_Action_GenericKey{DescriptorKey: otherKey, DescriptorValue: otherKey},
		}}}}
		if len(all) > 0 {
			others = fromAddresses(otherKey, otherKey, &matcher.AddressMatcher{Ranges: all, InvertMatch: true})
		}
		m.RateLimits = append(m.RateLimits, others)
		m.Descriptors = append(m.Descriptors, bucket(otherKey, otherKey, l.Others))
	}
	if l.Total == 0 && len(m.Descriptors) == 0 {
		return nil, nil
	}
	return m, nil
}

// fromAddresses describes requests by the address of their connection.
func fromAddresses(key, value string, m *matcher.AddressMatcher) *route.RateLimit {
	return &route.RateLimit{Actions: []*route.RateLimit_Action{{ActionSpecifier: &route.RateLimit_Action_RemoteAddressMatch_{
		RemoteAddressMatch: &route.RateLimit_Action_RemoteAddressMatch{
			DescriptorKey: key, DescriptorValue: literal(value), AddressMatcher: m,
		},
	}}}}
}

func bucket(key, value string, limit uint32) *descriptor.LocalRateLimitDescriptor {
	return &descriptor.LocalRateLimitDescriptor{
		Entries:     []*descriptor.RateLimitDescriptor_Entry{{Key: key, Value: value}},
		TokenBucket: perSecond(limit),
	}
}

// perSecond is a bucket that fills evenly.
func perSecond(n uint32) *typev3.TokenBucket {
	return &typev3.TokenBucket{MaxTokens: n, TokensPerFill: uint32Value(n), FillInterval: durationpb.New(time.Second)}
}

func always() *core.RuntimeFractionalPercent {
	return &core.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
}

func ranges(addrs []netip.Addr) ([]*xdscore.CidrRange, error) {
	out := make([]*xdscore.CidrRange, len(addrs))
	for i, a := range addrs {
		if !a.IsValid() || a.Zone() != "" {
			return nil, fmt.Errorf("%q is no address", a)
		}
		a = a.Unmap()
		out[i] = &xdscore.CidrRange{AddressPrefix: a.String(), PrefixLen: uint32Value(uint32(a.BitLen()))}
	}
	return out, nil
}
