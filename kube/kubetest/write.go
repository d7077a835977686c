// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
)

// Write is a request that was to change something, and how it was answered.
type Write struct {
	Method, Path string
	Code         int
}

// Writes are those that were answered so far, in their order; those that did not change
// anything are among them.
func (s *Server) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Get is a copy of an object as it is stored, nil if there is none.
func (s *Server) Get(group, plural, key string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.resources[group+"/"+plural].objects[key]; o != nil {
		return jsonOf(o)
	}
	return nil
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

// SetStatus writes an object's status as a controller does; the object must be there.
func (s *Server) SetStatus(group, plural, key string, status map[string]any) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resources[group+"/"+plural]
	old := r.objects[key]
	if old == nil {
		s.t.Fatalf("there is no %s %s", r.Kind, key)
	}
	next := jsonOf(old)
	next["status"] = status
	s.version++
	s.keep(r, "MODIFIED", next)
}

// Keys lists the objects of a resource.
func (s *Server) Keys(group, plural string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.resources[group+"/"+plural].objects))
}

// jsonOf is a value as its JSON gives it, with int64 for whole numbers.
func jsonOf(o map[string]any) map[string]any {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // it came as JSON or YAML
	}
	out := map[string]any{}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		panic(err)
	}
	return numbers(out).(map[string]any)
}

func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

// single answers what is about one object, and what creates one: rest is "plural",
// "plural/name", or "plural/name/status".
func (s *Server) single(w http.ResponseWriter, r *http.Request, res *Resource, version, namespace string, rest []string) {
	code, body := s.do(r, res, version, namespace, rest)
	if r.Method != http.MethodGet {
		s.mu.Lock()
		s.writes = append(s.writes, Write{r.Method, r.URL.Path, code})
		s.mu.Unlock()
	}
	if code >= 300 || code == exists {
		refuse(w, code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *Server) do(r *http.Request, res *Resource, version, namespace string, rest []string) (int, map[string]any) {
	sent := map[string]any{}
	if r.Method != http.MethodGet && r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return 400, nil
		}
		if len(b) > 0 && json.Unmarshal(b, &sent) != nil {
			return 400, nil
		}
		sent = jsonOf(sent)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	api := strings.TrimPrefix(res.Group+"/"+version, "/")
	if len(rest) == 1 { // POST
		meta := metaOf(sent)
		if namespace != "" {
			meta["namespace"] = namespace
		}
		if res.objects[keyOf(sent)] != nil {
			return exists, nil
		}
		s.version++
		meta["uid"], meta["generation"] = fmt.Sprintf("uid-%d", s.version), int64(1)
		meta["creationTimestamp"] = time.Date(2026, 1, 1, 0, 0, s.version, 0, time.UTC).Format(time.RFC3339)
		sent["apiVersion"], sent["kind"] = api, res.Kind
		s.keep(res, "ADDED", sent)
		return 201, sent
	}
	key := rest[1]
	if namespace != "" {
		key = namespace + "/" + rest[1]
	}
	old := res.objects[key]
	const apply = "application/apply-patch+yaml"
	if old == nil && r.Method == http.MethodPatch && r.Header.Get("Content-Type") == apply {
		s.version++
		s.applied[applier(r, fmt.Sprintf("uid-%d", s.version))] = jsonOf(sent)
		metaOf(sent)["uid"] = fmt.Sprintf("uid-%d", s.version)
		s.keep(res, "ADDED", sent)
		return 201, sent
	}
	if old == nil || len(rest) == 3 && (rest[2] != "status" || !res.Status) {
		return 404, nil
	}
	old = jsonOf(old)
	meta := metaOf(old)
	for _, precondition := range []string{"uid", "resourceVersion"} {
		want := metaOf(sent)[precondition]
		if p, ok := sent["preconditions"].(map[string]any); ok {
			want = p[precondition]
		}
		if want != nil && want != "" && want != meta[precondition] {
			return 409, nil
		}
	}
	next := runtime.DeepCopyJSON(old)
	switch r.Method {
	case http.MethodGet:
		old["apiVersion"] = api
		return 200, old
	case http.MethodDelete:
		s.drop(res, key)
		return 200, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"}
	case http.MethodPut:
		next = sent
	case http.MethodPatch:
		switch r.Header.Get("Content-Type") {
		case apply:
			who, now := applier(r, fmt.Sprint(meta["uid"])), jsonOf(sent)
			giveUp(s.applied[who], sent)
			s.applied[who] = now
		case "application/merge-patch+json":
		default:
			return 415, nil
		}
		patch(next, sent)
	default:
		return 405, nil
	}
	if len(rest) == 3 { // status alone changes
		status, has := next["status"]
		next = runtime.DeepCopyJSON(old)
		if delete(next, "status"); has {
			next["status"] = status
		}
	} else if res.Status {
		delete(next, "status")
		if status, has := old["status"]; has {
			next["status"] = status
		}
	}
	metaOf(next)["uid"], metaOf(next)["resourceVersion"] = meta["uid"], meta["resourceVersion"]
	next["apiVersion"], next["kind"] = api, res.Kind
	if fmt.Sprint(next) == fmt.Sprint(old) {
		return 200, next // nothing changes, and nobody hears of it
	}
	if fmt.Sprint(next["spec"]) != fmt.Sprint(old["spec"]) {
		generation, _ := meta["generation"].(int64)
		metaOf(next)["generation"] = generation + 1
	}
	s.version++
	s.keep(res, "MODIFIED", next)
	return 200, next
}

// applier is who applies to an object.
func applier(r *http.Request, uid string) string {
	return strings.Join([]string{uid, r.URL.Path, r.URL.Query().Get("fieldManager")}, " ")
}

// giveUp has a patch delete what its author applied before and does not any more. That
// others may have applied the same is not looked at.
func giveUp(before, now map[string]any) {
	for k, v := range before {
		was, isMap := v.(map[string]any)
		if _, there := now[k]; !there && isMap {
			now[k] = map[string]any{}
		} else if !there {
			now[k] = nil
		}
		if is, has := now[k].(map[string]any); isMap && has {
			giveUp(was, is)
		}
	}
}

func metaOf(o map[string]any) map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

// keep stores an object as the newest version. It is called with mu held.
func (s *Server) keep(res *Resource, typ string, o map[string]any) {
	metaOf(o)["resourceVersion"] = strconv.Itoa(s.version)
	res.objects[keyOf(o)] = o
	res.events = append(res.events, event{s.version, typ, o})
	res.wake()
}

// patch is RFC 7386.
func patch(into, with map[string]any) {
	for k, v := range with {
		m, isMap := v.(map[string]any)
		switch old, has := into[k].(map[string]any); {
		case v == nil:
			delete(into, k)
		case isMap && has:
			patch(old, m)
		case isMap:
			fresh := map[string]any{}
			patch(fresh, m)
			into[k] = fresh
		default:
			into[k] = v
		}
	}
}
