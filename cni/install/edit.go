// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/version"

	"fairlead.io/fairlead/cni"
)

// chained is the first version of the specification that hands a plugin's result to the
// next one.
const chained = "0.3.0"

// span is where a plugin's object stands in a text.
type span struct {
	start, end int
	kind       string // its type
}

// list is what counts of a network configuration that is a list of plugins.
type list struct {
	name, version string
	plugins       []span
}

// Add puts the plugin last into the text of a network configuration list (.conflist), and
// touches nothing else of it: Remove gives back the same bytes.
func Add(text, plugin []byte) ([]byte, error) {
	bare, err := Remove(text)
	if err != nil {
		return nil, err
	}
	l, err := parseList(bare)
	if err != nil {
		return nil, err
	}
	if err := l.usable(); err != nil {
		return nil, err
	}
	last := l.plugins[len(l.plugins)-1]
	out := bytes.Clone(bare[:last.end])
	out = append(out, ',')
	out = append(out, spaceBefore(bare, last.start)...)
	out = append(out, plugin...)
	out = append(out, bare[last.end:]...)
	if back, err := Remove(out); err != nil || !bytes.Equal(back, bare) {
		return nil, errors.New("it could not be given back as it is")
	}
	return out, nil
}

// Remove takes the plugin out of the text of a network configuration list. A text that
// does not have it stays as it is.
func Remove(text []byte) ([]byte, error) {
	for {
		l, err := parseList(text)
		if err != nil {
			return nil, err
		}
		i := l.find()
		if i < 0 {
			return text, nil
		}
		from, to := l.plugins[i].start, l.plugins[i].end
		switch {
		case i > 0:
			from = l.plugins[i-1].end // with the comma before it
		case len(l.plugins) > 1:
			to = l.plugins[1].start
		}
		text = append(bytes.Clone(text[:from]), text[to:]...)
	}
}

// Chain makes a list of a network configuration of one plugin (.conf), with the plugin
// last. The configuration stands in it as it is.
func Chain(conf, plugin []byte) ([]byte, error) {
	var of struct{ name, version, kind string }
	err := eachField(conf, func(key string, d *json.Decoder) error {
		switch key {
		case "name":
			return d.Decode(&of.name)
		case "cniVersion":
			return d.Decode(&of.version)
		case "type":
			return d.Decode(&of.kind)
		}
		return skip(d)
	})
	if err != nil {
		return nil, err
	}
	if of.kind == "" {
		return nil, errors.New("it has no type: it is no configuration of a plugin")
	}
	l := list{of.name, of.version, []span{{}}}
	if err := l.usable(); err != nil {
		return nil, err
	}
	name, err := json.Marshal(of.name)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "{\n  \"cniVersion\": %q,\n  \"name\": %s,\n  \"plugins\": [\n%s,\n%s\n  ]\n}\n", of.version, name, bytes.TrimSpace(conf), plugin), nil
}

// usable says why no plugin can be chained.
func (l *list) usable() error {
	if l.name == "" {
		return errors.New("it has no name")
	}
	if len(l.plugins) == 0 {
		return errors.New("it has no plugins")
	}
	ok, err := version.GreaterThanOrEqualTo(l.version, chained)
	if l.version == "" || err != nil || !ok {
		return fmt.Errorf("its cniVersion %q has no chains: want %s or newer", l.version, chained)
	}
	return nil
}

// runDirIn is the run folder that the plugin in a list is for, "" if it is not there.
func runDirIn(text []byte) (string, error) {
	l, err := parseList(text)
	if err != nil {
		return "", err
	}
	var c cni.Config
	if i := l.find(); i >= 0 {
		err = json.Unmarshal(text[l.plugins[i].start:l.plugins[i].end], &c)
	}
	return c.RunDir, err
}

// find is the index of our plugin, -1 if it is not there.
func (l *list) find() int {
	for i, p := range l.plugins {
		if p.kind == cni.Type {
			return i
		}
	}
	return -1
}

func parseList(text []byte) (*list, error) {
	l := &list{}
	seen := false
	err := eachField(text, func(key string, d *json.Decoder) error {
		switch key {
		case "name":
			return d.Decode(&l.name)
		case "cniVersion":
			return d.Decode(&l.version)
		case "plugins":
			if seen {
				return errors.New("it has plugins twice")
			}
			seen = true
			return l.readPlugins(d)
		}
		return skip(d)
	})
	if err != nil {
		return nil, err
	}
	if !seen {
		return nil, errors.New("it has no plugins: it is no list of them")
	}
	return l, nil
}

func (l *list) readPlugins(d *json.Decoder) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("its plugins are no list"), err)
	}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		var p map[string]json.RawMessage
		if err := json.Unmarshal(raw, &p); err != nil {
			return fmt.Errorf("its plugin %d: %w", len(l.plugins), err)
		}
		end := int(d.InputOffset())
		s := span{start: end - len(raw), end: end}
		_ = json.Unmarshal(p["type"], &s.kind) // what is no text is not ours
		l.plugins = append(l.plugins, s)
	}
	_, err := d.Token()
	return err
}

// eachField reads the text of one object, and calls f where the value of each field
// begins; f reads it.
func eachField(text []byte, f func(key string, d *json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(errors.New("it is no object of JSON"), err)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return fmt.Errorf("it is no JSON: %w", err)
		}
		key, _ := t.(string)
		if err := f(key, d); err != nil {
			return fmt.Errorf("its %q: %w", key, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("it is no JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its object")
	}
	return nil
}

func skip(d *json.Decoder) error {
	var raw json.RawMessage
	return d.Decode(&raw)
}

// spaceBefore is the white space before a place.
func spaceBefore(text []byte, at int) []byte {
	from := at
	for from > 0 && bytes.IndexByte([]byte(" \t\r\n"), text[from-1]) >= 0 {
		from--
	}
	return text[from:at]
}
