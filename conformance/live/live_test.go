// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/lab/load"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

func TestParseLines(t *testing.T) {
	got, err := ParseLines(`
# a comment
client GET http://web/a?x=1 x-user:alice "x-words:two words" host=other *40 keepalive v6 -> 200 v1 75% v2 25% path=/a?x=1 header.x-a=
outside tcp://{web|6}:9000 timeout=2s sourceport=61000 eventually -> refused
client grpc://web/pkg.Service/Call -> PERMISSION_DENIED by~Policy
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Line{
		{Number: 3, Source: "client", Method: "GET", URL: "http://web/a?x=1", Headers: [][2]string{{"x-user", "alice"}, {"x-words", "two words"}}, Host: "other",
			Repeat: 40, KeepAlive: true, Family: "6", Want: Want{Status: "200", Shares: []Share{{"v1", 75}, {"v2", 25}}, Fields: []Field{{"path", "=", "/a?x=1"}, {"header.x-a", "=", ""}}}},
		{Number: 4, Source: "outside", URL: "tcp://{web|6}:9000", Repeat: 1, Timeout: 2 * time.Second, SourcePort: 61000, Eventually: true, Want: Want{Status: "refused"}},
		{Number: 5, Source: "client", URL: "grpc://web/pkg.Service/Call", Repeat: 1, Want: Want{Status: "PERMISSION_DENIED", Fields: []Field{{"by", "~", "Policy"}}}},
	}
	for i := range got {
		got[i].Text = ""
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r, err := got[1].request(func(name, form string) (string, error) { return "[" + name + form + "]", nil })
	if err != nil || r.URL != "tcp://[web6]:9000" || r.Timeout != "2s" || r.SourcePort != 61000 {
		t.Errorf("request %+v, %v", r, err)
	}
	for _, bad := range []string{
		"client GET http://web/", "client GET http://web/ ->", "client http://web/ -> 200", "client GET tcp://web:1 -> ok",
		"client GET http://web/ nonsense -> 200", "client GET http://web/ *0 -> 200", "client GET http://web/ -> 200 30%",
		"client GET http://web/ -> 200 colour=red", "client GET ftp://web/ -> 200", `client GET http://web/ "x:y -> 200`,
	} {
		if _, err := ParseLines(bad); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

func TestJudge(t *testing.T) {
	answer := func(version string) load.Result {
		return load.Result{Status: 200, Headers: map[string][]string{"x-a": {"1"}}, Millis: 120,
			Answer: &echo.Answer{Facts: echo.Facts{Pod: "web-" + version + "-1", Labels: map[string]string{"version": version}}, Path: "/a", Peer: "[fd44:1::2]:4000"}}
	}
	many := func(v1, v2 int) []load.Result {
		var out []load.Result
		for range v1 {
			out = append(out, answer("v1"))
		}
		for range v2 {
			out = append(out, answer("v2"))
		}
		return out
	}
	unavailable := uint32(14)
	for _, c := range []struct {
		want    string
		results []load.Result
		right   bool
	}{
		{"200 v1 path=/a answer.x-a=1 peer=self took>100ms took<1s", many(1, 0), true},
		{"2xx v1 v2", many(1, 1), true},
		{"200-299", many(1, 1), true},
		{"200 v1", many(1, 1), false},
		{"403", many(1, 0), false},
		{"200 path=/b", many(1, 0), false},
		{"200 took<100ms", many(1, 0), false},
		{"200 v1 75% v2 25%", many(300, 100), true},
		{"200 v1 75% v2 25%", many(250, 150), false},
		{"200 v1 100%", many(100, 0), true},
		{"200 pods=2", many(1, 1), true},
		{"200 pods>2", many(1, 1), false},
		{"refused", []load.Result{{Error: "refused"}}, true},
		{"failed", []load.Result{{Error: "timeout"}}, true},
		{"failed", many(1, 0), false},
		{"UNAVAILABLE", []load.Result{{GRPC: &unavailable}}, true},
	} {
		lines, err := ParseLines("client GET http://web/ -> " + c.want)
		if err != nil {
			t.Fatal(err)
		}
		if err := lines[0].Want.Judge(c.results, []string{"fd44:1::2"}); (err == nil) != c.right {
			t.Errorf("%s: %v", c.want, err)
		}
	}
}

// tables are the folders of cases: those that are run for what they show, and the
// decision tables of single planes, whose cases have one reason each.
var tables = []string{"cases", "smi", "linkerd"}

// caseFiles are the files of a folder of cases.
func caseFiles(t *testing.T, table string) []string {
	t.Helper()
	files, err := filepath.Glob("../" + table + "/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The list of a decision table is that of its cases, each with its reason.
func TestTablesAreListed(t *testing.T) {
	for _, table := range tables[1:] {
		var b strings.Builder
		b.WriteString("| Case | What it decides |\n|---|---|\n")
		n := 0
		for _, file := range caseFiles(t, table) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			reason, _, _ := strings.Cut(string(a.Comment), "\n")
			name := filepath.Base(file)
			fmt.Fprintf(&b, "| [%s](%s) | %s |\n", strings.TrimSuffix(name, ".txtar"), name, reason)
			n++
		}
		if n < 80 {
			t.Errorf("%s has %d cases", table, n)
		}
		translatortest.Section(t, filepath.Join("..", table, "README.md"), "cases", b.String())
	}
}

// Nothing is wrong with the manifests of cases but what the case says.
func TestCasesAreClean(t *testing.T) {
	var files []string
	for _, table := range tables {
		files = append(files, caseFiles(t, table)...)
	}
	if len(files) < 200 {
		t.Fatalf("%d cases", len(files))
	}
	names := map[string]string{}
	for _, file := range files {
		c, err := ReadCase(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if names[c.Name] != "" {
			t.Errorf("%s and %s have one name", names[c.Name], file)
		}
		if names[c.Name] = file; len(c.Name) > 55 {
			t.Errorf("%s: the name is too long for one of a namespace", file)
		}
		for _, v := range c.Variants {
			var codes []string
			var inputs []objects.Input
			for _, f := range slices.Concat([]txtar.File{c.Namespace()}, c.Common, v.Files) {
				inputs = append(inputs, objects.Input{Name: f.Name, Data: f.Data})
			}
			p, err := pipeline.New(pipeline.Options{Node: "node-1"})
			if err != nil {
				t.Fatal(err)
			}
			p.Load(cluster.Offline(inputs, []string{"node-1", "node-2"})...)
			for _, d := range p.Diagnostics() {
				switch {
				case !d.IsError() || slices.Contains(codes, d.Code):
				case slices.Contains(c.Errors, d.Code):
					codes = append(codes, d.Code)
				default:
					t.Errorf("%s: %s: %s: %s", c.Name, d.Source, d.Code, d.Message)
				}
			}
			if slices.Sort(codes); !slices.Equal(codes, c.Errors) {
				t.Errorf("%s: errors %q, want %q", file, codes, c.Errors)
			}
		}
	}
}
