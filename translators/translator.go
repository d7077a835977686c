// SPDX-License-Identifier: Apache-2.0

// Package translators is where control planes plug in. A Translator turns the
// objects of one plane into rows of the neutral model, one key at a time.
//
// A translator is pure: it sees objects through a Reader that records what was
// read, and has no client, clock, log or goroutine. After an edit, just the keys
// that read the edited object are translated again.
package translators

import (
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators/objects"
)

// Tables of the model that every plane shares; the kubernetes translator fills them,
// and planes that declare services and workloads of their own add theirs.
const (
	Namespaces incr.Table = "namespace" // *model.Namespace
	Nodes      incr.Table = "node"      // *model.Node
	Services   incr.Table = "service"   // *model.Service
	Endpoints  incr.Table = "endpoints" // *model.Endpoints
	Workloads  incr.Table = "workload"  // *model.Workload
)

// Objects is the input table of a kind: *objects.Object, keyed by Object.Key.
func Objects(k objects.Kind) incr.Table { return incr.Table("object/" + k.String()) }

// Routes is the table of *model.Frontend of one plane, keyed by Frontend.Key.
func Routes(plane string) incr.Table { return incr.Table("route/" + plane) }

// Authz is the table of *model.Authorization of one plane.
func Authz(plane string) incr.Table { return incr.Table("authz/" + plane) }

// Inbounds is the table of *model.Inbound of one plane, keyed by Inbound.Key.
func Inbounds(plane string) incr.Table { return incr.Table("inbound/" + plane) }

// Defaults is the table of *model.Defaults, keyed by plane.
const Defaults incr.Table = "defaults"

// Diagnostics is the table of []model.Diagnostic, keyed by plane and translator key.
const Diagnostics incr.Table = "diagnostic"

// Key names one unit that a translator computes. Kind is the translator's own word
// ("routes", "policy"), Name what identifies the unit within it.
type Key struct{ Kind, Namespace, Name string }

// Reader gives a translation its inputs and records what was read, also what was
// not found. Results are shared and immutable.
type Reader interface {
	// Get returns the object of that kind, or nil.
	Get(kind objects.Kind, namespace, name string) *objects.Object
	// List returns the kind's objects in a namespace ("" = all), sorted by
	// creation, then name, then namespace.
	List(kind objects.Kind, namespace string) []*objects.Object
	// Select returns the kind's objects whose index (see Translator.Indexes)
	// contains the value; same order.
	Select(kind objects.Kind, index, value string) []*objects.Object
	// Service, Namespace, Workload return rows that the kubernetes translator has made
	// of its own objects, or nil.
	Service(namespace, name string) *model.Service
	Namespace(name string) *model.Namespace
	Workload(namespace, name string) *model.Workload
	// Uncaptured returns the workloads of a namespace that carry labels and are not
	// captured, sorted by name; pods in the network of their node are not among them.
	Uncaptured(namespace string, labels map[string]string) []*model.Workload
}

// Index maps an object to the values under which Select finds it.
type Index struct {
	Kind   objects.Kind
	Name   string
	Values func(*objects.Object) []string
}

// Result is what one key came to. Row keys must be the translator's alone.
type Result struct {
	Frontends      []*model.Frontend
	Authorizations map[string]*model.Authorization // key in the plane's authz table
	Inbounds       []*model.Inbound
	// Services and their Endpoints, and Workloads, that the plane itself declares. Their
	// names must not be such as Kubernetes gives: those of services have a dot.
	Services    []*model.Service
	Endpoints   []*model.Endpoints
	Workloads   []*model.Workload
	Diagnostics []model.Diagnostic
}

// Translator is one control plane.
type Translator interface {
	// Plane is its name: "istio". It is the suffix of its tables.
	Plane() string
	// Types are the kinds and versions that it reads, with their Go types.
	Types() []objects.Type
	// Indexes are the queries that Translate uses.
	Indexes() []Index
	// Validate judges one object alone. An error among its diagnostics (IsError)
	// makes the object invalid: the last valid version is used in its place, and
	// if there is none Translate sees it with Invalid set and must fail closed.
	Validate(o *objects.Object) []model.Diagnostic
	// Keys are the units that exist because this object does. Called for its own
	// kinds, for services and for pods.
	Keys(o *objects.Object) []Key
	// Defaults says what the plane does with services that none of its objects is
	// about. The Reader records what it rests on, as for Translate. Never nil.
	Defaults(r Reader) *model.Defaults
	// Translate computes one unit. It must not fail: what is wrong is a
	// diagnostic, and the unit is as good as it can be without widening.
	Translate(r Reader, k Key) Result
}
