// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"fairlead.io/fairlead/model"
)

// Raw is one object as its author wrote it, of whatever kind.
type Raw struct {
	Kind      Kind
	Version   string
	Namespace string // as written
	Name      string
	File      string // where it was written, and the line of its first key
	Line      int
	// Text is a YAML document of its own. It starts with a comment that says where
	// it came from, so that Decode gives its fields the lines that its author sees.
	Text []byte
}

// Cut takes an input apart into its objects without decoding them; lists become
// their items. A document that is not YAML, or not an object, is a diagnostic, and in
// rest: an input of nothing else, of which Decode says the same.
func Cut(in Input) (out []Raw, rest Input, diags []model.Diagnostic) {
	d := &decoder{registry: NewRegistry(), batch: &Batch{Broken: map[string]bool{}}}
	rest.Name, rest.Err = in.Name, in.Err
	if in.Err != nil {
		d.broken(model.Source{File: in.Name}, in.Name, codeUnreadable, in.Err.Error(), unreadableAdvice)
		return nil, rest, d.batch.Diagnostics
	}
	for _, doc := range split(in.Name, in.Data) {
		said := len(d.batch.Diagnostics)
		if d.parsed(doc) && doc.node != nil {
			out = append(out, d.cut(doc, doc.node, doc.text, doc.line, &rest.Data, 0)...)
		} else if len(d.batch.Diagnostics) > said {
			rest.Data = fmt.Appendf(rest.Data, "---\n%s%s\n", doc.source(doc.line, doc.flat), doc.text)
		}
	}
	return out, rest, d.batch.Diagnostics
}

// source is the comment that says where a text, from its next line on, was written.
func (d *document) source(line int, generated bool) string {
	suffix := ""
	if generated {
		suffix = " generated"
	}
	return fmt.Sprintf("# fairlead:source %s:%d%s\n", d.file, line, suffix)
}

// cut gives the objects of a node whose text starts at a line of the file, and adds what
// is none to rest.
func (d *decoder) cut(doc *document, n *yaml.Node, text []byte, line int, rest *[]byte, depth int) []Raw {
	src := model.Source{File: doc.file, Line: doc.at(n.Line)}
	h := readHead(n)
	generated := doc.flat || line == 0
	if generated {
		line = src.Line
	}
	if t := bytes.TrimSpace(text); len(t) > 0 && t[0] == '{' {
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" ")) // legal in JSON, not in YAML
	}
	comment := doc.source(line, generated)
	none := func(code, msg string) []Raw {
		d.broken(src, doc.origin, code, msg, "")
		*rest = fmt.Appendf(*rest, "---\n%s%s\n", comment, text)
		return nil
	}
	if n.Kind != yaml.MappingNode || h.APIVersion == "" || h.Kind == "" {
		return none(codeNoObject, "an object needs apiVersion and kind")
	}
	if strings.HasSuffix(h.Kind, "List") && h.items != nil && depth < maxDepth {
		var out []Raw
		for _, item := range h.items.Content {
			text, line := d.item(doc, item)
			out = append(out, d.cut(doc, item, text, line, rest, depth+1)...)
		}
		return out
	}
	if h.Name == "" {
		src.Kind, src.Namespace = h.Kind, h.Namespace
		return none(codeNoName, "metadata.name is missing")
	}
	group, version, found := strings.Cut(h.APIVersion, "/")
	if !found {
		group, version = "", h.APIVersion
	}
	return []Raw{{Kind: Kind{group, h.Kind}, Version: version, Namespace: h.Namespace, Name: h.Name,
		File: doc.file, Line: src.Line, Text: append([]byte(comment), text...)}}
}

// item finds the text of a list's item and its first line in the file, which is 0
// if the text had to be written anew and its lines mean nothing.
func (d *decoder) item(doc *document, n *yaml.Node) ([]byte, int) {
	indent := n.Column - 1
	lines := bytes.SplitAfter(doc.text, []byte("\n"))[n.Line-1:]
	var text []byte
	for i, l := range lines {
		blank := len(bytes.TrimSpace(l)) == 0
		if i > 0 && !blank && len(l)-len(bytes.TrimLeft(l, " ")) < indent {
			break
		}
		text = append(text, l[min(indent, len(bytes.TrimRight(l, "\r\n"))):]...)
	}
	var again yaml.Node
	if decodeNode(text, &again) == nil && len(again.Content) == 1 && reflect.DeepEqual(plain(&again), plain(n)) {
		return text, doc.at(n.Line)
	}
	text, err := sigsyaml.Marshal(plain(n))
	if err != nil {
		return nil, 0 // what does not marshal has no name either, and is reported for that
	}
	return text, 0
}

func plain(n *yaml.Node) any {
	var v any
	if n.Decode(&v) != nil {
		return nil
	}
	return v
}
