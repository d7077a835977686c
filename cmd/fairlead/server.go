// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/check"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/translators/objects"
)

// server is the flags that name an API server to read from.
type server struct {
	kubeconfig, context string
	inCluster           bool
	usual               bool // where only a context is named, the files are those that kubectl reads
	here                bool // nothing was named: it is the one that kubectl would speak to

	settings *check.Settings // what is judged by; see settle
}

func serverFlags(c *cobra.Command) *server {
	s := &server{}
	s.fileFlags(c, "kubeconfig file of the cluster whose objects are read")
	c.Flags().BoolVar(&s.inCluster, "in-cluster", false, "read the objects of the cluster that this runs in, by the pod's service account")
	return s
}

// fileFlags are those that name a kubeconfig.
func (s *server) fileFlags(c *cobra.Command, usage string) {
	c.Flags().StringVar(&s.kubeconfig, "kubeconfig", "", usage)
	c.Flags().StringVar(&s.context, "context", "", "context of the kubeconfig (default: its current one)")
}

// named reports whether there is an API server to read from.
func (s *server) named() bool {
	return s != nil && (s.kubeconfig != "" || s.inCluster || s.here || s.usual && s.context != "")
}

// config is how to reach it.
func (s *server) config() (*kube.Config, error) {
	switch {
	case s.kubeconfig != "" && s.inCluster:
		return nil, usageError("name one API server: --kubeconfig or --in-cluster")
	case s.context != "" && s.kubeconfig == "" && !s.usual:
		return nil, usageError("--context %s needs --kubeconfig: the file that has it", s.context)
	case s.inCluster:
		return kube.InCluster()
	}
	return kube.FromKubeconfig(s.kubeconfig, s.context)
}

// readLimit is how long a command waits for all objects of a cluster.
const readLimit = time.Minute

var errSlow = fmt.Errorf("the API server has not answered within %s", readLimit)

// read reads all objects of the cluster.
func (s *server) read(c *cobra.Command, r *objects.Registry) (*objects.Batch, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context(), readLimit)
	defer cancel()
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	edits, err := kube.Read(ctx, kube.Options{Config: cfg, Registry: r, Log: log})
	if err != nil {
		return nil, err
	}
	return objects.BatchOf(edits), nil
}

// content is what was read: texts, or the objects of a cluster.
type content struct {
	inputs []objects.Input
	served *objects.Batch // nil: there are texts
}

// written is what its authors wrote.
func (m content) written(p *pipeline.Pipeline) *objects.Batch {
	if m.served != nil {
		return m.served
	}
	return objects.Decode(p.Registry(), m.inputs...)
}

// placed is the content with its workloads on nodes: see placed. Those of a cluster are.
func (m content) placed(p *pipeline.Pipeline, node string) *objects.Batch {
	if m.served != nil {
		return m.served
	}
	return placed(p, m.inputs, node)
}

// noNode says that a node which was named is not there.
func (m content) noNode(p *pipeline.Pipeline, node string) error {
	has, they := "the manifests have", "they have"
	if m.served != nil {
		has, they = "the cluster has", "it has"
	}
	return usageError("%s no node %s; %s %s", has, node, they, strings.Join(nodeNames(p), ", "))
}
