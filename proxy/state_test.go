// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if _, err := loadState(path); !errors.Is(err, errNoState) {
		t.Errorf("no file: %v", err)
	}
	want := state{
		resources: []xds.Resource{{Type: xds.ClusterType, Name: "a", Version: "1", Body: []byte("x")}, {Type: xds.RouteType, Name: "b", Version: "2"}},
		inUse:     []string{"b"},
	}
	for range 2 { // over an old one, too
		if err := saveState(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := loadState(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		damaged := bytes.Clone(whole)
		damaged[n] ^= 1
		for _, b := range [][]byte{damaged, whole[:n]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := loadState(path); err == nil || !reflect.DeepEqual(got, state{}) {
				t.Fatalf("byte %d: loaded %+v", n, got)
			}
		}
	}
	if left, _ := filepath.Glob(path + ".*"); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

// TestOlderStateFile: what the release before wrote, byte for byte.
func TestOlderStateFile(t *testing.T) {
	body, err := proto.Marshal(&discovery.DeltaDiscoveryResponse{Resources: []*discovery.Resource{
		{Name: "a", Version: "1", Resource: &anypb.Any{TypeUrl: xds.ClusterType, Value: []byte("x")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	sum := xxh3.Hash128(body).Bytes()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, bytes.Join([][]byte{[]byte("fairlead proxy state 1\n"), sum[:], body}, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	want := state{resources: []xds.Resource{{Type: xds.ClusterType, Name: "a", Version: "1", Body: []byte("x")}}}
	if got, err := loadState(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestBootstrapIsTheSameEachTime(t *testing.T) {
	one, err := Bootstrap("n1", 1, PathsIn("/run/fairlead"))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, err := Bootstrap("n1", 1, PathsIn("/run/fairlead")); err != nil || !bytes.Equal(one, again) {
			t.Fatal("differs", err)
		}
	}
	if !json.Valid(one) {
		t.Errorf("%s", one)
	}
	for _, want := range []string{"/run/fairlead/xds-1.sock", "/run/fairlead/authority-1.sock", "/run/fairlead/envoy/admin-1.sock", `"bank": 1`} {
		if !strings.Contains(string(one), want) {
			t.Errorf("no %s in\n%s", want, one)
		}
	}
}

// TestBootstrapHasStaticClusters: what resources take for granted is there, and is
// not sent.
func TestBootstrapHasStaticClusters(t *testing.T) {
	got, want := staticClusters(PathsIn("/run/fairlead")), render.StaticClusters()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("bootstrap has %q, resources refer to %q", got, want)
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"must be given": {},
		"find envoy":    {Node: "n", RunDir: closed, EnvoyPath: "/no/such"},
		"path too long": {Node: "n", RunDir: long, EnvoyPath: "/bin/sh"},
		"cannot pass":   {Node: "n", RunDir: filepath.Join(closed, "run"), EnvoyPath: "/bin/sh", UID: os.Geteuid() + 1},
	} {
		if want == "cannot pass" && os.Geteuid() != 0 {
			continue // only root may give folders away
		}
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v has no %q", err, want)
		}
	}
}

// TestStateFileAfterKill: what a killed process had begun to write is
// written over.
func TestStateFileAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := saveState(path, state{}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + ".*"); left != nil {
		t.Errorf("left behind: %q", left)
	}
}
