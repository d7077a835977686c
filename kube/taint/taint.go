// SPDX-License-Identifier: Apache-2.0

// Package taint takes a taint off nodes when their agents guard what starts there. Nodes are
// made with it, so that no pod is scheduled to them before that does not tolerate it.
package taint

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/translators/kubernetes"
)

const (
	// every is how often it is looked whether a node that waits may begin.
	every = 2 * time.Second
	// nodesEvery is how often nodes are looked through for those that wait, though none is
	// new, and nodesAtOnce how many are asked for at once.
	nodesEvery  = time.Minute
	nodesAtOnce = 500
)

// Options say which taint, and where agents tell of themselves.
type Options struct {
	Config    *kube.Config
	Namespace string          // of the agents' Leases
	Key       string          // of the taint
	Newer     <-chan struct{} // there is a node that was not there before; nil: they are found in time
	Log       *slog.Logger
}

// Remover takes the taint off; it belongs to the goroutine that runs it.
type Remover struct {
	o      Options
	nodes  core.NodeInterface
	leases coordination.LeaseInterface

	waiting map[string]bool
	looked  time.Time
	said    string
	// renewed is what the Lease of a node that waits said when it was looked at first: how
	// old it is, no clock of another machine tells for sure.
	renewed map[string]metav1.MicroTime
}

// New asks the API server nothing yet.
func New(o Options) (*Remover, error) {
	cfg := kube.Prepare(o.Config)
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	c, err := core.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", cfg.Host, err)
	}
	l, err := coordination.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", cfg.Host, err)
	}
	return &Remover{o: o, nodes: c.Nodes(), leases: l.Leases(o.Namespace), waiting: map[string]bool{}, renewed: map[string]metav1.MicroTime{}}, nil
}

// Run goes on until the context ends. What fails is tried again.
func (t *Remover) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	t.looked = time.Time{} // another may have led meanwhile
	clear(t.renewed)
	for {
		err := t.round(ctx)
		if ctx.Err() != nil {
			return
		}
		t.say(err)
		select {
		case <-ctx.Done():
			return
		case <-t.o.Newer:
			t.looked = time.Time{}
		case <-tick.C:
		}
	}
}

func (t *Remover) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != t.said {
		t.o.Log.Warn("startup taints stay", "taint", t.o.Key, "problem", text)
	}
	t.said = text
}

func (t *Remover) round(ctx context.Context) error {
	if now := time.Now(); now.Sub(t.looked) >= nodesEvery {
		if err := t.find(ctx); err != nil {
			return fmt.Errorf("list nodes: %w", err)
		}
		t.looked = now
	}
	var first error
	for name := range t.waiting {
		// A node that changes meanwhile is looked at again.
		if err := t.judge(ctx, name); err != nil && !apierrors.IsConflict(err) && first == nil {
			first = fmt.Errorf("node %s: %w", name, err)
		}
	}
	return first
}

// find notes who waits.
func (t *Remover) find(ctx context.Context) error {
	waiting := map[string]bool{}
	for next := ""; ; {
		page, err := t.nodes.List(ctx, metav1.ListOptions{Limit: nodesAtOnce, Continue: next})
		if err != nil {
			return err
		}
		for _, n := range page.Items {
			if t.on(&n) >= 0 {
				waiting[n.Name] = true
			}
		}
		if next = page.Continue; next == "" {
			break
		}
	}
	t.waiting = waiting
	for name := range t.renewed {
		if !waiting[name] {
			delete(t.renewed, name)
		}
	}
	return nil
}

// on is where a node has the taint, -1 if it has not.
func (t *Remover) on(n *corev1.Node) int {
	return slices.IndexFunc(n.Spec.Taints, func(x corev1.Taint) bool { return x.Key == t.o.Key })
}

// judge takes the taint off a node that need not wait any longer.
func (t *Remover) judge(ctx context.Context, name string) error {
	lease, err := t.leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // its agent has not begun
	}
	if err != nil {
		return err
	}
	if !t.guards(lease) {
		return nil
	}
	n, err := t.nodes.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		delete(t.waiting, name)
		return nil
	}
	if err != nil {
		return err
	}
	if uid := lease.Annotations[kubernetes.NodeUIDKey]; uid != string(n.UID) {
		return nil // it is of a node of that name that was there before
	}
	if t.on(n) >= 0 {
		if err := t.remove(ctx, n); err != nil {
			return err
		}
		t.o.Log.Info("the node's agent is ready: its startup taint is taken off", "node", name, "taint", t.o.Key)
	}
	delete(t.waiting, name)
	delete(t.renewed, name)
	return nil
}

// guards reports whether a Lease is renewed by an agent that is up to date, and whose plugin
// is called before a pod starts.
func (t *Remover) guards(l *coordinationv1.Lease) bool {
	if l.Spec.RenewTime == nil || l.Annotations[kubernetes.BehindKey] != "" || l.Annotations[kube.GuardsKey] == "" {
		return false
	}
	was, ok := t.renewed[l.Name]
	if !ok {
		t.renewed[l.Name] = *l.Spec.RenewTime
		return false
	}
	return !was.Equal(l.Spec.RenewTime)
}

// remove writes the node's taints without it, unless the node has changed meanwhile.
func (t *Remover) remove(ctx context.Context, n *corev1.Node) error {
	left := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(x corev1.Taint) bool { return x.Key == t.o.Key })
	var to any // none: the field goes
	if len(left) > 0 {
		to = left
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": n.ResourceVersion, "uid": n.UID},
		"spec":     map[string]any{"taints": to},
	})
	if err != nil {
		return err
	}
	_, err = t.nodes.Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
