// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"fairlead.io/fairlead/internal/need"
)

// specs are the committed objects.
func specs(t testing.TB) map[string]*ebpf.CollectionSpec {
	t.Helper()
	out := map[string]*ebpf.CollectionSpec{}
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"net": LoadNet, "sock": LoadSock} {
		s, err := load()
		if err != nil {
			t.Fatalf("load %s: %v", name, err)
		}
		out[name] = s
	}
	return out
}

// layouts are the structs of fl_types.h: their sizes and where the fields are. A
// change here needs a new map name.
var layouts = map[string]struct {
	size   uint32
	fields map[string]uint32
}{
	"fl_bridge":     {12, map[string]uint32{"ifindex": 0, "mac": 4, "pad": 10}},
	"fl_addr":       {16, map[string]uint32{"w": 0}},
	"fl_svc_key":    {20, map[string]uint32{"addr": 0, "port": 16, "proto": 18, "pad": 19}},
	"fl_range_key":  {24, map[string]uint32{"bits": 0, "port": 4, "proto": 6, "pad": 7, "addr": 8}},
	"fl_svc":        {24, map[string]uint32{"id": 0, "slots": 4, "affinity": 8, "flags": 12, "routed_id": 16, "routed_slots": 20}},
	"fl_slot_key":   {8, map[string]uint32{"id": 0, "slot": 4}},
	"fl_backend":    {20, map[string]uint32{"addr": 0, "port": 16, "pad": 18}},
	"fl_rev_key":    {32, map[string]uint32{"cookie": 0, "addr": 8, "port": 24, "proto": 26, "pad": 27}},
	"fl_rev":        {20, map[string]uint32{"addr": 0, "port": 16, "pad": 18}},
	"fl_aff_key":    {32, map[string]uint32{"client": 0, "svc": 8, "pad": 28}},
	"fl_aff":        {32, map[string]uint32{"backend": 0, "id": 20, "seen": 24}},
	"fl_address":    {16, map[string]uint32{"class": 0, "flags": 8, "pad": 12}},
	"fl_prefix_key": {20, map[string]uint32{"bits": 0, "addr": 4}},
	"fl_policy_key": {24, map[string]uint32{"set": 0, "class": 8, "port": 16, "proto": 18, "pad": 19}},
	"fl_policy":     {16, map[string]uint32{"rule": 0, "action": 8, "pad": 12}},
	"fl_pod":        {64, map[string]uint32{"set": 0, "netns": 8, "ifindex": 16, "flags": 20, "ports": 24, "probes": 48}},
	"fl_settings":   {8, map[string]uint32{"inbound_port": 0, "pad": 2}},
	"fl_tuple":      {40, map[string]uint32{"saddr": 0, "daddr": 16, "sport": 32, "dport": 34, "proto": 36, "side": 37, "pad": 38}},
	"fl_conn":       {16, map[string]uint32{"seen": 0, "path": 8, "port": 10, "pad": 12}},
	"fl_held":       {16, map[string]uint32{"since": 0, "seq": 8, "pad": 12}},
	"fl_event": {104, map[string]uint32{
		"time": 0, "class": 8, "set": 16, "rule": 24, "tuple": 32, "ifindex": 72, "port": 76, "reason": 78,
		"direction": 79, "pid": 80, "flags": 84, "comm": 88,
	}},
}

func TestLayouts(t *testing.T) {
	found := map[string]bool{}
	for object, s := range specs(t) {
		for typ := range s.Types.All() {
			st, ok := typ.(*btf.Struct)
			if !ok || !strings.HasPrefix(st.Name, "fl_") || st.Name == "fl_packet" {
				continue
			}
			want, ok := layouts[st.Name]
			if !ok {
				continue // a map, whose definition is a struct too
			}
			found[st.Name] = true
			got := map[string]uint32{}
			end := uint32(0)
			for _, m := range st.Members {
				got[m.Name] = m.Offset.Bytes()
				if m.Offset.Bytes() != end {
					t.Errorf("%s: %s has a hole before %s: padding is by hand", object, st.Name, m.Name)
				}
				size, err := btf.Sizeof(m.Type)
				if err != nil {
					t.Fatal(err)
				}
				end = m.Offset.Bytes() + uint32(size)
			}
			if end != st.Size {
				t.Errorf("%s: %s ends in a hole: padding is by hand", object, st.Name)
			}
			if st.Size != want.size || !maps.Equal(got, want.fields) {
				t.Errorf("%s: %s is %d bytes, %v; want %d, %v", object, st.Name, st.Size, got, want.size, want.fields)
			}
		}
	}
	for name := range layouts {
		if !found[name] {
			t.Errorf("no object has %s", name)
		}
	}
}

func TestGeneratedTypesHaveTheLayout(t *testing.T) {
	for _, v := range []any{
		NetFlAddr{}, SockFlSvcKey{}, SockFlSvc{}, SockFlSlotKey{}, SockFlBackend{}, SockFlRevKey{}, SockFlRev{},
		SockFlAffKey{}, SockFlAff{}, NetFlRangeKey{}, NetFlAddress{}, NetFlPrefixKey{}, NetFlPolicyKey{}, NetFlPolicy{}, NetFlPod{},
		NetFlSettings{}, NetFlTuple{}, NetFlConn{}, NetFlHeld{}, SockFlEvent{}, NetFlSvcKey{}, NetFlSvc{},
	} {
		typ := reflect.TypeOf(v)
		name := snake(strings.TrimPrefix(strings.TrimPrefix(typ.Name(), "Net"), "Sock"))
		want, ok := layouts[name]
		if !ok {
			t.Errorf("%s: no layout of %s", typ, name)
			continue
		}
		got := map[string]uint32{}
		for f := range typ.Fields() {
			if f.Name != "_" {
				got[snake(f.Name)] = uint32(f.Offset)
			}
		}
		if uint32(typ.Size()) != want.size || !maps.Equal(got, want.fields) {
			t.Errorf("%s is %d bytes, %v; want %d, %v", typ, typ.Size(), got, want.size, want.fields)
		}
	}
}

func snake(s string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z0-9])([A-Z])`).ReplaceAllString(s, "${1}_${2}"))
}

func TestMapNamesHaveVersions(t *testing.T) {
	version := regexp.MustCompile(`^fl_[a-z]+_v[1-9][0-9]*$`)
	both := map[string]*ebpf.MapSpec{}
	for object, s := range specs(t) {
		for name, m := range s.Maps {
			if strings.HasPrefix(name, ".") {
				continue
			}
			if !version.MatchString(name) {
				t.Errorf("%s: map %s has no version", object, name)
			}
			if len(name) > 15 { // what the kernel keeps of a name, and tools show
				t.Errorf("%s: the name of map %s is too long", object, name)
			}
			if m.Pinning != ebpf.PinByName {
				t.Errorf("%s: map %s is not pinned by name", object, name)
			}
			if o := both[name]; o != nil {
				if o.Type != m.Type || o.KeySize != m.KeySize || o.ValueSize != m.ValueSize || o.MaxEntries != m.MaxEntries || o.Flags != m.Flags {
					t.Errorf("map %s is not the same in both objects: %s, %s", name, o, m)
				}
			}
			both[name] = m
		}
	}
}

// The committed objects are what the sources give. bpf2go, the compiler and its
// flags are those of generate.go.
func TestObjectsAreFresh(t *testing.T) {
	need.Command(t, "clang-19")
	need.Command(t, "llvm-strip-19")
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	runs := regexp.MustCompile(`(?m)^//go:generate go tool bpf2go (.*) (\w+) (\w+\.c)$`).FindAllStringSubmatch(string(source), -1)
	if len(runs) != 2 {
		t.Fatalf("generate.go has %d runs of bpf2go", len(runs))
	}
	for _, run := range runs {
		script := fmt.Sprintf("go tool bpf2go -output-dir %s %s %s %s", dir, run[1], run[2], run[3])
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = here
		cmd.Env = append(os.Environ(), "GOPACKAGE=bpf")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(made) != 4 {
		t.Fatalf("made %q: %v", made, err)
	}
	for _, f := range made {
		got, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Base(f))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: go generate ./bpf", filepath.Base(f))
		}
	}
}
