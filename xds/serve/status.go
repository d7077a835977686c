// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"
	"strings"

	"fairlead.io/fairlead/xds"
)

// Status is a picture of a server.
type Status struct {
	Clients   []string       `json:"clients"`            // node ids, sorted
	Resources map[string]int `json:"resources"`          // by short type name
	Rejected  []Rejection    `json:"rejected,omitempty"` // as things stand; sorted
	Counters  Counters       `json:"counters"`
}

// Status returns a picture of now.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Clients: []string{}, Resources: map[string]int{}, Counters: s.counters}
	for st := range s.streams {
		out.Clients = append(out.Clients, st.node)
	}
	slices.Sort(out.Clients)
	for t, byName := range s.store {
		out.Resources[xds.Short(t)] = len(byName)
	}
	for _, e := range s.judged {
		if e.isRejected() {
			out.Rejected = append(out.Rejected, s.rejection(e))
		}
	}
	slices.SortFunc(out.Rejected, compareRejections)
	return out
}

// Counters returns the counters of now.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counters
}

// Resources returns what a client that comes now is given, sorted by type in
// their order, and name. The bodies are shared: they must not be changed.
func (s *Server) Resources() []xds.Resource {
	out := s.all()
	// Not under the lock: at thousands of services it would hold up what is served.
	slices.SortFunc(out, func(a, b xds.Resource) int {
		if a.Type != b.Type {
			return compareTypes(a.Type, b.Type)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

func (s *Server) all() []xds.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []xds.Resource
	for _, byName := range s.store {
		for _, e := range byName {
			if r, _ := s.given(e); r != nil {
				out = append(out, *r)
			}
		}
	}
	return out
}
