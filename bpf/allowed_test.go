// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
)

// allowed is what programs may use, each with the kernel that first had it, for programs
// of our kinds. All of it is in the oldest kernel that we run on; README.md says why that one.
type allowed struct {
	Kernel          string            `json:"kernel"` // the oldest
	Helpers         map[string]string `json:"helpers"`
	KernelFunctions map[string]string `json:"kernelFunctions"`
	Programs        map[string]string `json:"programs"`
	Attachments     map[string]string `json:"attachments"`
	Maps            map[string]string `json:"maps"`
}

func readAllowed(t *testing.T) allowed {
	t.Helper()
	f, err := os.Open("allowed.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out allowed
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("read allowed.json: %v", err)
	}
	return out
}

// lists are the lists by what they are of.
func (a allowed) lists() map[string]map[string]string {
	return map[string]map[string]string{"helper": a.Helpers, "kernel function": a.KernelFunctions, "program type": a.Programs,
		"attach type": a.Attachments, "map type": a.Maps}
}

// uses are what the object uses: by what it is, then by name who uses it.
func uses(s *ebpf.CollectionSpec) map[string]map[string][]string {
	out := map[string]map[string][]string{}
	add := func(what, name, by string) {
		if out[what] == nil {
			out[what] = map[string][]string{}
		}
		if !slices.Contains(out[what][name], by) {
			out[what][name] = append(out[what][name], by)
		}
	}
	for name, m := range s.Maps {
		add("map type", m.Type.String(), name)
	}
	for name, p := range s.Programs {
		add("program type", p.Type.String(), name)
		add("attach type", p.AttachType.String(), name)
		for _, ins := range p.Instructions {
			switch {
			case ins.IsKfuncCall():
				add("kernel function", ins.Reference(), name)
			case ins.IsBuiltinCall():
				add("helper", snake(strings.TrimPrefix(asm.BuiltinFunc(ins.Constant).String(), "Fn")), name)
			}
		}
	}
	return out
}

// outside are the things that an object uses and that are not allowed.
func (a allowed) outside(s *ebpf.CollectionSpec) []string {
	var out []string
	for what, names := range uses(s) {
		for name, by := range names {
			if a.lists()[what][name] == "" {
				slices.Sort(by)
				out = append(out, fmt.Sprintf("%s %s, of %s", what, name, strings.Join(by, ", ")))
			}
		}
	}
	slices.Sort(out)
	return out
}

// The committed objects use what is allowed and nothing else, and all of that.
func TestObjectsUseWhatIsAllowed(t *testing.T) {
	a := readAllowed(t)
	used := map[string]bool{}
	for object, s := range specs(t) {
		for _, o := range a.outside(s) {
			t.Errorf("%s.o: %s, is not in allowed.json: only what Linux %s has may be", object, o, a.Kernel)
		}
		for what, names := range uses(s) {
			for name := range names {
				used[what+" "+name] = true
			}
		}
	}
	for what, list := range a.lists() {
		for name := range list {
			if !used[what+" "+name] {
				t.Errorf("%s %s is allowed, and nothing uses it", what, name)
			}
		}
	}
}

// What is allowed says since when it is there: not after the oldest kernel that we run on.
func TestAllowedIsInTheOldestKernel(t *testing.T) {
	a := readAllowed(t)
	oldest, err := kernelVersion(a.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	for what, list := range a.lists() {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			version, _, _ := strings.Cut(list[name], ":")
			if since, err := kernelVersion(version); err != nil {
				t.Errorf("%s %s: %q does not begin with the kernel that first had it: %v", what, name, list[name], err)
			} else if slices.Compare(since[:], oldest[:]) > 0 {
				t.Errorf("%s %s is in Linux %s, and not in %s", what, name, version, a.Kernel)
			}
		}
	}
	for _, file := range []string{"../README.md", "../deploy/README.md", "README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want := a.Kernel + " or newer"; !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", file, want)
		}
	}
}

func kernelVersion(text string) (v [2]int, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &v[0], &v[1])
	return v, err
}

// What is made up and not allowed is found: an instruction, a type.
func TestOutsideIsFound(t *testing.T) {
	a := readAllowed(t)
	program := func(typ ebpf.ProgramType, at ebpf.AttachType, call asm.Instruction) *ebpf.CollectionSpec {
		return &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Type: typ, AttachType: at,
			Instructions: asm.Instructions{call, asm.Mov.Imm(asm.R0, 0), asm.Return()}}}}
	}
	kfunc := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: -1}.WithReference("bpf_skb_ct_lookup")
	for name, c := range map[string]struct {
		spec *ebpf.CollectionSpec
		want []string
	}{
		"allowed":     {program(ebpf.SchedCLS, ebpf.AttachTCXIngress, asm.FnSkAssign.Call()), nil},
		"helper":      {program(ebpf.SchedCLS, ebpf.AttachTCXIngress, asm.FnSkbEcnSetCe.Call()), []string{"helper skb_ecn_set_ce, of p"}},
		"function":    {program(ebpf.SchedCLS, ebpf.AttachTCXIngress, kfunc), []string{"kernel function bpf_skb_ct_lookup, of p"}},
		"program":     {program(ebpf.XDP, ebpf.AttachTCXIngress, asm.FnRedirect.Call()), []string{"program type XDP, of p"}},
		"attachment":  {program(ebpf.SchedCLS, ebpf.AttachNetkitPrimary, asm.FnRedirect.Call()), []string{"attach type NetkitPrimary, of p"}},
		"map":         {&ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"m": {Type: ebpf.Arena}}}, []string{"map type Arena, of m"}},
		"unknown one": {program(ebpf.SchedCLS, ebpf.AttachTCXIngress, asm.BuiltinFunc(9999).Call()), []string{"helper " + snake(strings.TrimPrefix(asm.BuiltinFunc(9999).String(), "Fn")) + ", of p"}},
	} {
		if d := cmp.Diff(c.want, a.outside(c.spec)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
