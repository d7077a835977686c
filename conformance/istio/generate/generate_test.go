// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func anything(string, string) error { return nil }

// TestSame: a seed and a number give the same scenario each time, and another seed others.
func TestSame(t *testing.T) {
	differ := 0
	for i := range 50 {
		a, err := Scenario(1, i, anything)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Scenario(1, i, anything)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Text, b.Text) {
			t.Errorf("scenario %d differs from itself", i)
		}
		c, err := Scenario(2, i, anything)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Text, c.Text) {
			differ++
		}
	}
	if differ < 45 {
		t.Errorf("of 50 scenarios of another seed %d differ", differ)
	}
}

// TestKinds: all kinds come, each with requests.
func TestKinds(t *testing.T) {
	seen := map[string]int{}
	for i := range 300 {
		s, err := Scenario(5, i, anything)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.About {
			kind, _, _ := strings.Cut(a, " ")
			seen[kind]++
		}
	}
	for _, k := range []string{"VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry", "Sidecar", "AuthorizationPolicy",
		"PeerAuthentication", "MeshConfig", "Service"} {
		if seen[k] == 0 {
			t.Errorf("no scenario is about %s", k)
		}
	}
}

func TestNothingValid(t *testing.T) {
	if _, err := Scenario(1, 1, func(string, string) error { return errors.New("no") }); err == nil {
		t.Error("a scenario of what istiod would not take")
	}
}
