// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"fairlead.io/fairlead/internal/need"
)

var update = flag.Bool("update", false, "rewrite complexity.json")

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
		NetFlSettings{}, NetFlTuple{}, NetFlConn{}, SockFlEvent{}, NetFlSvcKey{}, NetFlSvc{},
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

// helpers is every helper of the kernel that the programs call, and the kernel that
// first had it; all are there for programs of our kinds in 6.6, which TCX needs.
var helpers = map[asm.BuiltinFunc]string{
	asm.FnMapLookupElem:     "3.19",
	asm.FnMapUpdateElem:     "3.19",
	asm.FnMapDeleteElem:     "3.19",
	asm.FnKtimeGetNs:        "4.1",
	asm.FnGetPrandomU32:     "4.1",
	asm.FnSkbStoreBytes:     "4.1",
	asm.FnL3CsumReplace:     "4.1",
	asm.FnL4CsumReplace:     "4.1",
	asm.FnGetCurrentPidTgid: "4.2, in cgroup/sock_addr 6.1",
	asm.FnGetCurrentComm:    "4.2, in cgroup/sock_addr 6.1",
	asm.FnRedirect:          "4.4",
	asm.FnSkbLoadBytes:      "4.5",
	asm.FnSkbChangeType:     "4.8",
	asm.FnCsumDiff:          "4.6",
	asm.FnGetSocketCookie:   "4.12",
	asm.FnFibLookup:         "4.18",
	asm.FnSkRelease:         "4.20",
	asm.FnSkcLookupTcp:      "5.2",
	asm.FnGetNetnsCookie:    "5.7",
	asm.FnSkAssign:          "5.7, with listeners that share a port 6.6",
	asm.FnSetRetval:         "5.18, in cgroup/sock_addr 6.1",
	asm.FnRingbufReserve:    "5.8",
	asm.FnRingbufSubmit:     "5.8",
}

func TestHelpersAreKnown(t *testing.T) {
	used := map[asm.BuiltinFunc]bool{}
	for object, s := range specs(t) {
		for name, p := range s.Programs {
			for _, ins := range p.Instructions {
				if ins.IsKfuncCall() {
					t.Errorf("%s: %s calls a kernel function: %s", object, name, ins)
				}
				if !ins.IsBuiltinCall() {
					continue
				}
				fn := asm.BuiltinFunc(ins.Constant)
				used[fn] = true
				if helpers[fn] == "" {
					t.Errorf("%s: %s calls %s, which is not in the list", object, name, fn)
				}
			}
		}
	}
	for fn := range helpers {
		if !used[fn] {
			t.Errorf("nothing calls %s", fn)
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

// cost is what the verifier says of a program.
type cost struct {
	Instructions uint32 `json:"instructions"` // that it walked through
	Stack        uint32 `json:"stack"`        // bytes, of all its functions
}

// The verifier gives up after a million instructions and at 512 bytes of stack.
const (
	maxInstructions = 800_000
	maxStack        = 512
	growth          = 10 // percent
)

// Programs stay as cheap to verify as they are, or their growth is written down:
// go test ./bpf -run Complexity -update.
func TestComplexity(t *testing.T) {
	need.Root(t)
	const file = "complexity.json"
	got := map[string]cost{}
	for object, s := range specs(t) {
		for _, m := range s.Maps {
			m.Pinning = ebpf.PinNone
		}
		c, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
		if err != nil {
			var v *ebpf.VerifierError
			if errors.As(err, &v) {
				t.Fatalf("%s: %+v", object, v)
			}
			t.Fatalf("%s: %v", object, err)
		}
		for name, p := range c.Programs {
			got[name] = costOf(t, name, p)
		}
		c.Close()
	}
	if *update {
		b, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]cost
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		g, w := got[name], want[name]
		t.Logf("%-16s %6d instructions, %3d bytes of stack", name, g.Instructions, g.Stack)
		switch {
		case w == (cost{}):
			t.Errorf("%s: not in %s", name, file)
		case g.Instructions > w.Instructions*(100+growth)/100:
			t.Errorf("%s: %d instructions, was %d", name, g.Instructions, w.Instructions)
		case g.Stack > w.Stack*(100+growth)/100:
			t.Errorf("%s: %d bytes of stack, was %d", name, g.Stack, w.Stack)
		}
		if g.Instructions > maxInstructions || g.Stack > maxStack {
			t.Errorf("%s: %d instructions, %d bytes of stack: near the limits of the verifier", name, g.Instructions, g.Stack)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s: in %s, but in no object", name, file)
		}
	}
}

var (
	processed  = regexp.MustCompile(`processed (\d+) insns`)
	stackDepth = regexp.MustCompile(`stack depth ([\d+]+)`)
)

func costOf(t *testing.T, name string, p *ebpf.Program) cost {
	t.Helper()
	var c cost
	if m := processed.FindStringSubmatch(p.VerifierLog); m != nil {
		fmt.Sscan(m[1], &c.Instructions)
	}
	if m := stackDepth.FindStringSubmatch(p.VerifierLog); m != nil {
		for _, f := range strings.Split(m[1], "+") {
			var n uint32
			fmt.Sscan(f, &n)
			c.Stack += n
		}
	}
	if c.Instructions == 0 {
		t.Fatalf("%s: the verifier does not say what it did:\n%s", name, p.VerifierLog)
	}
	return c
}
