// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/translators/objects"
)

// fakeDaemon plays agent and proxy for tests of how the lab waits for them. What
// the agent says of pods is in the environment: never, or ready after a while.
func fakeDaemon(ctx context.Context, args []string) (code int, handled bool) {
	if len(args) == 0 || args[0] != "agent" && args[0] != "proxy" {
		return 0, false
	}
	if os.Getenv("FAKE_AGENT") == "fails" {
		fmt.Fprintln(os.Stderr, "no such kernel")
		return 1, true
	}
	if args[0] == "proxy" {
		<-ctx.Done()
		return 0, true
	}
	if err := fakeAgent(ctx, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// slow is how long the fake agent takes to be ready for a pod.
const slow = 300 * time.Millisecond

func fakeAgent(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	node, source, run := fs.String("node", "", ""), fs.String("source", "", ""), fs.String("run", "", "")
	for _, other := range []string{"bpffs", "cgroup", "netns", "uplink"} {
		fs.String(other, "", "")
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	socket := filepath.Join(*run, agent.Socket)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	seen := map[string]time.Time{}
	status := func() agent.Status {
		s := agent.Status{Node: *node, Applied: agent.Revision(objects.Files([]string{*source}, nil)), Pods: map[string]string{}}
		files, _ := filepath.Glob(*source + "/z.pod.*")
		for _, f := range files {
			b, _ := os.ReadFile(f)
			if !bytes.Contains(b, []byte("nodeName: "+*node)) {
				continue
			}
			if seen[f].IsZero() {
				seen[f] = time.Now()
			}
			key := strings.Replace(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "z.pod."), ".yaml"), ".", "/", 1)
			s.Pods[key] = "ready"
			if time.Since(seen[f]) < slow || os.Getenv("FAKE_AGENT") == "never" {
				s.Pods[key] = "pending: no listener"
			}
		}
		return s
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(status())
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Pods start when their agents are ready for them, and a lab is up when the agents
// have taken up its last state; agents that never are do not hold it up for ever.
func TestAgents(t *testing.T) {
	need.Root(t)
	before := left(t)
	small := manifest(t, strings.Replace(shop, "replicas: 4", "replicas: 1", 1))
	name := labName("agents")
	up := func() (*Status, string, error) {
		var said bytes.Buffer
		st, err := Up(t.Context(), Options{Name: name, Files: []string{small}, Out: &said})
		return st, said.String(), err
	}
	begin := time.Now()
	st, said, err := up()
	if err != nil || strings.Contains(said, "although") || strings.Contains(said, "older") || time.Since(begin) < slow {
		t.Errorf("after %s: %v\n%s", time.Since(begin), err, said)
	}
	if st.Nodes[0].Processes["agent"] != running || st.Nodes[1].Processes["proxy"] != running {
		t.Errorf("%+v", st.Nodes)
	}
	// One that was stopped does not come back by itself and is not waited for.
	if err := Stop(t.Context(), name, "node-1", "agent", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	st = apply(t, name, "apiVersion: v1\nkind: Namespace\nmetadata: {name: more}\n")
	if st.Nodes[0].Processes["agent"] != "stopped" || time.Since(begin) > agentLimit {
		t.Errorf("after %s: %+v", time.Since(begin), st.Nodes)
	}
	// One that died does.
	r, err := loadRecord(name)
	if err != nil {
		t.Fatal(err)
	}
	p := r.Daemons["node-2/agent"]
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := poll(t.Context(), 5*time.Second, time.Millisecond, func() (bool, error) { return !p.alive(), nil }); err != nil {
		t.Fatal(err)
	}
	if st = apply(t, name, ""); st.Nodes[1].Processes["agent"] != running {
		t.Errorf("%+v", st.Nodes)
	}
	if dirs, err := RunDirs(name); err != nil || len(dirs) != 2 || dirs[0] != st.Run+"/node-1" {
		t.Errorf("%v %v", dirs, err)
	}

	t.Setenv("FAKE_AGENT", "never")
	if _, said, err = up(); err != nil || !strings.Contains(said, "pod shop/web-1: started although its agent is not ready for it: pending: no listener") {
		t.Errorf("%v\n%s", err, said)
	}
	t.Setenv("FAKE_AGENT", "fails")
	if _, _, err = up(); err == nil || !strings.Contains(err.Error(), "no such kernel") {
		t.Errorf("agents that fail: %v", err)
	}
	wantSame(t, before)
}
