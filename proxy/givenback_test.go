// SPDX-License-Identifier: Apache-2.0

//go:build linux

package proxy

import (
	"errors"
	"os"
	"testing"
	"time"
)

// A node that was given back starts from nothing with the next installation, also where the
// last one's proxy ended after that; and an agent that goes on has its proxy go on.
func TestGivenBack(t *testing.T) {
	r := newRig(t)
	r.push(one(t)...)
	path := PathsIn(r.dir).State
	saved := func() bool { _, err := os.Stat(path); return err == nil }
	r.waitFor("a saved state", saved)
	if err := GiveBack(r.dir); err != nil {
		t.Fatal(err)
	}
	r.push(service(2, to("a"))...)
	for end := time.Now().Add(5 * saveDelay); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if saved() {
			t.Fatal("a proxy of the last installation saved what it serves")
		}
	}
	if err := TakeUp(r.dir); err != nil {
		t.Fatal(err)
	}
	r.waitFor("the state, saved as an agent is there again", saved)

	late, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := GiveBack(r.dir); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if saved() {
		t.Error("a proxy that ends saved what it served")
	}
	r.feed.Stop()
	if err := os.WriteFile(path, late, 0o600); err != nil { // it was writing at that moment
		t.Fatal(err)
	}
	p := &proxy{paths: PathsIn(r.dir)}
	if st, err := p.load(t.Context(), true); !errors.Is(err, errNoState) || len(st.resources) > 0 {
		t.Errorf("the next proxy begins with %d resources, %v", len(st.resources), err)
	}
	if err := TakeUp(r.dir); err != nil {
		t.Fatal(err)
	}
	if saved() {
		t.Error("the next installation's proxies go by the last one's state")
	}
	for range 2 {
		if err := GiveBack(t.TempDir() + "/none"); err != nil {
			t.Error(err)
		}
	}
}
