// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is one YAML document of an input.
type document struct {
	origin string     // the input
	file   string     // where its author wrote it
	line   int        // line of the document's first line in file
	flat   bool       // lines inside mean nothing: everything stands at line
	text   []byte     // lines before the document proper are blank or comments
	node   *yaml.Node // nil if it says nothing
}

// at turns a line of the document's text into one of the file.
func (d *document) at(n int) int {
	if d.flat || n < 1 {
		return d.line
	}
	return d.line + n - 1
}

// syntaxError is what is wrong with a document's YAML.
type syntaxError struct {
	line int // in the document's text
	msg  string
}

func (e *syntaxError) Error() string { return e.msg }

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// split cuts an input at its document markers, so that a broken document does
// not take the others with it.
func split(name string, data []byte) []*document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []*document
	start, first, line := 0, 1, 1
	cut := func(end int) {
		if text := data[start:end]; len(bytes.TrimSpace(text)) > 0 {
			docs = append(docs, &document{origin: name, file: name, line: first, text: text})
		}
	}
	for pos := 0; pos < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		switch text := bytes.TrimRight(data[pos:end], "\r\n"); {
		case bytes.Equal(text, []byte("---")) || bytes.HasPrefix(text, []byte("--- ")) || bytes.HasPrefix(text, []byte("---\t")):
			cut(pos)
			start, first = pos+3, line
		case bytes.Equal(text, []byte("...")):
			cut(pos)
			start, first = end, line+1
		}
		pos = end
	}
	cut(len(data))
	return docs
}

var sourceComment = regexp.MustCompile(`^# fairlead:source (.+):(\d+)( generated)?\s*$`)

// parse reads the document's YAML, and the comment that says where it was copied
// from.
func (d *document) parse() error {
	for i, line := range strings.Split(string(d.text), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "%") {
			break
		}
		if m := sourceComment.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[2])
			if err != nil {
				return &syntaxError{i + 1, "line number of fairlead:source: " + err.Error()}
			}
			d.file, d.flat, d.line = m[1], m[3] != "", n
			if !d.flat {
				d.line = n - i - 1 // the line after the comment stands at n
			}
			break
		}
	}
	text := d.text
	if t := bytes.TrimSpace(text); (t[0] == '{' || t[0] == '[') && json.Valid(t) {
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" ")) // YAML does not take JSON's tabs; a valid string has none
	}
	var n yaml.Node
	switch err := decodeNode(text, &n); {
	case errors.Is(err, io.EOF):
		return nil // comments alone
	case err != nil:
		at, msg := 1, err.Error()
		if m := yamlLine.FindStringSubmatch(msg); m != nil {
			msg = msg[len(m[0]):]
			if m[1] != "" {
				at, _ = strconv.Atoi(m[1])                           // digits by the expression
				if strings.HasPrefix(msg, "did not find expected") { // the library counts these from 0
					at = min(at+1, bytes.Count(bytes.TrimRight(text, " \t\r\n"), []byte("\n"))+1)
				}
			}
		}
		return &syntaxError{at, msg}
	}
	if len(n.Content) == 1 && n.Content[0].Tag != "!!null" {
		d.node = n.Content[0]
	}
	return nil
}

// decodeNode parses one document; the parser's panics on hostile input are errors.
func decodeNode(text []byte, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return yaml.NewDecoder(bytes.NewReader(text)).Decode(n)
}
