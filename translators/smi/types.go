// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	access1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/access/v1alpha1"
	access2 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/access/v1alpha2"
	specs1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha1"
	specs2 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha2"
	specs3 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha3"
	specs4 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/specs/v1alpha4"
	split1 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha1"
	split2 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha2"
	split3 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha3"
	split4 "github.com/servicemeshinterface/smi-sdk-go/pkg/apis/split/v1alpha4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.io/fairlead/translators/objects"
)

// Types implements translators.Translator. Types are the SDK's, except where its
// decoding loses something: HTTPRouteGroups with headers, whose two written shapes
// it does not both take (and in v1alpha1 none, though the CRD has them), and TrafficTarget v1alpha3, where a port from an older
// version would be lost, and with it a restriction.
//
// Objects are judged by how they are written: see README.md, Versions.
func (t *Translator) Types() []objects.Type {
	typ := func(k objects.Kind, version string, make func() any) objects.Type {
		return objects.Type{Kind: k, Version: version, New: make, Namespaced: true}
	}
	types := []objects.Type{
		typ(trafficTarget, "v1alpha1", func() any { return new(access1.TrafficTarget) }),
		typ(trafficTarget, "v1alpha2", func() any { return new(access2.TrafficTarget) }),
		typ(trafficTarget, "v1alpha3", func() any { return new(TrafficTarget) }),
		typ(httpRouteGroup, "v1alpha1", func() any { return new(FlatHTTPRouteGroup) }),
		typ(httpRouteGroup, "v1alpha2", func() any { return new(FlatHTTPRouteGroup) }),
		typ(httpRouteGroup, "v1alpha3", func() any { return new(HTTPRouteGroup) }),
		typ(httpRouteGroup, "v1alpha4", func() any { return new(HTTPRouteGroup) }),
		typ(tcpRoute, "v1alpha1", func() any { return new(specs1.TCPRoute) }),
		typ(tcpRoute, "v1alpha2", func() any { return new(specs2.TCPRoute) }),
		typ(tcpRoute, "v1alpha3", func() any { return new(specs3.TCPRoute) }),
		typ(tcpRoute, "v1alpha4", func() any { return new(specs4.TCPRoute) }),
		typ(udpRoute, "v1alpha4", func() any { return new(specs4.UDPRoute) }),
		typ(trafficSplit, "v1alpha1", func() any { return new(split1.TrafficSplit) }),
		typ(trafficSplit, "v1alpha2", func() any { return new(split2.TrafficSplit) }),
		typ(trafficSplit, "v1alpha3", func() any { return new(split3.TrafficSplit) }),
		typ(trafficSplit, "v1alpha4", func() any { return new(split4.TrafficSplit) }),
	}
	for i, t := range types {
		for _, other := range slices.Backward(types) { // newest first
			if other.Kind == t.Kind && other.Version != t.Version {
				other.Others = nil
				types[i].Others = append(types[i].Others, other)
			}
		}
	}
	return append(types,
		typ(identityBind, "v1alpha4", func() any { return new(map[string]any) }),
		typ(trafficMetrics, "v1alpha1", func() any { return new(map[string]any) }),
		typ(trafficMetrics, "v1alpha2", func() any { return new(map[string]any) }))
}

// TrafficTarget is v1alpha3, with the destination's port that v1alpha2 had.
type TrafficTarget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Destination struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace,omitempty"`
			Port      *Port  `json:"port,omitempty"`
		} `json:"destination"`
		Sources []struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace,omitempty"`
		} `json:"sources,omitempty"`
		Rules []struct {
			Kind    string   `json:"kind"`
			Name    string   `json:"name"`
			Matches []string `json:"matches,omitempty"`
		} `json:"rules,omitempty"`
	} `json:"spec"`
}

// Port is a port number, also written as a string.
type Port int

// UnmarshalJSON implements json.Unmarshaler.
func (p *Port) UnmarshalJSON(b []byte) error {
	n, err := strconv.Atoi(string(bytes.Trim(b, `"`)))
	if err != nil {
		return fmt.Errorf("%s is not a port number", b)
	}
	*p = Port(n)
	return nil
}

// HTTPMatch is a match of a route group.
type HTTPMatch struct {
	Name      string   `json:"name,omitempty"`
	Methods   []string `json:"methods,omitempty"`
	PathRegex string   `json:"pathRegex,omitempty"`
	Headers   Headers  `json:"headers,omitempty"`
}

// FlatHTTPRouteGroup is v1alpha1 and v1alpha2.
type FlatHTTPRouteGroup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Matches []HTTPMatch `json:"matches,omitempty"`
}

// HTTPRouteGroup is v1alpha3 and v1alpha4.
type HTTPRouteGroup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Matches []HTTPMatch `json:"matches,omitempty"`
	} `json:"spec"`
}

// Headers are expressions for headers, sorted by name. The specification writes an
// object; the SDK and its CRD write a list of objects with one key each.
type Headers []Header

// Header is one of them.
type Header struct{ Name, Value string }

// UnmarshalJSON implements json.Unmarshaler for both shapes.
func (h *Headers) UnmarshalJSON(b []byte) error {
	var list []map[string]string
	if err := json.Unmarshal(b, &list); err != nil {
		var one map[string]string
		if err := json.Unmarshal(b, &one); err != nil {
			return fmt.Errorf("headers must be an object of strings, or a list of such objects")
		}
		list = []map[string]string{one}
	} else if slices.ContainsFunc(list, func(m map[string]string) bool { return len(m) != 1 }) {
		return fmt.Errorf("an object in a list of headers needs exactly one key")
	}
	*h = nil
	for _, m := range list {
		for k, v := range m {
			*h = append(*h, Header{k, v})
		}
	}
	slices.SortFunc(*h, func(a, b Header) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
	return nil
}
