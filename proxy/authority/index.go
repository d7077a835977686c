// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"fairlead.io/fairlead/xds"
)

// Index knows by which names scopes can be got at. It is made of the route tables and
// scopes of Envoy's configuration, one by one and in any order; what one of them costs
// does not grow with how many there are. It is safe for concurrent use.
type Index struct {
	mu     sync.RWMutex
	tables map[string]*table // that are there, or that a scope leads to
	scopes map[string]*table // by key, of those that can be targets
	names  map[name][]claim
	// latest is the last of the changes of a resource that wait; see Take.
	latest map[resource]uint64
	change uint64
}

// name is an indexed name at a port of frontends.
type name struct {
	host string
	port uint16
}

// claim says that a table has a name; n times, by itself and by scopes that lead to it.
type claim struct {
	table *table
	n     int
}

// table is a route table and the keys of scopes that lead to it, by family, sorted.
type table struct {
	name string
	// naming is nil while the table is not there: Envoy makes do with a stand-in that
	// takes any host.
	naming *naming
	keys   [2][]string
}

const (
	family4 = iota
	family6
)

func family(v6 bool) int {
	if v6 {
		return family6
	}
	return family4
}

// NewIndex makes an index of nothing.
func NewIndex() *Index {
	return &Index{
		tables: map[string]*table{},
		scopes: map[string]*table{},
		names:  map[name][]claim{},
		latest: map[resource]uint64{},
	}
}

// Set adds a resource, or replaces the one of its name. Types other than routes and
// scopes say nothing about names. An error leaves what was there.
func (x *Index) Set(r xds.Resource) error {
	op, err := parse(r)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	op(x)
	return nil
}

// Delete forgets a resource.
func (x *Index) Delete(typeURL, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.delete(resource{typeURL, name})
}

func (x *Index) delete(r resource) {
	switch r.typ {
	case xds.RouteType:
		x.setTable(r.name, nil)
	case xds.ScopeType:
		x.setScope(r.name, target{}, "")
	}
}

// parse does all of the work that needs no lock.
func parse(r xds.Resource) (func(*Index), error) {
	switch r.Type {
	case xds.RouteType:
		n, err := parseTable(r)
		return func(x *Index) { x.setTable(r.Name, n) }, err
	case xds.ScopeType:
		to, ok := parseTarget(r.Name)
		if !ok {
			break
		}
		table, err := tableOf(r)
		return func(x *Index) { x.setScope(r.Name, to, table) }, err
	}
	return func(*Index) {}, nil
}

// setTable sets what a table says; nil: it is gone.
func (x *Index) setTable(tableName string, n *naming) {
	t := x.tables[tableName]
	if t == nil {
		if n == nil {
			return
		}
		t = &table{name: tableName}
		x.tables[tableName] = t
	}
	before := t.naming
	if before != nil && n != nil && before.equal(n) {
		return // as most changes, which are of routes
	}
	t.naming = x.shared(n)
	if n != nil {
		for _, h := range t.naming.names {
			x.claim(t, name{h, n.port})
		}
	}
	if before != nil {
		for _, h := range before.names {
			x.release(t, name{h, before.port})
		}
	}
	x.drop(t)
}

// shared is what an earlier table says that says the same, as that of the other family
// does, so that it is in memory once.
func (x *Index) shared(n *naming) *naming {
	if n == nil || len(n.names) == 0 {
		return n
	}
	for _, c := range x.names[name{n.names[0], n.port}] {
		if o := c.table.naming; o != nil && o.equal(n) {
			return o
		}
	}
	return n
}

// setScope leads a key to a table; "": it leads nowhere any more.
func (x *Index) setScope(key string, to target, tableName string) {
	before := x.scopes[key]
	switch {
	case before != nil && before.name == tableName:
		return
	case before == nil && tableName == "":
		return
	case before != nil && tableName == "":
		to, _ = parseTarget(key) // it was taken for one
	}
	f := family(to.v6)
	if tableName != "" {
		t := x.tables[tableName]
		if t == nil {
			t = &table{name: tableName}
			x.tables[tableName] = t
		}
		x.scopes[key] = t
		i, _ := slices.BinarySearch(t.keys[f], key)
		t.keys[f] = slices.Insert(t.keys[f], i, key)
		if to.host != "" {
			x.claim(t, name{to.host, to.port})
		}
	} else {
		delete(x.scopes, key)
	}
	if before != nil {
		if i, ok := slices.BinarySearch(before.keys[f], key); ok {
			before.keys[f] = slices.Delete(before.keys[f], i, i+1)
		}
		if to.host != "" {
			x.release(before, name{to.host, to.port})
		}
		x.drop(before)
	}
}

// drop forgets a table that is not there and that nothing leads to.
func (x *Index) drop(t *table) {
	if t.naming == nil && len(t.keys[family4])+len(t.keys[family6]) == 0 {
		delete(x.tables, t.name)
	}
}

func (x *Index) claim(t *table, n name) {
	all := x.names[n]
	i, ok := findClaim(all, t)
	if ok {
		all[i].n++
		return
	}
	x.names[n] = slices.Insert(all, i, claim{t, 1})
}

func (x *Index) release(t *table, n name) {
	all := x.names[n]
	i, ok := findClaim(all, t)
	if !ok {
		return
	}
	if all[i].n--; all[i].n > 0 {
		return
	}
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(x.names, n)
		return
	}
	x.names[n] = all
}

func findClaim(sorted []claim, t *table) (int, bool) {
	return slices.BinarySearchFunc(sorted, t.name, func(c claim, name string) int { return cmp.Compare(c.table.name, name) })
}

// hostPrefix begins the keys of scopes that are got at by a host alone.
const hostPrefix = "host|"

// key is the key by which a table is answered; "": no scope of the family leads there.
// All of them lead to the same. One that is made for that comes before the addresses
// of pods, which come and go.
func (t *table) key(v6 bool) string {
	keys := t.keys[family(v6)]
	if len(keys) == 0 {
		return ""
	}
	if last := keys[len(keys)-1]; strings.HasPrefix(last, hostPrefix) {
		return last
	}
	return keys[0]
}

// parseDestination reads the key of a scope by destination, which is the address as
// Envoy writes it.
func parseDestination(key string) (netip.AddrPort, error) {
	dst, err := netip.ParseAddrPort(key)
	if err == nil && (dst.String() != key || dst.Port() == 0 || dst.Addr().Zone() != "") {
		err = fmt.Errorf("%q is not how an address is written", key)
	}
	return dst, err
}
