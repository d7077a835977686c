// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
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

func refuse(w http.ResponseWriter, code int) { refuseAs(w, code, "") }

// exists is 409 where an object is there already.
const exists = -409

// refuseAs refuses with a reason that is not the code's usual one; "" is that.
func refuseAs(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	if code == exists {
		code, reason = http.StatusConflict, metav1.StatusReasonAlreadyExists
	}
	status := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Message: http.StatusText(code),
		Reason: map[int]metav1.StatusReason{401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 409: metav1.StatusReasonConflict,
			410: metav1.StatusReasonExpired, 429: metav1.StatusReasonTooManyRequests, 500: metav1.StatusReasonInternalError, 503: metav1.StatusReasonServiceUnavailable}[code]}
	status.Reason = cmp.Or(reason, status.Reason)
	w.Header().Set("Content-Type", "application/json")
	if code == 429 {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status)
}

// groups answers what is served, of the core group or of the others.
func (s *Server) groups(w http.ResponseWriter, core bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byGroup := map[string]map[string][]apidiscoveryv2.APIResourceDiscovery{}
	for _, r := range s.resources {
		if (r.Group == "") != core || r.Hidden {
			continue
		}
		for _, v := range r.Versions {
			if byGroup[r.Group] == nil {
				byGroup[r.Group] = map[string][]apidiscoveryv2.APIResourceDiscovery{}
			}
			scope := apidiscoveryv2.ScopeNamespace
			if r.Cluster {
				scope = apidiscoveryv2.ScopeCluster
			}
			kind := &metav1.GroupVersionKind{Group: r.Group, Version: v, Kind: r.Kind}
			d := apidiscoveryv2.APIResourceDiscovery{Resource: r.Plural, Scope: scope, Verbs: []string{"get", "list", "watch"}, ResponseKind: kind}
			if r.Status {
				d.Subresources = []apidiscoveryv2.APISubresourceDiscovery{{Subresource: "status", Verbs: []string{"get", "patch", "update"}, ResponseKind: kind}}
			}
			byGroup[r.Group][v] = append(byGroup[r.Group][v], d)
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
func (s *Server) oldGroups(w http.ResponseWriter, root string) {
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
		for _, v := range r.Versions {
			if r.Group != "" {
				if seen[r.Group] == nil {
					seen[r.Group] = map[string]bool{}
				}
				seen[r.Group][v] = true
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

func (s *Server) oldResources(w http.ResponseWriter, group, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.TrimPrefix(group+"/"+version, "/")}
	for _, r := range s.resources {
		if r.Group == group && slices.Contains(r.Versions, version) {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.Plural, Kind: r.Kind, Namespaced: !r.Cluster, Verbs: metav1.Verbs{"get", "list", "watch"}})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// objects answers lists and watches. A path within a namespace is that of it alone.
func (s *Server) objects(w http.ResponseWriter, r *http.Request, group, version string, rest []string) {
	namespace := ""
	if len(rest) >= 3 && rest[0] == "namespaces" && rest[2] != "status" {
		namespace, rest = rest[1], rest[2:]
	}
	s.mu.Lock()
	res := s.resources[group+"/"+rest[0]]
	s.mu.Unlock()
	if res == nil || !slices.Contains(res.Versions, version) {
		refuse(w, 404)
		return
	}
	if len(rest) > 1 || r.Method != http.MethodGet {
		s.single(w, r, res, version, namespace, rest)
		return
	}
	q := r.URL.Query()
	selector, err := labels.Parse(q.Get("labelSelector"))
	if err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	name := ""
	for part := range strings.SplitSeq(q.Get("fieldSelector"), ",") {
		if n, ok := strings.CutPrefix(part, "metadata.name="); ok {
			name = n
		}
	}
	wanted := func(o map[string]any) bool {
		meta := o["metadata"].(map[string]any)
		own := labels.Set{}
		if given, ok := meta["labels"].(map[string]any); ok {
			for k, v := range given {
				own[k], _ = v.(string)
			}
		}
		return (namespace == "" || meta["namespace"] == namespace) && (name == "" || meta["name"] == name) && selector.Matches(own)
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
		kind := res.Kind + "List"
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

func (s *Server) watch(w http.ResponseWriter, r *http.Request, res *Resource, wanted func(map[string]any) bool, show func(map[string]any) map[string]any) {
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
		send("BOOKMARK", show(map[string]any{"kind": res.Kind, "metadata": meta}))
	}
	first, due := q.Get("sendInitialEvents") == "true", false
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
			if res.muted {
				break
			}
			if e.version > from && wanted(e.object) {
				send(e.typ, show(e.object))
			}
			from = max(from, e.version)
		}
		if due && !res.muted {
			from = cmp.Or(s.version, from)
			bookmark(false)
		}
		due = false
		grown, served := res.grown, s.resources[res.Group+"/"+res.Plural] == res
		s.mu.Unlock()
		flusher.Flush()
		if !served {
			return
		}
		select {
		case <-grown:
		case <-bookmarks.C:
			due = true // behind the events that there are
		case <-ended.C:
			return
		case <-r.Context().Done():
			return
		case <-s.over:
			return
		}
	}
}
