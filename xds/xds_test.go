// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"testing"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"fairlead.io/fairlead/xds"
)

func TestPhases(t *testing.T) {
	got := []int{}
	for _, typ := range xds.Types() {
		got = append(got, xds.Phase(typ))
	}
	for i, want := range []int{0, 0, 1, 2, 3} {
		if got[i] != want {
			t.Errorf("phases %v", got)
		}
	}
	if got[len(got)-1] != xds.Phases-1 || xds.Phase("x") != -1 {
		t.Errorf("%d phases, unknown type %d", xds.Phases, xds.Phase("x"))
	}
}

func TestNew(t *testing.T) {
	r, err := xds.New(&cluster.Cluster{Name: "a"})
	if err != nil || r.Type != xds.ClusterType || r.Name != "a" || r.Version != xds.Version(r.Body) {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := xds.New(&core.Node{}); err == nil {
		t.Error("a node is no resource")
	}
	if s := xds.Short(xds.ClusterType); s != "Cluster" {
		t.Error(s)
	}
}
