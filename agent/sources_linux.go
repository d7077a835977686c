// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators/objects"
)

// source gives the agent its objects.
type source interface {
	fmt.Stringer // what status calls it
	// run calls changed at first and then after every change, until the context ends.
	run(ctx context.Context, changed func()) error
	// load brings what is new into the pipeline. ok is false if that is nothing at all.
	load(p *pipeline.Pipeline) (l loaded, ok bool)
	// health is how it stands with the API server, nil if there is none.
	health() *kube.Health
}

// loaded is what load came to.
type loaded struct {
	changes  []incr.Change
	revision string
	problem  string // with the source
}

// newSource is the source that options name; its pipeline says what is read of it.
func newSource(o Options, p *pipeline.Pipeline) (source, error) {
	if o.APIServer == nil {
		if _, err := os.Stat(o.Source); err != nil {
			return nil, fmt.Errorf("read source: %w; nothing was changed", err)
		}
		return folder{o.Source, o.Log}, nil
	}
	s, err := kube.New(kube.Options{Config: o.APIServer, Registry: p.Registry(), Log: o.Log})
	if err != nil {
		return nil, err
	}
	return apiServer{s}, nil
}

// folder is a folder of manifests.
type folder struct {
	dir string
	log *slog.Logger
}

func (f folder) String() string { return f.dir }

func (f folder) run(ctx context.Context, changed func()) error {
	return watchFolder(ctx, f.log, f.dir, changed)
}

func (f folder) load(p *pipeline.Pipeline) (loaded, bool) {
	inputs := objects.Files([]string{f.dir}, nil)
	l := loaded{revision: Revision(inputs), changes: p.Load(inputs...)}
	if i := slices.IndexFunc(inputs, func(in objects.Input) bool { return in.Err != nil }); i >= 0 {
		l.problem = fmt.Sprintf("read source: %v; what it held stays in use", inputs[i].Err)
	}
	return l, true
}

func (f folder) health() *kube.Health { return nil }

// apiServer is the API server of a cluster. What is wrong with it is in its health.
type apiServer struct{ *kube.Source }

func (s apiServer) run(ctx context.Context, changed func()) error { return s.Run(ctx, changed) }

func (s apiServer) load(p *pipeline.Pipeline) (loaded, bool) {
	u, ok := s.Take()
	if !ok {
		return loaded{}, false
	}
	return loaded{changes: p.Apply(u.Edits), revision: u.Revision}, true
}

func (s apiServer) health() *kube.Health {
	h := s.Health()
	return &h
}
