// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"fairlead.io/fairlead/model"
)

// edit is a HeaderEdit in Envoy's words.
type edit struct {
	add       []*core.HeaderValueOption
	remove    []string
	authority string // "" = kept
}

// side says whether headers are a request's or a response's.
type side int

const (
	requestSide side = iota
	responseSide
)

// headerEdit turns edits into Envoy's. Values are literal: nothing in them is
// expanded.
func headerEdit(e model.HeaderEdit, s side) (edit, error) {
	var out edit
	option := func(h model.Header, action core.HeaderValueOption_HeaderAppendAction) error {
		if err := checkEditable(h.Name); err != nil {
			return err
		}
		if err := checkHeaderValue(h.Name, h.Value); err != nil {
			return err
		}
		out.add = append(out.add, &core.HeaderValueOption{
			Header:         &core.HeaderValue{Key: h.Name, Value: literal(h.Value)},
			AppendAction:   action,
			KeepEmptyValue: true,
		})
		return nil
	}
	for _, h := range e.Set {
		if h.Name == ":authority" && s == requestSide {
			if err := checkHeaderValue(h.Name, h.Value); err != nil {
				return edit{}, err
			}
			out.authority = h.Value
			continue
		}
		if err := option(h, core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD); err != nil {
			return edit{}, err
		}
	}
	for _, h := range e.Add {
		if err := option(h, core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD); err != nil {
			return edit{}, err
		}
	}
	for _, name := range e.Remove {
		if err := checkEditable(name); err != nil {
			return edit{}, err
		}
		out.remove = append(out.remove, name)
	}
	return out, nil
}

// checkEditable refuses what Envoy refuses to change by header edits.
func checkEditable(name string) error {
	if strings.HasPrefix(name, ":") || name == "host" {
		return fmt.Errorf("header %q cannot be edited", name)
	}
	return checkHeaderName(name)
}
