// SPDX-License-Identifier: Apache-2.0

// Package ours is Fairlead's half: the pipeline's plan of a node, rendered, served by the
// node proxy to its Envoy as on every node. The kernel alone is stood in for.
package ours

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/serve"

	"fairlead.io/fairlead/conformance/istio/wire"
	"fairlead.io/fairlead/conformance/istio/world"
)

// Node whose plan is run: all clients are on it.
const Node = "node-1"

// Half runs scenarios as Fairlead does, one after the other as changes of the same node.
type Half struct {
	dir      string
	version  string // of Istio, that pipe is for
	pipe     *pipeline.Pipeline
	renderer *agent.Renderer
	feed     *serve.Server
	kernel   *kernel
	stop     []func()

	// What was found of the scenario that is loaded, and what was rejected or could not be
	// rendered.
	diagnostics []model.Diagnostic
	rejected    []string
}

// New starts a node proxy.
func New(envoy string) (*Half, error) {
	h := &Half{}
	var err error
	if h.pipe, err = pipeline.New(pipeline.Options{Node: Node}); err != nil {
		return nil, err
	}
	if h.renderer, err = agent.NewRenderer(); err != nil {
		return nil, err
	}
	if h.dir, err = os.MkdirTemp("", "ours"); err != nil {
		return nil, err
	}
	h.stop = append(h.stop, func() { os.RemoveAll(h.dir) })
	if err := os.Chmod(h.dir, 0o755); err != nil {
		return nil, err
	}
	h.feed = serve.New(serve.Options{StandIn: proxy.StandIn}, h.renderer.All())
	if err := h.serve(proxy.PathsIn(h.dir).Feed, -1, h.feed.Register); err != nil {
		return nil, err
	}
	logs := accesslog.New(1) // nobody reads them
	if err := h.serve(proxy.PathsIn(h.dir).AccessLog, proxy.DefaultUID, logs.Register); err != nil {
		return nil, err
	}
	return h, h.startProxy(envoy)
}

func (h *Half) serve(path string, uid int, register func(*grpc.Server)) error {
	l, err := proxy.Listen(path, uid)
	if err != nil {
		return err
	}
	g := grpc.NewServer(serve.GRPCOptions()...)
	register(g)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	h.stop = append(h.stop, func() { g.Stop(); done.Wait() })
	return nil
}

func (h *Half) startProxy(envoy string) error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- proxy.Run(ctx, proxy.Options{Node: Node, RunDir: h.dir, EnvoyPath: envoy, Concurrency: 1, DrainTime: time.Second,
			Log: slog.New(slog.DiscardHandler)})
	}()
	h.stop = append(h.stop, func() { cancel(); <-ended })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s, err := proxy.ReadStatus(ctx, h.dir); err == nil && s.Envoy.Connected && s.Envoy.State == "LIVE" {
			return nil
		}
	}
	return errors.New("the node proxy's Envoy did not get ready")
}

// Load applies a scenario in place of the one before, in an agent's order. Objects of the
// one before are taken away first, by themselves: an object that is not valid would leave
// an earlier one of its name in use.
func (h *Half) Load(s *world.Scenario) error {
	empty := *s
	empty.Istio = ""
	last := map[change]serve.Change{}
	for _, part := range []*world.Scenario{&empty, s} {
		changes, err := h.plan(part)
		if err != nil {
			return err
		}
		for _, c := range h.renderer.Take(changes) {
			last[change{c.Type, c.Name}] = c
		}
	}
	h.diagnostics = h.pipe.Diagnostics()
	h.rejected = nil
	var sets, deletes []serve.Change
	for _, c := range last {
		if c.Resource != nil {
			sets = append(sets, c)
		} else {
			deletes = append(deletes, c)
		}
	}
	if err := h.renderer.Errors(); err != nil {
		h.rejected = strings.Split(err.Error(), "\n")
	}
	for _, part := range [][]serve.Change{sets, deletes} {
		if err := h.push(part); err != nil {
			return err
		}
	}
	h.kernel = newKernel(h.pipe, h.renderer.Ports())
	return nil
}

type change struct{ typ, name string }

func (h *Half) push(changes []serve.Change) error {
	if len(changes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := h.feed.Push(ctx, changes)
	if err != nil {
		return fmt.Errorf("Envoy does not acknowledge: %w", err)
	}
	for _, r := range out.Rejected {
		h.rejected = append(h.rejected, r.Name+": "+r.Detail)
	}
	return nil
}

// plan computes the node's plan. Another version of Istio is another pipeline, of which
// all rows are changes.
func (h *Half) plan(s *world.Scenario) ([]incr.Change, error) {
	inputs := Inputs(s)
	if s.Version == h.version {
		return h.pipe.Load(inputs...), nil
	}
	p, err := pipeline.New(pipeline.Options{Node: Node, IstioVersion: s.Version})
	if err != nil {
		return nil, err
	}
	p.Load(inputs...)
	var changes []incr.Change
	for _, t := range plan.EnvoyTables() {
		gone := map[string]bool{}
		for _, r := range h.pipe.Rows(t) {
			gone[r.Key] = true
		}
		for _, r := range p.Rows(t) {
			delete(gone, r.Key)
			changes = append(changes, incr.Change{Table: t, Key: r.Key, New: r.Value})
		}
		for k := range gone {
			changes = append(changes, incr.Change{Table: t, Key: k})
		}
	}
	h.pipe, h.version = p, s.Version
	return changes, nil
}

// Inputs are a scenario's objects as the agent reads them.
func Inputs(s *world.Scenario) []objects.Input {
	objs := s.World.Objects(nil)
	if s.Mesh != "" {
		objs = append(objs, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    "+
			strings.ReplaceAll(strings.TrimSpace(s.Mesh), "\n", "\n    ")+"\n")
	}
	return []objects.Input{
		{Name: "world.yaml", Data: []byte(strings.Join(objs, "\n---\n"))},
		{Name: "istio.yaml", Data: []byte(s.Istio)},
	}
}

// Way is how the pod's connections go.
func (h *Half) Way(p *world.Pod, dst netip.AddrPort) wire.Way { return h.kernel.way(p.Addr, dst) }

// Judge is what guards pods.
func (h *Half) Judge() func(from, to netip.AddrPort) bool { return h.kernel.admit }

// Close ends it.
func (h *Half) Close() {
	for _, f := range slices.Backward(h.stop) {
		f()
	}
}

// Found are the diagnostics of the scenario that is loaded, and what was rejected.
func (h *Half) Found() ([]model.Diagnostic, []string) { return h.diagnostics, h.rejected }
