// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// A request whose routes have gone, with their cluster, while its first try was under
// way, is tried again where it was to go; the cluster goes some time later.
func TestRetryAfterRoutesChanged(t *testing.T) {
	r := newRigWith(t, Options{EvictAfter: 2 * time.Second}) // which limits how long clusters linger, too
	asked, changed := make(chan struct{}), make(chan struct{})
	var tries atomic.Int64
	server(t, serverA, func(w http.ResponseWriter, _ *http.Request) bool {
		if tries.Add(1) > 1 {
			return false
		}
		close(asked)
		select {
		case <-changed:
		case <-t.Context().Done():
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	server(t, serverB, nil)
	before := clusterOf(plan.Cluster{Name: "c-1"}, serverA)
	route := to("c-1")
	route.Retry = &model.Retry{Attempts: 3, On: []string{"5xx"}}
	r.push(rows(before, clusterOf(plan.Cluster{Name: "c-2"}, serverB), service(1, route), listeners())...)

	answer := make(chan reply, 1)
	go func() {
		got, err := rawRequest(t.Context(), alpha, vip(1), "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
		if err != nil {
			t.Error(err)
		}
		answer <- got
	}()
	<-asked
	r.push(service(1, to("c-2"))...)
	r.remove(resources(t, before...)...)
	close(changed)
	if got := <-answer; got.Status != 200 || got.Server != serverA || tries.Load() != 2 {
		t.Errorf("%+v after %d tries", got, tries.Load())
	}
	if _, clusters := r.has(0); !slices.Equal(clusters, []string{"c-1", "c-2"}) {
		t.Errorf("clusters %q", clusters)
	}
	r.waitFor("the cluster to go", func() bool {
		_, clusters := r.has(0)
		return !slices.Contains(clusters, "c-1")
	})
}
