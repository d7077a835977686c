// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/agent/swap"
	"fairlead.io/fairlead/kube/annotations"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// folderPlace is a folder, or file, of manifests.
type folderPlace struct {
	folder, namespace string
	runs              []string // of the agents that read it

	inputs []objects.Input // as they were read
	file   string          // that has the Namespace object
}

func (p *folderPlace) read(*cobra.Command) (content, error) {
	p.inputs = objects.Files([]string{p.folder}, nil)
	return content{inputs: p.inputs}, nil
}

func (p *folderPlace) owner(context.Context) (is, was string, err error) {
	if p.file, err = swap.File(p.inputs, p.namespace); err != nil {
		return "", "", err
	}
	text := p.inputs[slices.IndexFunc(p.inputs, func(in objects.Input) bool { return in.Name == p.file })].Data
	_, is, err = swap.SetOwner(text, p.namespace, swap.None)
	return is, swap.Previous(text, p.namespace), err
}

func (p *folderPlace) changed(*cobra.Command, func(content) (*diff.Report, error)) ([]string, error) {
	return swap.Changed(p.inputs, objects.Files([]string{p.folder}, nil)), nil
}

func (p *folderPlace) write(_ context.Context, from, plane string) error {
	return swap.WriteOwner(p.file, p.namespace, from, plane)
}

func (p *folderPlace) agents(context.Context) ([]asked, error) { return askedAt(p.runs), nil }

func (p *folderPlace) flags() string { return "-f " + p.folder }

// clusterPlace is an API server.
type clusterPlace struct {
	server     *server
	namespace  string
	namespaces *annotations.Client
	shown      content
}

func newClusterPlace(s *server, namespace string) (*clusterPlace, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	c, err := annotations.NewClient(cfg)
	return &clusterPlace{server: s, namespace: namespace, namespaces: c}, err
}

func (p *clusterPlace) read(c *cobra.Command) (content, error) {
	in := &input{server: p.server, pipeline: pipeline.Options{Agents: true}}
	_, read, err := in.read(c, "")
	p.shown = read
	return read, err
}

func (p *clusterPlace) owner(ctx context.Context) (is, was string, err error) {
	has, err := p.namespaces.Get(ctx, p.namespace)
	return cmp.Or(has[kubernetes.OwnerKey], swap.None), has[swap.PreviousKey], err
}

// changed shows the difference anew: in a cluster pods come and go, which does not matter.
func (p *clusterPlace) changed(c *cobra.Command, again func(content) (*diff.Report, error)) ([]string, error) {
	before, err := again(p.shown)
	if err != nil {
		return nil, err
	}
	now, err := p.read(c)
	if err != nil {
		return nil, err
	}
	after, err := again(now)
	if err != nil || reflect.DeepEqual(before, after) {
		return nil, err
	}
	return []string{"what a swap would do"}, nil
}

func (p *clusterPlace) write(ctx context.Context, from, plane string) error {
	return p.namespaces.Change(ctx, p.namespace, func(has map[string]string) (map[string]*string, error) {
		if is := cmp.Or(has[kubernetes.OwnerKey], swap.None); is != from {
			return nil, fmt.Errorf("namespace %s is %s's meanwhile, not %s's: it is left alone", p.namespace, is, from)
		}
		owner := &plane
		if plane == swap.None {
			owner = nil
		}
		return map[string]*string{kubernetes.OwnerKey: owner, swap.PreviousKey: &from}, nil
	})
}

// agents are those of all nodes; none if Fairlead is not installed there yet.
func (p *clusterPlace) agents(ctx context.Context) ([]asked, error) {
	return (&target{server: p.server}).installedAgents(ctx)
}

func (p *clusterPlace) flags() string {
	out := ""
	if p.server.kubeconfig != "" {
		out = "--kubeconfig " + p.server.kubeconfig
	}
	if p.server.context != "" {
		out = cmp.Or(out+" ", "") + "--context " + p.server.context
	}
	return out
}
