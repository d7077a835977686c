// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
)

// Authorization says who may do what at some workloads. Tables "authz/<plane>";
// the key is the plane's own.
//
// A workload that some Allow of a plane selects is governed by that plane: the
// plane then allows only what a rule of its Allows matches (an Allow without
// rules allows nothing). Every plane that governs a workload must allow, and a
// match of any Deny refuses.
type Authorization struct {
	Deny   bool       `json:"deny,omitempty"`
	Target Target     `json:"target"`
	Rules  []AuthRule `json:"rules,omitempty"`
	Src    []Source   `json:"-"`
}

// Target selects workloads. All set fields must hold.
type Target struct {
	Namespace string `json:"namespace,omitempty"` // "" = every namespace
	// Workload is the name of one; with Namespace.
	Workload       string            `json:"workload,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	// Except are not meant, though the rest selects them.
	Except []Target `json:"except,omitempty"`
}

// AuthRule matches if one of From (or none is given) and one of To (or none is
// given) and all of When match.
type AuthRule struct {
	From []Peer      `json:"from,omitempty"`
	To   []Operation `json:"to,omitempty"`
	When []Condition `json:"when,omitempty"`
	// Closes: a Deny that is about connections, before any request is read. Also where
	// requests could be answered, they are closed. It has no conditions on requests.
	Closes bool     `json:"closes,omitempty"`
	Src    []Source `json:"-"`
}

// Peer is a conjunction over the source; within a list one must match, within a
// Not list none may. Identities are compared as whole SPIFFE ids, and a source
// without a known identity has none: no positive match holds for it. Present names
// nobody, and asks for a member of a mesh: it holds for no other workload, whose identity
// is known by its address alone.
type Peer struct {
	Identities    []StringMatch  `json:"identities,omitempty"`
	NotIdentities []StringMatch  `json:"notIdentities,omitempty"`
	IPs           []netip.Prefix `json:"ips,omitempty"`
	NotIPs        []netip.Prefix `json:"notIPs,omitempty"`
}

// Operation is a conjunction over the request. Ports are the workload's. All but
// ports needs a request: on a port that is not HTTP such an operation never
// matches in an Allow, and its request part is taken as matching in a Deny.
type Operation struct {
	// Protocol restricts to one transport; "" is any.
	Protocol   Protocol      `json:"protocol,omitempty"`
	Hosts      []StringMatch `json:"hosts,omitempty"` // case-insensitive
	NotHosts   []StringMatch `json:"notHosts,omitempty"`
	Ports      []uint16      `json:"ports,omitempty"`
	NotPorts   []uint16      `json:"notPorts,omitempty"`
	Methods    []StringMatch `json:"methods,omitempty"`
	NotMethods []StringMatch `json:"notMethods,omitempty"`
	Paths      []StringMatch `json:"paths,omitempty"` // without the query, normalised
	NotPaths   []StringMatch `json:"notPaths,omitempty"`
	Headers    []NamedMatch  `json:"headers,omitempty"` // all must match
}

// ConditionKind says what a Condition looks at.
type ConditionKind string

const (
	OnHeader          ConditionKind = "header" // Name is the header
	OnIdentity        ConditionKind = "identity"
	OnSourceIP        ConditionKind = "source-ip"
	OnDestinationIP   ConditionKind = "destination-ip"
	OnDestinationPort ConditionKind = "destination-port"
	OnSNI             ConditionKind = "sni"
)

// Condition holds if one of Values (if any are given) and none of NotValues match.
// For the IP kinds use Prefixes and NotPrefixes, for ports Ports and NotPorts.
type Condition struct {
	Kind        ConditionKind  `json:"kind"`
	Name        string         `json:"name,omitempty"`
	Values      []StringMatch  `json:"values,omitempty"`
	NotValues   []StringMatch  `json:"notValues,omitempty"`
	Prefixes    []netip.Prefix `json:"prefixes,omitempty"`
	NotPrefixes []netip.Prefix `json:"notPrefixes,omitempty"`
	Ports       []uint16       `json:"ports,omitempty"`
	NotPorts    []uint16       `json:"notPorts,omitempty"`
}
