// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"fairlead.io/fairlead/translators/objects"
)

// served is a kind as an API server has it, in the version to ask for.
type served struct {
	typ        objects.Type
	resource   string // plural
	namespaced bool
	status     bool // there is a subresource for it
}

func (s served) gvk() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: s.typ.Kind.Group, Version: s.typ.Version, Kind: s.typ.Kind.Kind}
}

func (s served) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: s.typ.Kind.Group, Version: s.typ.Version, Resource: s.resource}
}

// look is what an API server says that it serves, of what somebody reads.
type look struct {
	kinds map[objects.Kind]served
	// foreign are kinds that are served in versions which nobody reads, and no other.
	foreign map[objects.Kind][]string
	// names are all resources of the groups that somebody reads, "plural.group".
	names map[string]bool
	// unknown are groups of which the server could not tell.
	unknown map[string]error
}

// discover asks what is served. A server that is only just starting may not know all of
// its kinds yet: it is asked first whether it is ready.
func discover(ctx context.Context, client *discovery.DiscoveryClient, r *objects.Registry) (*look, error) {
	err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("ask whether it is ready: %w", err)
	}
	_, lists, err := client.ServerGroupsAndResourcesWithContext(ctx)
	var part *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &part) {
		return nil, fmt.Errorf("ask what it serves: %w", err)
	}
	l := &look{kinds: map[objects.Kind]served{}, foreign: map[objects.Kind][]string{}, names: map[string]bool{}, unknown: map[string]error{}}
	if part != nil {
		for gv, err := range part.Groups {
			l.unknown[gv.Group] = err
		}
	}
	versions := map[objects.Kind][]string{}
	resources := map[schema.GroupVersionKind]metav1.APIResource{}
	statuses := map[schema.GroupVersionResource]bool{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue // no kind of ours is there
		}
		for _, res := range list.APIResources {
			if plural, ok := strings.CutSuffix(res.Name, "/status"); ok {
				statuses[gv.WithResource(plural)] = true
			}
			if !slices.Contains(res.Verbs, "list") || !slices.Contains(res.Verbs, "watch") {
				continue // subresources among others
			}
			k := objects.Kind{Group: gv.Group, Kind: res.Kind}
			l.names[res.Name+"."+gv.Group] = true
			versions[k] = append(versions[k], gv.Version)
			resources[gv.WithKind(res.Kind)] = res
		}
	}
	for _, k := range r.Kinds() {
		if r.Unread(k) || len(versions[k]) == 0 {
			continue
		}
		t, ok := r.Served(k, versions[k])
		if !ok {
			l.foreign[k] = versions[k]
			continue
		}
		res := resources[schema.GroupVersionKind{Group: k.Group, Version: t.Version, Kind: k.Kind}]
		sv := served{typ: t, resource: res.Name, namespaced: res.Namespaced}
		sv.status = statuses[sv.gvr()]
		l.kinds[k] = sv
	}
	return l, nil
}

// isGone asks for a kind's objects themselves: what a server says that it serves may lag
// behind, or run ahead, when it starts. Only if it knows no such resource it is gone.
func isGone(ctx context.Context, client rest.Interface, s served) bool {
	path := "/apis/" + s.typ.Kind.Group + "/" + s.typ.Version + "/" + s.resource
	if s.typ.Kind.Group == "" {
		path = "/api/" + s.typ.Version + "/" + s.resource
	}
	err := client.Get().AbsPath(path).Param("limit", "1").Do(ctx).Error()
	return apierrors.IsNotFound(err)
}

// throttledKey is for the context of a request: who is told that it was put off.
type throttledKey struct{}

type throttling struct{ http.RoundTripper }

// noteThrottling tells of answers that the client library takes for itself: it waits as
// long as a 429 says, and tries again.
func noteThrottling(rt http.RoundTripper) http.RoundTripper { return throttling{rt} }

// RoundTrip implements http.RoundTripper.
func (t throttling) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusTooManyRequests {
		if tell, ok := r.Context().Value(throttledKey{}).(func()); ok {
			tell()
		}
	}
	return resp, err
}

// WrappedRoundTripper lets libraries find the transport within.
func (t throttling) WrappedRoundTripper() http.RoundTripper { return t.RoundTripper }
