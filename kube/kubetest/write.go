// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// single answers requests of one object, and those that make one: a version that is not
// the last is refused, as is what is there already.
func (s *Server) single(w http.ResponseWriter, r *http.Request, res *Resource, version, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in map[string]any
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			refuse(w, http.StatusBadRequest)
			return
		}
		meta := in["metadata"].(map[string]any)
		if namespace != "" {
			meta["namespace"] = namespace
		}
		name, _ = meta["name"].(string)
	}
	key := strings.TrimPrefix(namespace+"/"+name, "/")
	old := res.objects[key]
	group := strings.TrimPrefix(res.Group+"/"+version, "/")
	answer := func(code int, o map[string]any) {
		shown := maps.Clone(o)
		shown["apiVersion"], shown["kind"] = group, res.Kind
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(shown)
	}
	switch {
	case r.Method == http.MethodPost && old != nil:
		refuse(w, http.StatusConflict)
	case r.Method == http.MethodPost:
		in["apiVersion"], in["kind"] = group, res.Kind
		s.store(res, in)
		answer(http.StatusCreated, in)
	case old == nil:
		refuse(w, http.StatusNotFound)
	case r.Method == http.MethodPut:
		if v := in["metadata"].(map[string]any)["resourceVersion"]; v != nil && v != old["metadata"].(map[string]any)["resourceVersion"] {
			refuse(w, http.StatusConflict)
			return
		}
		in["apiVersion"], in["kind"] = group, res.Kind
		s.store(res, in)
		answer(http.StatusOK, in)
	case r.Method == http.MethodDelete:
		s.drop(res, key)
		answer(http.StatusOK, old)
	default:
		answer(http.StatusOK, old)
	}
}

// Get is an object by its key, nil if there is none.
func (s *Server) Get(group, plural, key string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resources[group+"/"+plural].objects[key]
}

// drop deletes an object that is there. It is called with mu held.
func (s *Server) drop(r *Resource, key string) {
	o := r.objects[key]
	s.version++
	delete(r.objects, key)
	last := maps.Clone(o)
	meta := maps.Clone(o["metadata"].(map[string]any))
	meta["resourceVersion"] = strconv.Itoa(s.version)
	last["metadata"] = meta
	r.events = append(r.events, event{s.version, "DELETED", last})
	r.wake()
}
