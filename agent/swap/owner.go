// SPDX-License-Identifier: Apache-2.0

package swap

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"fairlead.io/fairlead/translators/kubernetes"
)

// PreviousKey is the annotation that says whose a namespace was before the last swap;
// None if nobody had chosen.
const PreviousKey = "fairlead.io/previous-control-plane"

// None stands for a choice that nobody has made.
const None = "none"

// ErrNoNamespace says that a text has no Namespace object of the name.
var ErrNoNamespace = errors.New("no Namespace object of that name")

// SetOwner edits the manifest of a namespace, which may stand among others in a YAML
// text or in a List: plane owns it, or None takes the choice back. The other documents
// keep every byte. It returns whose it was.
func SetOwner(text []byte, namespace, plane string) (edited []byte, was string, err error) {
	parts := documents(text)
	at, doc, meta, err := find(parts, namespace)
	if err != nil {
		return nil, "", err
	}
	was = cmp.Or(annotation(meta, kubernetes.OwnerKey), None)
	annotate(meta, kubernetes.OwnerKey, plane)
	annotate(meta, PreviousKey, was)
	if parts[at], err = written(parts[at], doc); err != nil {
		return nil, "", fmt.Errorf("write namespace %s: %w", namespace, err)
	}
	return bytes.Join(parts, nil), was, nil
}

// ChangeOwner is SetOwner of a namespace that is still from's.
func ChangeOwner(text []byte, namespace, from, plane string) ([]byte, error) {
	edited, was, err := SetOwner(text, namespace, plane)
	if err == nil && was != from {
		return nil, fmt.Errorf("namespace %s is %s's meanwhile, not %s's: it is left alone", namespace, was, from)
	}
	return edited, err
}

// Previous is whose a namespace was before the last swap, "" if there was none.
func Previous(text []byte, namespace string) string {
	_, _, meta, err := find(documents(text), namespace)
	if err != nil {
		return ""
	}
	return annotation(meta, PreviousKey)
}

// find gives the document with a namespace, and the namespace's metadata in it.
func find(parts [][]byte, namespace string) (at int, doc, meta *yaml.Node, err error) {
	for i, part := range parts {
		var d yaml.Node
		if yaml.Unmarshal(part, &d) != nil || len(d.Content) != 1 {
			continue
		}
		for _, object := range objectsIn(d.Content[0]) {
			m := namespaceNamed(object, namespace)
			switch {
			case m == nil:
			case meta != nil:
				return 0, nil, nil, fmt.Errorf("namespace %s stands there twice: leave one of them", namespace)
			default:
				at, doc, meta = i, &d, m
			}
		}
	}
	if meta == nil {
		return 0, nil, nil, fmt.Errorf("namespace %s: %w", namespace, ErrNoNamespace)
	}
	return at, doc, meta, nil
}

// objectsIn is an object, or those of a List.
func objectsIn(n *yaml.Node) []*yaml.Node {
	kind, items := field(n, "kind"), field(n, "items")
	if kind == nil || !strings.HasSuffix(kind.Value, "List") || items == nil {
		return []*yaml.Node{n}
	}
	return items.Content
}

// written is a document in place of another: JSON in place of JSON.
func written(part []byte, doc *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	line, _, _ := bytes.Cut(part, []byte("\n"))
	if rest, marked := bytes.CutPrefix(line, []byte("---")); marked {
		b.WriteString("---")
		if rest = bytes.TrimRight(rest, " \t\r"); bytes.HasPrefix(bytes.TrimLeft(rest, " \t"), []byte("#")) {
			b.Write(rest)
		}
		b.WriteByte('\n')
	}
	if json.Valid(part) {
		if err := writeJSON(&b, doc.Content[0], ""); err != nil {
			return nil, err
		}
		b.WriteByte('\n')
		return b.Bytes(), nil
	}
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := enc.Encode(doc)
	return b.Bytes(), err
}

// documents cuts a YAML stream where a document begins. Joined they are the stream.
func documents(text []byte) [][]byte {
	var out [][]byte
	begin := 0
	for at := 0; at < len(text); {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if rest, marked := bytes.CutPrefix(text[at:end], []byte("---")); marked && at > begin && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n")) {
			out = append(out, text[begin:at])
			begin = at
		}
		at = end
	}
	return append(out, text[begin:])
}

// namespaceNamed is the metadata of an object, nil if it is not that Namespace.
func namespaceNamed(n *yaml.Node, name string) *yaml.Node {
	kind, meta := field(n, "kind"), field(n, "metadata")
	version := field(n, "apiVersion")
	if kind == nil || kind.Value != "Namespace" || version == nil || version.Value != "v1" || meta == nil {
		return nil
	}
	if has := field(meta, "name"); has == nil || has.Value != name {
		return nil
	}
	return meta
}

func field(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func annotation(meta *yaml.Node, key string) string {
	all := field(meta, "annotations")
	if all == nil {
		return ""
	}
	if v := field(all, key); v != nil {
		return v.Value
	}
	return ""
}

// annotate sets an annotation; None takes the owner away.
func annotate(meta *yaml.Node, key, value string) {
	all := field(meta, "annotations")
	if all == nil || all.Kind != yaml.MappingNode {
		if key == kubernetes.OwnerKey && value == None {
			return
		}
		all = &yaml.Node{Kind: yaml.MappingNode}
		meta.Content = append(meta.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "annotations"}, all)
	}
	for i := 0; i+1 < len(all.Content); i += 2 {
		if all.Content[i].Value != key {
			continue
		}
		if key == kubernetes.OwnerKey && value == None {
			all.Content = slices.Delete(all.Content, i, i+2)
		} else {
			all.Content[i+1].SetString(value)
		}
		return
	}
	if key == kubernetes.OwnerKey && value == None {
		return
	}
	v := &yaml.Node{}
	v.SetString(value)
	all.Content = append(all.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, v)
}
