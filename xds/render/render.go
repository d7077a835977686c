// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"fairlead.io/fairlead/xds"
)

// finish validates a message by the rules that Envoy applies when it loads it,
// and makes the resource of it.
func finish(kind, name string, m interface {
	proto.Message
	ValidateAll() error
}) (xds.Resource, error) {
	if err := m.ValidateAll(); err != nil {
		return xds.Resource{}, fmt.Errorf("render %s %s: %w", kind, name, err)
	}
	r, err := xds.New(m)
	if err != nil {
		return xds.Resource{}, fmt.Errorf("render %s %s: %w", kind, name, err)
	}
	return r, nil
}

// pack wraps an extension's configuration; the bytes are deterministic. What
// comes from users is validated before it is packed: validation of the message
// around it does not look inside.
func pack(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic("render: " + err.Error()) // a string that is not UTF-8: callers check what users wrote
	}
	return a
}

func ads() *core.ConfigSource {
	return &core.ConfigSource{
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
		ResourceApiVersion:    core.ApiVersion_V3,
	}
}

func address(ip string, port uint16) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       ip,
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func cidr(p netip.Prefix) *core.CidrRange {
	return &core.CidrRange{
		AddressPrefix: p.Addr().String(),
		PrefixLen:     uint32Value(uint32(p.Bits())),
	}
}

// longest is less than the time that Envoy refuses, and as good.
const longest = 100 * 365 * 24 * time.Hour

// atLeastMS is a time for Envoy, which counts in milliseconds and takes less than one
// for 0, which means for ever. 0 stays.
func atLeastMS(d time.Duration) *durationpb.Duration {
	if d > 0 {
		d = min(max(d, time.Millisecond), longest)
	}
	return durationpb.New(d)
}

// literal escapes a string where Envoy would expand %COMMANDS%.
func literal(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// checkHeaderName accepts what HTTP calls a token, in lower case.
func checkHeaderName(name string) error {
	if name == "" {
		return fmt.Errorf("empty header name")
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return fmt.Errorf("header name %q: %q is not allowed in it", name, c)
		}
	}
	if name == DestinationHeader {
		return fmt.Errorf("header name %q is the proxy's own", name)
	}
	return nil
}

// checkHeaderValue refuses what could end a header or hide in it.
func checkHeaderValue(name, value string) error {
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("header %q: value has a control character", name)
		}
	}
	return nil
}
