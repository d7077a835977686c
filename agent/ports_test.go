// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPortsOutliveTheAgentAndRest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ports.json")
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	open := func() *ports {
		p, err := openPorts(file, clock)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	take := func(p *ports, name string) uint16 {
		n, err := p.allocate(name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	p := open()
	a, b := take(p, "a"), take(p, "b")
	if a != firstPort || b != firstPort+1 {
		t.Fatalf("a=%d b=%d", a, b)
	}
	p = open()
	if n := take(p, "b"); n != b {
		t.Errorf("after a restart b has %d, had %d", n, b)
	}
	if err := p.release("a"); err != nil {
		t.Fatal(err)
	}
	if n := take(open(), "c"); n == a {
		t.Errorf("port %d was used again at once", n)
	}
	now = now.Add(portRest)
	if n := take(open(), "d"); n != a {
		t.Errorf("after its rest port %d is free, got %d", a, n)
	}
}

func TestPortsOfABrokenFile(t *testing.T) {
	for name, text := range map[string]string{"garbage": "{", "repeated": `{"used":{"a":15100,"b":15100},"resting":{},"live":{}}`, "outside": `{"used":{"a":80},"resting":{},"live":{}}`} {
		file := filepath.Join(t.TempDir(), "ports.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := openPorts(file, time.Now)
		if err != nil || len(p.listeners()) != 0 {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}
