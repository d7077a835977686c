// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/model/plan"
)

// TestExplain runs the command that a case's first line has on its files.
func TestExplain(t *testing.T) {
	eachCase(t, "testdata/explain/*.txtar", func(t *testing.T, c *commandCase) {
		args := strings.Fields(c.commands[0])
		r := fairlead(t, "", args...)
		if r.code != 0 || r.err != "" {
			t.Fatalf("exit %d, says %q", r.code, r.err)
		}
		c.judge(t, r.out)
		// The data behind it is the same in both forms.
		var fromJSON, fromYAML agent.Explanation
		if err := json.Unmarshal([]byte(fairlead(t, "", append(args, "-o", "json")...).out), &fromJSON); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(fairlead(t, "", append(args, "-o", "yaml")...).out), &fromYAML); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(fromJSON, fromYAML) || fromJSON.Answer == nil {
			t.Errorf("JSON %+v, YAML %+v", fromJSON.Answer, fromYAML.Answer)
		}
	})
}

func TestWrongUsageOfExplain(t *testing.T) {
	node := demoNode(t)
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"explain -f " + node:                        {exitUsage, "needs one thing"},
		"explain a/b c/d -f " + node:                {exitUsage, "needs one thing"},
		"explain web -f " + node:                    {exitUsage, "want NAMESPACE/NAME"},
		"explain a/b/c -f " + node:                  {exitUsage, "want NAMESPACE/NAME"},
		"explain a/b:0 -f " + node:                  {exitUsage, `"0" is no port`},
		"explain a/b:99999 -f " + node:              {exitUsage, `"99999" is no port`},
		"explain a/b -f " + node + " --run /x":      {exitUsage, "not both"},
		"explain a/b -f " + node + " --lab x":       {exitUsage, "not both"},
		"explain a/b --node x -f " + node:           {exitUsage, "they have n1"},
		"explain a/b -f " + node:                    {exitFailed, "there is no service, host or pod a/b"},
		"explain a/b:80 -f " + node:                 {exitFailed, "there is no service or host a/b:80"},
		"explain a/b -f /no/such/path":              {exitFailed, "no such file"},
		"explain a/b --run " + t.TempDir():          {exitFailed, "is it running on this node?"},
		"explain a/b --node x --run " + t.TempDir(): {exitUsage, "needs --lab"},
	} {
		if r := fairlead(t, "", strings.Fields(args)...); r.code != want.code || !strings.Contains(r.err, want.says) || r.out != "" {
			t.Errorf("%s: exit %d, out %q, says %q; want %d and %q", args, r.code, r.out, r.err, want.code, want.says)
		}
	}
}

// What only an agent knows stands beside what it is about.
func TestExplanationOfARunningAgent(t *testing.T) {
	e := &agent.Explanation{Node: "n1", Answer: &explain.Answer{
		Frontends: []explain.Frontend{
			{Key: "shop/web:80", Protocol: "TCP", App: "http", RouteTables: []string{"shop/web:80", "shop/web:80@6"}},
			{Key: "shop/web:81", Protocol: "TCP", App: "http", RouteTables: []string{"shop/web:81"}},
		},
		Pod: &explain.Pod{Name: "shop/web", Captured: true, Local: true, Listeners: map[plan.Mode]string{plan.HTTP: "out/http/1", plan.TLS: "out/tls/1"}},
	}, Live: &agent.Live{InUse: []string{"shop/web:80"}, Ports: map[string]uint16{"out/http/1": 15101, "out/tls/1": 0},
		Rejected: []agent.Rejected{{Type: "RouteConfiguration", Name: "shop/web:81", Version: "v", Detail: "bad", Since: time.Now(), Serving: agent.Answer500}}}}
	text := func() string {
		var out bytes.Buffer
		if err := printExplanation(&out, e); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for _, want := range []string{"in use: yes: Envoy has shop/web:80\n", "in use: no: Envoy has not asked for its routes\n",
		"listener: http: out/http/1 at port 15101\n", "listener: tls: out/tls/1, which Envoy has not acknowledged\n",
		"\nREJECTED\nRouteConfiguration shop/web:81 for 0s, served: 500\n    Envoy: bad\n"} {
		if !strings.Contains(text(), want) {
			t.Errorf("no %q in\n%s", want, text())
		}
	}
	e.Live.InUseError = "ask the proxy: refused"
	if want := "in use: not known: ask the proxy: refused\n"; !strings.Contains(text(), want) {
		t.Errorf("no %q in\n%s", want, text())
	}
}
