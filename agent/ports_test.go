// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
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
		if err == nil {
			err = p.flush()
		}
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
	p.release("a")
	if err := p.flush(); err != nil {
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

func TestPortsRestShorterWhenTheyAreNeeded(t *testing.T) {
	now := time.Unix(1000, 0)
	p, err := openPorts(filepath.Join(t.TempDir(), "ports.json"), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	take := func(name string) (uint16, error) { now = now.Add(time.Second); return p.allocate(name) }
	for n := firstPort; n <= lastPort; n++ {
		if _, err := take(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := take("one too many"); err == nil {
		t.Errorf("got %d, with all ports in use", n)
	}
	for _, n := range []int{15500, 15200, 15300} {
		now = now.Add(time.Second)
		p.release(fmt.Sprint(n))
	}
	if n, err := take("more"); err != nil || n != 15500 {
		t.Errorf("got %d, %v; 15500 has rested longest", n, err)
	}
}

func TestPortsAreGivenOutThoughTheyCannotBeSaved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	p, err := openPorts(filepath.Join(dir, "ports.json"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.allocate("a"); err != nil || n != firstPort {
		t.Errorf("got %d, %v", n, err)
	}
	if p.flush() == nil {
		t.Error("nobody says that the file cannot be written")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.flush(); err != nil {
		t.Error(err)
	}
	if again, err := openPorts(p.file, time.Now); err != nil || again.get("a") != firstPort {
		t.Errorf("the next agent has %v, %v", again, err)
	}
}
