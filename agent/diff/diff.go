// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// Tables are those of one side's configuration; see pipeline.Pipeline.
type Tables interface {
	Get(t incr.Table, key string) any
	Rows(t incr.Table) []incr.Row
}

// Report is what would change. It is empty if nothing would.
type Report struct {
	Routes      []RouteChange      `json:"routes,omitempty"`
	Permissions []PermissionChange `json:"permissions,omitempty"`
	Entities    []EntityChange     `json:"entities,omitempty"`
	// Asked counts the requests that were compared; 0: both sides are equal to the byte.
	Asked int `json:"asked"`
}

// Empty reports whether nothing would change.
func (r *Report) Empty() bool { return len(r.Routes)+len(r.Permissions)+len(r.Entities) == 0 }

// Widens reports whether somebody may do more: at a workload, or by requests for hosts
// that nobody knows.
func (r *Report) Widens() bool {
	return slices.ContainsFunc(r.Permissions, func(p PermissionChange) bool { return p.Effect == model.Widens }) ||
		slices.ContainsFunc(r.Routes, func(c RouteChange) bool { return slices.ContainsFunc(c.Changes, Change.passes) }) ||
		slices.ContainsFunc(r.Entities, func(c EntityChange) bool { return slices.ContainsFunc(c.Changes, Change.passes) })
}

// Change is one thing that differs.
type Change struct {
	What string `json:"what"` // "weights", "timeout"
	Old  string `json:"old"`
	New  string `json:"new"`
}

// unknownHosts is a Change's What where hosts that nobody knows are treated otherwise.
const unknownHosts = "unknown hosts"

func (c Change) passes() bool { return c.What == unknownHosts && c.New == string(model.UnknownPass) }

// RouteChange is a route of a frontend, as both sides have it for the same requests.
type RouteChange struct {
	Frontend string `json:"frontend"`          // key: "shop/web:80"
	For      string `json:"for,omitempty"`     // clients that are meant; "": all
	Example  string `json:"example,omitempty"` // a request that shows it; "": all
	// Changes of what is done with such requests; never empty.
	Changes    []Change       `json:"changes"`
	OldSources []model.Source `json:"oldSources,omitempty"`
	NewSources []model.Source `json:"newSources,omitempty"`
}

// PermissionChange is something that is allowed on one side alone.
type PermissionChange struct {
	Effect    model.Effect `json:"effect"` // Widens or Narrows
	Workloads []string     `json:"workloads"`
	Port      uint16       `json:"port"` // 0: any that is not told apart
	// From are identities, or addresses; "anybody else" is who is not known, "everybody"
	// alone all of them.
	From       []string       `json:"from"`
	Example    string         `json:"example,omitempty"` // a request; "": any
	Old        string         `json:"old"`
	New        string         `json:"new"`
	OldSources []model.Source `json:"oldSources,omitempty"`
	NewSources []model.Source `json:"newSources,omitempty"`
}

// Compare tells what would change if the new tables came in place of the old ones.
// namespaces limits it to their frontends and workloads; none: all.
func Compare(before, after Tables, namespaces ...string) *Report {
	in := func(ns string) bool { return len(namespaces) == 0 || slices.Contains(namespaces, ns) }
	r := &Report{}
	r.frontends(before, after, in)
	r.permissions(before, after, in)
	r.entities(before, after, in)
	return r
}

func sortedSources(in []model.Source) []model.Source {
	out := slices.Clone(in)
	slices.SortFunc(out, model.CompareSources)
	return slices.Compact(out)
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func orWord(s, word string) string { return cmp.Or(s, word) }
