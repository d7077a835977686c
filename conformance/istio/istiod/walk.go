// SPDX-License-Identifier: Apache-2.0

package istiod

import (
	"strings"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xdstype "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// mutator rewrites messages from the inside out, also inside of Any.
type mutator struct {
	// edit returns false to have the nearest element around the message removed.
	edit func(proto.Message) bool
	// rename replaces strings that are equal to a key.
	rename map[string]string
}

func (mu *mutator) do(m proto.Message) (keep bool) {
	if a, ok := m.(*anypb.Any); ok {
		return mu.any(a)
	}
	keep = true
	r := m.ProtoReflect()
	r.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		keep = mu.field(r, fd, v) && keep
		return true
	})
	if keep && mu.edit != nil {
		keep = mu.edit(m)
	}
	return keep
}

func (mu *mutator) any(a *anypb.Any) bool {
	if !stock(innerType(a)) || !stock(a.GetTypeUrl()) {
		return false
	}
	in, err := a.UnmarshalNew()
	if err != nil || !mu.do(in) {
		return false
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(in)
	if err != nil {
		return false
	}
	a.Value = b
	return true
}

func (mu *mutator) field(r protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value) (keep bool) {
	switch {
	case fd.IsMap():
		if fd.MapValue().Message() == nil {
			return true
		}
		v.Map().Range(func(k protoreflect.MapKey, x protoreflect.Value) bool {
			if !mu.do(x.Message().Interface()) {
				v.Map().Clear(k)
			}
			return true
		})
	case fd.IsList():
		if fd.Message() == nil {
			return true
		}
		l, n := v.List(), 0
		for i := range l.Len() {
			if mu.do(l.Get(i).Message().Interface()) {
				l.Set(n, l.Get(i))
				n++
			}
		}
		l.Truncate(n)
	case fd.Message() != nil:
		return mu.do(v.Message().Interface())
	case fd.Kind() == protoreflect.StringKind:
		if to, ok := mu.rename[v.String()]; ok {
			r.Set(fd, protoreflect.ValueOfString(to))
		}
	}
	return true
}

// innerType is the type of what Istio wraps in a TypedStruct.
func innerType(a *anypb.Any) string {
	var x udpa.TypedStruct
	var y xdstype.TypedStruct
	if a.MessageIs(&x) && a.UnmarshalTo(&x) == nil {
		return x.GetTypeUrl()
	}
	if a.MessageIs(&y) && a.UnmarshalTo(&y) == nil {
		return y.GetTypeUrl()
	}
	return a.GetTypeUrl()
}

// stock reports whether an Envoy that is not Istio's own knows the type.
func stock(url string) bool {
	name := url[strings.LastIndex(url, "/")+1:]
	for _, p := range []string{"istio.", "io.istio.", "stats.", "envoy.tcp.metadataexchange.",
		"envoy.extensions.network_filters.peer_metadata", "envoy.config.filter.http.alpn", "envoy.config.filter.http.authn"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}
