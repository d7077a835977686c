// SPDX-License-Identifier: Apache-2.0

package translatortest

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/model"
)

// NoEffect is the outcome of a field that means nothing to traffic, in the plane neither.
const NoEffect model.Outcome = "no effect"

// WholeKind is the name of the only field of a kind that is refused as a whole.
const WholeKind = "everything"

// Field is what becomes of a field of a kind, in some of its versions.
type Field struct {
	Kind, Name string
	Versions   []string // none if the versions do not differ
	Fates      []Fate   // by its values; more than one if values fare differently
}

// Fate is what becomes of some values of a field.
type Fate struct {
	Outcome         model.Outcome
	Message, Advice string
	Values          []string // the values that were tried
}

// Outcome is that of all of a field's values. One of which some values are refused and
// others are not is approximated.
func (f Field) Outcome() model.Outcome {
	out := f.Fates[0].Outcome
	for _, fate := range f.Fates[1:] {
		switch {
		case fate.Outcome == out, fate.Outcome == NoEffect:
		case out == NoEffect:
			out = fate.Outcome
		default:
			out = model.Approximated
		}
	}
	return out
}

// Becomes is what tables say of a field.
func (f Field) Becomes() string {
	meaning := f.Meaning()
	if len(f.Fates) > 1 {
		return meaning
	}
	if meaning != "" {
		meaning = ": " + meaning
	}
	return string(f.Fates[0].Outcome) + meaning
}

// Meaning is what is said beside the outcome, or of each value if they fare differently.
func (f Field) Meaning() string {
	if len(f.Fates) == 1 {
		return cell(f.Fates[0].Message)
	}
	var parts []string
	for _, fate := range f.Fates {
		text := "`" + strings.Join(fate.Values, "`, `") + "` " + string(fate.Outcome)
		if fate.Message != "" {
			text += ": " + fate.Message
		}
		parts = append(parts, text)
	}
	return cell(strings.Join(parts, "; "))
}

// Advice is what to do about what is not translated.
func (f Field) Advice() string {
	var parts []string
	for _, fate := range f.Fates {
		if fate.Advice != "" && !slices.Contains(parts, fate.Advice) {
			parts = append(parts, fate.Advice)
		}
	}
	return cell(strings.Join(parts, "; "))
}

func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", `\|`), "\n", " ")
}

// Fields are what becomes of the fields of kinds, those of a kind together.
type Fields []Field

// add puts in what becomes of a field in a version; versions that fare the same share a row.
func (f *Fields) add(kind, version, name string, fates []Fate) {
	if len(fates) == 0 {
		return // a test has failed
	}
	row := Field{Kind: kind, Name: strings.ReplaceAll(name, "[0]", "[]"), Versions: []string{version}, Fates: fates}
	last := -1
	for i, have := range *f {
		switch {
		case have.Kind != row.Kind || have.Name != row.Name:
		case have.Becomes() == row.Becomes():
			(*f)[i].Versions = append(have.Versions, version)
			return
		default:
			last = i
		}
	}
	if last < 0 {
		*f = append(*f, row)
		return
	}
	*f = slices.Insert(*f, last+1, row)
}

// Table is the fields' table of a README.
func (f Fields) Table() string {
	var b strings.Builder
	b.WriteString("| Kind | Field | Versions | Becomes |\n|---|---|---|---|\n")
	for _, r := range f {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Kind, r.Name, strings.Join(r.Versions, ", "), r.Becomes())
	}
	return b.String()
}

// Counts are how many fields have which outcome.
type Counts struct{ Translated, Approximated, Refused, NoEffect, OutOfScope int }

// InScope is the number of the fields in scope.
func (c Counts) InScope() int { return c.Translated + c.Approximated + c.Refused + c.NoEffect }

// Share is that of the fields in scope that are translated, or mean nothing in the plane
// neither.
func (c Counts) Share() float64 {
	if c.InScope() == 0 {
		return 1
	}
	return float64(c.Translated+c.NoEffect) / float64(c.InScope())
}

func (c *Counts) add(o model.Outcome, inScope bool) {
	switch {
	case !inScope:
		c.OutOfScope++
	case o == model.Translated:
		c.Translated++
	case o == model.Approximated:
		c.Approximated++
	case o == NoEffect:
		c.NoEffect++
	default:
		c.Refused++
	}
}

// Scope says which fields are counted.
type Scope struct {
	// Excluded maps fields ("KIND FIELD", with whatever is below them) and kinds ("KIND") that
	// are not counted to the reason.
	Excluded map[string]string
	// Floors are the least shares of a plane's ("") and of kinds' fields that are translated.
	Floors map[string]float64
}

// why is the reason why a field is not counted, "" if it is.
func (s Scope) why(f Field) string {
	for _, key := range sortedKeys(s.Excluded) {
		name := f.Kind + " " + f.Name
		if f.Kind == key || name == key || strings.HasPrefix(name, key+".") || strings.HasPrefix(name, key+"[") {
			return s.Excluded[key]
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Count counts the fields of a kind, of all kinds for "".
func (f Fields) Count(kind string, s Scope) Counts {
	var c Counts
	for _, r := range f {
		if kind == "" || r.Kind == kind {
			c.add(r.Outcome(), s.why(r) == "")
		}
	}
	return c
}

// kinds in the order in which they come.
func (f Fields) kinds() []string {
	var out []string
	for _, r := range f {
		if !slices.Contains(out, r.Kind) {
			out = append(out, r.Kind)
		}
	}
	return out
}

// Reference compares a document with what has become of the fields of a plane, and the
// shares with their floors; -update rewrites it. The command is the one that does.
func (f Fields) Reference(t *testing.T, file, title, command string, s Scope) {
	t.Helper()
	if t.Failed() {
		return // what has been found is not to be written down
	}
	for _, key := range sortedKeys(s.Excluded) {
		if !slices.ContainsFunc(f, func(r Field) bool { return (Scope{Excluded: map[string]string{key: "x"}}).why(r) != "" }) {
			t.Errorf("%s is excluded, and is no field", key)
		}
	}
	for kind, floor := range s.Floors {
		if c := f.Count(kind, s); c.Share() < floor {
			t.Errorf("%s: of %d fields in scope %.1f %% are translated, want %.1f %%", cmp.Or(kind, "all kinds"), c.InScope(), 100*c.Share(), 100*floor)
		}
	}
	want := f.document(title, command, s)
	have, err := os.ReadFile(file)
	switch {
	case err == nil && string(have) == want:
	case *update:
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not up to date; run the test with -update: %v\n%s", file, err, gocmp.Diff(string(have), want))
	}
}

func (f Fields) document(title, command string, s Scope) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Written by: %s -->\n\n# %s: what becomes of each field\n\n", command, title)
	b.WriteString("How to read this page: [README.md](README.md).\n\n")
	b.WriteString("| Kind | Fields in scope | Translated | Approximated | Refused | No effect | Out of scope |\n|---|---|---|---|---|---|---|\n")
	line := func(name string, c Counts) {
		fmt.Fprintf(&b, "| %s | %d | %d (%.1f %%) | %d | %d | %d | %d |\n", name, c.InScope(), c.Translated,
			100*float64(c.Translated)/float64(max(c.InScope(), 1)), c.Approximated, c.Refused, c.NoEffect, c.OutOfScope)
	}
	for _, k := range f.kinds() {
		if c := f.Count(k, s); c.InScope() > 0 {
			line(k, c)
		}
	}
	all := f.Count("", s)
	line("**All**", all)
	fmt.Fprintf(&b, "\nOf the fields in scope %.1f %% are translated, or mean nothing in the plane neither.\n", 100*all.Share())
	if len(s.Excluded) > 0 {
		b.WriteString("\nNot counted:\n\n")
		for _, key := range sortedKeys(s.Excluded) {
			fmt.Fprintf(&b, "- %s: %s\n", key, s.Excluded[key])
		}
	}
	for _, k := range f.kinds() {
		versions := slices.ContainsFunc(f, func(r Field) bool { return r.Kind == k && len(r.Versions) > 0 })
		fmt.Fprintf(&b, "\n## %s\n\n", k)
		if versions {
			b.WriteString("| Field | Versions | Becomes | What to do |\n|---|---|---|---|\n")
		} else {
			b.WriteString("| Field | Becomes | What to do |\n|---|---|---|\n")
		}
		for _, r := range f {
			switch {
			case r.Kind != k:
			case versions:
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Name, strings.Join(r.Versions, ", "), r.Becomes(), r.Advice())
			default:
				fmt.Fprintf(&b, "| %s | %s | %s |\n", r.Name, r.Becomes(), r.Advice())
			}
		}
	}
	return b.String()
}
