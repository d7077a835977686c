// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/kube/kubetest"
)

// What the API server runs beside an agent connects who asks with the agent's socket.
func TestRelay(t *testing.T) {
	dir := t.TempDir()
	dial := func(ctx context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		c := relayCommand()
		c.SetArgs([]string{"--run", dir})
		c.SetIn(far)
		c.SetOut(far)
		c.SetErr(io.Discard)
		c.SilenceErrors, c.SilenceUsage = true, true
		go func() {
			defer far.Close()
			if err := c.ExecuteContext(context.WithoutCancel(ctx)); err != nil && t.Context().Err() == nil {
				t.Log(err)
			}
		}()
		return near, nil
	}
	if _, err := agent.NewClientOver(dial).Status(t.Context()); err == nil {
		t.Error("there is no agent, and there was an answer")
	}
	l, err := net.Listen("unix", filepath.Join(dir, agent.Socket))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(agent.Status{Node: "node-1", Source: r.URL.Path})
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	c := agent.NewClientOver(dial)
	for range 2 { // one connection serves several questions
		s, err := c.Status(t.Context())
		if err != nil || s.Node != "node-1" || s.Source != "/status" {
			t.Errorf("got %+v, %v", s, err)
		}
	}
}

// A cluster whose agents are not there is one without an installation, or one that keeps its
// pods out.
func TestNoAgents(t *testing.T) {
	s := kubetest.New(t)
	s.Add(&kubetest.Resource{Group: "apps", Versions: []string{"v1"}, Kind: "DaemonSet", Plural: "daemonsets"})
	path := kubeconfig(t, s.TCP())
	status := func() string {
		var out strings.Builder
		c := root()
		c.SetArgs([]string{"status", "--kubeconfig", path})
		c.SetOut(&out)
		c.SetErr(&out)
		if code := run(t.Context(), c); code != 1 {
			t.Errorf("ended with %d", code)
		}
		return out.String()
	}
	if got := status(); !strings.Contains(got, "fairlead install puts them there") {
		t.Error(got)
	}
	s.Apply("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: fairlead-agent, namespace: mesh, labels: {app.kubernetes.io/name: fairlead, app.kubernetes.io/component: agent}}\nspec: {template: {spec: {containers: [{name: agent}]}}}\n")
	if got := status(); !strings.Contains(got, "no pod was made for the agents of namespace mesh: fairlead preflight --namespace mesh says") {
		t.Error(got)
	}
}

// One place is asked, and which one is said by the flags or found.
func TestWhoIsAsked(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	for args, want := range map[string]string{
		"status --lab a --run /x":                        "name one place to ask",
		"status --kubeconfig /nowhere/config --run /x":   "name one place to ask",
		"status --kubeconfig /nowhere/config":            "read kubeconfig /nowhere/config",
		"observe --context prod":                         "context \"prod\" does not exist",
		"swap shop --to smi --kubeconfig /nowhere/x":     "read kubeconfig /nowhere/x",
		"swap shop --to smi --kubeconfig /x -f y":        "swap needs one place",
		"explain a/b --live -f x":                        "not both",
		"status --node x --run " + t.TempDir():           "--node x needs --lab",
		"explain a/b --live --kubeconfig /nowhere/again": "read kubeconfig /nowhere/again",
	} {
		var out strings.Builder
		c := root()
		c.SetArgs(strings.Fields(args))
		c.SetOut(&out)
		c.SetErr(&out)
		if code := run(t.Context(), c); code == 0 || !strings.Contains(out.String(), want) {
			t.Errorf("fairlead %s: ended with %d and %q, want %q", args, code, out.String(), want)
		}
	}
}
