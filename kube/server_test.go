// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// server is an API server: discovery, lists, watches with bookmarks and initial events,
// and all that can go wrong with one. It is reached through memory alone, so that a test
// may run on a clock of its own.
type server struct {
	t    *testing.T
	http *http.Server
	in   chan net.Conn
	over chan struct{}

	mu        sync.Mutex
	version   int
	resources map[string]*resource // by "group/plural"
	down      bool
	conns     []net.Conn
	answer    func(r *http.Request) (code int, hang bool) // in place of an answer; 0: none
	requests  []string
	forget    int  // resource versions up to this one are gone
	legacy    bool // discovery is as it was before it was aggregated
}

// resource is a kind that is served.
type resource struct {
	group, kind, plural string
	versions            []string
	cluster             bool // not namespaced
	hidden              bool // served, and not told of
	objects             map[string]map[string]any
	events              []event
	grown               chan struct{} // closed when there are more events
}

type event struct {
	version int
	typ     string
	object  map[string]any
}

func newServer(t *testing.T) *server {
	s := &server{t: t, in: make(chan net.Conn), over: make(chan struct{}), resources: map[string]*resource{}, version: 100}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve)}
	go func() { _ = s.http.Serve(s) }()
	t.Cleanup(func() {
		s.stop()
		_ = s.http.Close()
	})
	s.add(&resource{group: "apiextensions.k8s.io", kind: "CustomResourceDefinition", plural: "customresourcedefinitions", versions: []string{"v1"}, cluster: true})
	for _, r := range []resource{
		{kind: "Namespace", plural: "namespaces", cluster: true}, {kind: "Node", plural: "nodes", cluster: true},
		{kind: "Pod", plural: "pods"}, {kind: "Service", plural: "services"}, {kind: "ConfigMap", plural: "configmaps"}, {kind: "Secret", plural: "secrets"},
		{group: "discovery.k8s.io", kind: "EndpointSlice", plural: "endpointslices"},
	} {
		r.versions = []string{"v1"}
		s.add(&r)
	}
	return s
}

// config reaches the server.
func (s *server) config() *rest.Config {
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial() }, MaxIdleConnsPerHost: 100}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &rest.Config{Host: "http://api.test", Transport: transport}
}

func (s *server) dial() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6443}, Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	select {
	case s.in <- theirs:
		s.conns = append(s.conns, theirs)
		return ours, nil
	case <-s.over:
		return nil, net.ErrClosed
	}
}

// Accept, Close and Addr make it a net.Listener.
func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.in:
		return c, nil
	case <-s.over:
		return nil, net.ErrClosed
	}
}

func (s *server) Close() error { return nil }

func (s *server) Addr() net.Addr { return &net.TCPAddr{} }

// away cuts all connections and takes no more.
func (s *server) away() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *server) back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

func (s *server) stop() {
	s.away()
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}

// interrupt answers requests in place of the server; nil ends that.
func (s *server) interrupt(answer func(r *http.Request) (code int, hang bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// forgets ends all streams with 410, and knows nothing of what was before.
func (s *server) forgets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.forget = s.version
	for _, r := range s.resources {
		r.events = nil
		r.wake()
	}
}

func (s *server) add(r *resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.objects == nil {
		r.objects = map[string]map[string]any{}
	}
	r.grown = make(chan struct{})
	s.resources[r.group+"/"+r.plural] = r
}

func (r *resource) wake() {
	close(r.grown)
	r.grown = make(chan struct{})
}

// define serves a kind of a CustomResourceDefinition.
func (s *server) define(group, kind, plural string, versions ...string) {
	s.add(&resource{group: group, kind: kind, plural: plural, versions: versions})
	s.apply(crd(plural + "." + group))
}

// alter changes what is served.
func (s *server) alter(name string, change func(*resource)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.resources[name])
}

// hide has discovery tell nothing of a kind.
func (s *server) hide(name string, hidden bool) {
	s.alter(name, func(r *resource) { r.hidden = hidden })
}

// undefine deletes a CustomResourceDefinition and all objects of its kind.
func (s *server) undefine(group, plural string) {
	r := s.resources[group+"/"+plural]
	for key := range maps.Clone(r.objects) {
		s.remove(group, plural, key)
	}
	s.remove("apiextensions.k8s.io", "customresourcedefinitions", plural+"."+group)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.resources, group+"/"+plural)
	r.wake()
}

// apply creates or replaces objects.
func (s *server) apply(text string) {
	s.t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			s.t.Fatal(err)
		}
		s.put(o)
	}
}

func (s *server) put(o map[string]any) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	group, _, found := strings.Cut(o["apiVersion"].(string), "/")
	if !found {
		group = ""
	}
	for _, r := range s.resources {
		if r.group != group || r.kind != o["kind"] {
			continue
		}
		meta := o["metadata"].(map[string]any)
		if !r.cluster && meta["namespace"] == nil {
			meta["namespace"] = "default"
		}
		key := keyOf(o)
		s.version++
		typ := "ADDED"
		if old := r.objects[key]; old != nil {
			typ = "MODIFIED"
			before := old["metadata"].(map[string]any)
			meta["uid"], meta["creationTimestamp"] = before["uid"], before["creationTimestamp"]
		} else {
			meta["uid"] = fmt.Sprintf("uid-%d", s.version)
			if meta["creationTimestamp"] == nil {
				meta["creationTimestamp"] = time.Date(2026, 1, 1, 0, 0, s.version, 0, time.UTC).Format(time.RFC3339)
			}
		}
		meta["resourceVersion"] = strconv.Itoa(s.version)
		meta["managedFields"] = []any{map[string]any{"manager": "kubectl", "time": time.Now().Format(time.RFC3339)}}
		r.objects[key] = o
		r.events = append(r.events, event{s.version, typ, o})
		r.wake()
		return
	}
	s.t.Errorf("the server has no %s in %q", o["kind"], group)
}

func keyOf(o map[string]any) string {
	meta := o["metadata"].(map[string]any)
	if ns, _ := meta["namespace"].(string); ns != "" {
		return ns + "/" + meta["name"].(string)
	}
	return meta["name"].(string)
}

// remove deletes an object by its key.
func (s *server) remove(group, plural, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resources[group+"/"+plural]
	o := r.objects[key]
	if o == nil {
		return
	}
	s.version++
	delete(r.objects, key)
	last := maps.Clone(o)
	meta := maps.Clone(o["metadata"].(map[string]any))
	meta["resourceVersion"] = strconv.Itoa(s.version)
	last["metadata"] = meta
	r.events = append(r.events, event{s.version, "DELETED", last})
	r.wake()
}

// asked counts requests whose method and path contain a text.
func (s *server) asked(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r, text) {
			n++
		}
	}
	return n
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.URL.String())
	answer, legacy := s.answer, s.legacy
	s.mu.Unlock()
	if answer != nil {
		code, hang := answer(r)
		if hang {
			select {
			case <-r.Context().Done():
			case <-s.over:
			}
			return
		}
		if code != 0 {
			refuse(w, code)
			return
		}
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/readyz":
		fmt.Fprint(w, "ok")
	case len(parts) == 1 && legacy:
		s.oldGroups(w, parts[0])
	case len(parts) == 1:
		s.groups(w, parts[0] == "api")
	case parts[0] == "api" && len(parts) == 2:
		s.oldResources(w, "", parts[1])
	case parts[0] == "apis" && len(parts) == 3:
		s.oldResources(w, parts[1], parts[2])
	case parts[0] == "api":
		s.objects(w, r, "", parts[1], parts[2:])
	default:
		s.objects(w, r, parts[1], parts[2], parts[3:])
	}
}

func refuse(w http.ResponseWriter, code int) {
	status := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Message: http.StatusText(code),
		Reason: map[int]metav1.StatusReason{401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound,
			410: metav1.StatusReasonExpired, 429: metav1.StatusReasonTooManyRequests, 500: metav1.StatusReasonInternalError, 503: metav1.StatusReasonServiceUnavailable}[code]}
	w.Header().Set("Content-Type", "application/json")
	if code == 429 {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status)
}

// groups answers what is served, of the core group or of the others.
func (s *server) groups(w http.ResponseWriter, core bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byGroup := map[string]map[string][]apidiscoveryv2.APIResourceDiscovery{}
	for _, r := range s.resources {
		if (r.group == "") != core || r.hidden {
			continue
		}
		for _, v := range r.versions {
			if byGroup[r.group] == nil {
				byGroup[r.group] = map[string][]apidiscoveryv2.APIResourceDiscovery{}
			}
			scope := apidiscoveryv2.ScopeNamespace
			if r.cluster {
				scope = apidiscoveryv2.ScopeCluster
			}
			byGroup[r.group][v] = append(byGroup[r.group][v], apidiscoveryv2.APIResourceDiscovery{Resource: r.plural, Scope: scope, Verbs: []string{"get", "list", "watch"},
				ResponseKind: &metav1.GroupVersionKind{Group: r.group, Version: v, Kind: r.kind}})
		}
	}
	list := apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}}
	for _, g := range slices.Sorted(maps.Keys(byGroup)) {
		d := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g}}
		for _, v := range slices.Sorted(maps.Keys(byGroup[g])) {
			d.Versions = append(d.Versions, apidiscoveryv2.APIVersionDiscovery{Version: v, Resources: byGroup[g][v], Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent})
		}
		list.Items = append(list.Items, d)
	}
	w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	_ = json.NewEncoder(w).Encode(list)
}

// oldGroups and oldResources are discovery before it was aggregated.
func (s *server) oldGroups(w http.ResponseWriter, root string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if root == "api" {
		_ = json.NewEncoder(w).Encode(metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return
	}
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	seen := map[string]map[string]bool{}
	for _, r := range s.resources {
		for _, v := range r.versions {
			if r.group != "" {
				if seen[r.group] == nil {
					seen[r.group] = map[string]bool{}
				}
				seen[r.group][v] = true
			}
		}
	}
	for g, versions := range seen {
		group := metav1.APIGroup{Name: g}
		for _, v := range slices.Sorted(maps.Keys(versions)) {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g + "/" + v, Version: v})
		}
		list.Groups = append(list.Groups, group)
	}
	_ = json.NewEncoder(w).Encode(list)
}

func (s *server) oldResources(w http.ResponseWriter, group, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.TrimPrefix(group+"/"+version, "/")}
	for _, r := range s.resources {
		if r.group == group && slices.Contains(r.versions, version) {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.plural, Kind: r.kind, Namespaced: !r.cluster, Verbs: metav1.Verbs{"get", "list", "watch"}})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// objects answers lists and watches. A path within a namespace is that of it alone.
func (s *server) objects(w http.ResponseWriter, r *http.Request, group, version string, rest []string) {
	namespace := ""
	if len(rest) == 3 && rest[0] == "namespaces" {
		namespace, rest = rest[1], rest[2:]
	}
	s.mu.Lock()
	res := s.resources[group+"/"+rest[0]]
	s.mu.Unlock()
	if res == nil || !slices.Contains(res.versions, version) {
		refuse(w, 404)
		return
	}
	q := r.URL.Query()
	name := ""
	for part := range strings.SplitSeq(q.Get("fieldSelector"), ",") {
		if n, ok := strings.CutPrefix(part, "metadata.name="); ok {
			name = n
		}
	}
	wanted := func(o map[string]any) bool {
		meta := o["metadata"].(map[string]any)
		return (namespace == "" || meta["namespace"] == namespace) && (name == "" || meta["name"] == name)
	}
	show := func(o map[string]any) map[string]any {
		shown := maps.Clone(o)
		shown["apiVersion"] = strings.TrimPrefix(group+"/"+version, "/")
		if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata") {
			shown = map[string]any{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": o["metadata"]}
		}
		return shown
	}
	w.Header().Set("Content-Type", "application/json")
	if q.Get("watch") != "true" {
		s.mu.Lock()
		defer s.mu.Unlock()
		items := []any{}
		for _, key := range slices.Sorted(maps.Keys(res.objects)) {
			if o := res.objects[key]; wanted(o) {
				items = append(items, show(o))
			}
		}
		kind := res.kind + "List"
		api := strings.TrimPrefix(group+"/"+version, "/")
		if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata") {
			api, kind = "meta.k8s.io/v1", "PartialObjectMetadataList"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": api, "kind": kind, "items": items,
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}})
		return
	}
	s.watch(w, r, res, wanted, show)
}

func (s *server) watch(w http.ResponseWriter, r *http.Request, res *resource, wanted func(map[string]any) bool, show func(map[string]any) map[string]any) {
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	send := func(typ string, o map[string]any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": typ, "object": o})
	}
	flusher := w.(http.Flusher)
	ended := time.NewTimer(time.Hour)
	if n, err := strconv.Atoi(q.Get("timeoutSeconds")); err == nil {
		ended.Reset(time.Duration(n) * time.Second)
	}
	defer ended.Stop()
	bookmarks := time.NewTicker(time.Minute)
	defer bookmarks.Stop()
	bookmark := func(initial bool) {
		meta := map[string]any{"resourceVersion": strconv.Itoa(from), "name": ""}
		if initial {
			meta["annotations"] = map[string]any{metav1.InitialEventsAnnotationKey: "true"}
		}
		send("BOOKMARK", show(map[string]any{"kind": res.kind, "metadata": meta}))
	}
	first := q.Get("sendInitialEvents") == "true"
	for {
		s.mu.Lock()
		if first {
			for _, key := range slices.Sorted(maps.Keys(res.objects)) {
				if o := res.objects[key]; wanted(o) {
					send("ADDED", show(o))
				}
			}
			from, first = s.version, false
			bookmark(true)
		} else if from < s.forget {
			s.mu.Unlock()
			send("ERROR", map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"})
			return
		}
		for _, e := range res.events {
			if e.version > from && wanted(e.object) {
				send(e.typ, show(e.object))
			}
			from = max(from, e.version)
		}
		grown, served := res.grown, s.resources[res.group+"/"+res.plural] == res
		s.mu.Unlock()
		flusher.Flush()
		if !served {
			return
		}
		select {
		case <-grown:
		case <-bookmarks.C:
			s.mu.Lock()
			from = cmp.Or(s.version, from)
			s.mu.Unlock()
			bookmark(false)
		case <-ended.C:
			return
		case <-r.Context().Done():
			return
		case <-s.over:
			return
		}
	}
}
