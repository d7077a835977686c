// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// message converts a node for a protobuf message by protobuf's JSON rules. Fields
// may be written by their JSON or their proto names; paths use the JSON names.
func (w *walker) message(n *yaml.Node, md protoreflect.MessageDescriptor, path string) (any, bool) {
	if strings.HasPrefix(string(md.FullName()), "google.protobuf.") {
		return w.wellKnown(n, md, path)
	}
	if n.Kind != yaml.MappingNode {
		return w.mismatch(n, path, "a mapping")
	}
	name := func(key string) (string, protoreflect.FieldDescriptor) {
		fd := md.Fields().ByJSONName(key)
		if fd == nil {
			fd = md.Fields().ByTextName(key)
		}
		if fd == nil {
			return key, nil
		}
		return fd.JSONName(), fd
	}
	join := func(path, key string) string {
		key, _ = name(key)
		return fieldPath(path, key)
	}
	out := map[string]any{}
	chosen := map[protoreflect.Name]string{} // oneof -> field
	for _, e := range w.entries(n, path, join) {
		key, fd := name(e.key)
		p := fieldPath(path, key)
		if fd == nil {
			w.report(e.at, p, "unknown-field", "there is no field %q here", e.key)
			continue
		}
		if _, ok := out[key]; ok {
			w.report(e.at, p, "duplicate-key", "%q is given twice", key)
			continue
		}
		if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() && e.node.Tag != "!!null" {
			if other := chosen[od.Name()]; other != "" {
				w.report(e.at, p, "conflicting-fields", "%s and %s exclude each other", other, key)
				continue
			}
			chosen[od.Name()] = key
		}
		if v, ok := w.field(e.node, fd, p); ok {
			out[key] = v
		}
	}
	return out, true
}

func (w *walker) field(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) (any, bool) {
	n = w.enter(n, path)
	switch {
	case n == nil:
		return nil, false
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		// An unset field, except for google.protobuf.Value; none is used alone.
		return nil, true
	case fd.IsMap():
		if n.Kind != yaml.MappingNode {
			return w.mismatch(n, path, "a mapping")
		}
		out := map[string]any{}
		for _, e := range w.entries(n, path, mapPath) {
			if v, ok := w.single(e.node, fd.MapValue(), mapPath(path, e.key)); ok {
				out[e.key] = v
			}
		}
		return out, true
	case fd.IsList():
		if n.Kind != yaml.SequenceNode {
			return w.mismatch(n, path, "a list")
		}
		out := make([]any, 0, len(n.Content))
		for i, p := range w.items(n, path) {
			if v, ok := w.single(n.Content[i], fd, p); ok {
				out = append(out, v)
			}
		}
		return out, true
	}
	return w.single(n, fd, path)
}

// single converts one value of a field, or one element of it.
func (w *walker) single(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) (any, bool) {
	n = w.enter(n, path)
	switch {
	case n == nil:
		return nil, false
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		w.report(n, path, "wrong-type", "must not be null")
		return nil, false
	case fd.Message() != nil:
		return w.message(n, fd.Message(), path)
	}
	v := w.untyped(n, path)
	switch v.(type) {
	case string:
		if fd.Kind() == protoreflect.StringKind {
			return v, true
		}
	case bool:
		if fd.Kind() == protoreflect.BoolKind {
			return v, true
		}
	}
	if fd.Kind() == protoreflect.StringKind {
		return w.mismatch(n, path, "a string (quote it)")
	}
	// The rest (numbers, enums, bytes) is tried as the only field of its message.
	holder := fd.ContainingMessage()
	var probe any = v
	if fd.IsList() {
		probe = []any{v}
	}
	if holder.IsMapEntry() {
		return v, true // judged when the whole object is decoded
	}
	if err := tryJSON(map[string]any{fd.JSONName(): probe}, holder); err != nil {
		w.report(n, path, "wrong-type", "%s", protoReason(err))
		return nil, false
	}
	return v, true
}

// wellKnown converts durations, wrappers, structs and their like, which have JSON
// forms of their own.
func (w *walker) wellKnown(n *yaml.Node, md protoreflect.MessageDescriptor, path string) (any, bool) {
	v := w.untyped(n, path)
	if md.FullName() == "google.protobuf.Duration" {
		return w.duration(n, v, path)
	}
	if err := tryJSON(v, md); err != nil {
		w.report(n, path, "wrong-type", "%s", protoReason(err))
		return nil, false
	}
	return v, true
}

// duration takes the forms that the decoders of these APIs take, "250ms" and "1h30m"
// besides protobuf's own "0.250s".
func (w *walker) duration(n *yaml.Node, v any, path string) (any, bool) {
	s, ok := v.(string)
	if !ok {
		return w.mismatch(n, path, "a duration such as 250ms")
	}
	if _, err := time.ParseDuration(s); err != nil {
		w.report(n, path, "wrong-type", "%q is not a duration such as 250ms", s)
		return nil, false
	}
	return v, true
}

func tryJSON(v any, md protoreflect.MessageDescriptor) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(b, dynamicpb.NewMessage(md))
}

var protoPrefix = regexp.MustCompile(`^proto:\s*(\(line \d+:\d+\): )?`)

// protoReason leaves the cause of a protojson error: its position is that of a
// rewritten value.
func protoReason(err error) string {
	return protoPrefix.ReplaceAllString(strings.ReplaceAll(err.Error(), "\u00a0", " "), "")
}
