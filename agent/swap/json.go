// SPDX-License-Identifier: Apache-2.0

package swap

import (
	"bytes"
	"encoding/json"

	"go.yaml.in/yaml/v3"
)

// writeJSON writes what was read from JSON, in its order, and indented.
func writeJSON(b *bytes.Buffer, n *yaml.Node, indent string) error {
	list := func(open, end byte, step int, one func(i int) error) error {
		b.WriteByte(open)
		for i := 0; i < len(n.Content); i += step {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString("\n" + indent + "  ")
			if err := one(i); err != nil {
				return err
			}
		}
		if len(n.Content) > 0 {
			b.WriteString("\n" + indent)
		}
		b.WriteByte(end)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return list('{', '}', 2, func(i int) error {
			if err := writeString(b, n.Content[i].Value); err != nil {
				return err
			}
			b.WriteString(": ")
			return writeJSON(b, n.Content[i+1], indent+"  ")
		})
	case yaml.SequenceNode:
		return list('[', ']', 1, func(i int) error { return writeJSON(b, n.Content[i], indent+"  ") })
	}
	if n.ShortTag() == "!!str" {
		return writeString(b, n.Value)
	}
	b.WriteString(n.Value) // a number, true, false or null
	return nil
}

func writeString(b *bytes.Buffer, s string) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(s)
	b.Truncate(len(bytes.TrimRight(b.Bytes(), "\n")))
	return err
}
