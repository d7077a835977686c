// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"fairlead.io/fairlead/kube"
)

// flapTime is how long a place must be lost: those who label nodes take labels away for a
// moment as they are restarted, and a DaemonSet comes back then.
const flapTime = 5 * time.Second

// Place is a node's place in a DaemonSet that is there: whether it still wants a pod on it.
type Place struct {
	ref          Ref
	node         string
	apps, core   *rest.RESTClient
	log          *slog.Logger
	pause, retry time.Duration

	mu sync.Mutex
	// As it was when the place was found; "" before.
	uid         types.UID
	tolerations []corev1.Toleration
}

// NewPlace returns a node's place in a DaemonSet, of which nothing is known yet.
func NewPlace(cfg *rest.Config, ref Ref, node string, log *slog.Logger) (*Place, error) {
	c := rest.CopyConfig(cfg)
	c.WarningHandler = rest.NoWarnings{}
	apps, err := kube.RESTClient(c, appsv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	core, err := kube.RESTClient(c, corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &Place{ref: ref, node: node, apps: apps, core: core, log: log, pause: flapTime, retry: retry}, nil
}

// Run notes how the place was when there was one: what is not known to have been there is
// never lost. It ends when the API server has answered, or the context ends.
func (p *Place) Run(ctx context.Context) {
	told := false
	for {
		ds, node, err := p.look(ctx)
		if err == nil {
			p.note(ds, node)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			p.log.Warn("cannot see whether this node is one of those that are chosen: until then it is taken for one",
				"owner", p.ref.String(), "node", p.node, "error", err, "advice", "allow get of nodes by a ClusterRole, and of this DaemonSet by a Role")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.retry):
		}
	}
}

func (p *Place) note(ds *appsv1.DaemonSet, node *corev1.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why := misfit(ds, node, ds.Spec.Template.Spec.Tolerations); why != "" {
		p.log.Info("the DaemonSet does not want its pod on this node", "owner", p.ref.String(), "node", p.node, "why", why)
		return
	}
	p.uid, p.tolerations = node.UID, ds.Spec.Template.Spec.Tolerations
}

// Lost reports why the DaemonSet has no more place for its pod on the node; "" if it has, or
// if that cannot be said. Only what the API server says now of this very Node counts, and
// says twice: one that is missing, or was made anew and has not got its labels yet, is no
// word about who was chosen.
func (p *Place) Lost(ctx context.Context) string {
	why := p.lost(ctx)
	if why == "" {
		return ""
	}
	select {
	case <-ctx.Done():
		return ""
	case <-time.After(p.pause):
	}
	return p.lost(ctx)
}

func (p *Place) lost(ctx context.Context) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.uid == "" {
		return ""
	}
	ds, node, err := p.look(ctx)
	if err != nil {
		p.log.Info("cannot ask whether this node is still chosen: it is taken for one that is", "owner", p.ref.String(), "node", p.node, "error", err)
		return ""
	}
	if node.UID != p.uid || node.DeletionTimestamp != nil {
		p.log.Info("the Node is not the one that it was: whether it is chosen will show", "node", p.node)
		return ""
	}
	return misfit(ds, node, p.tolerations)
}

// look asks for both; neither comes from a cache, as there is no resourceVersion.
func (p *Place) look(ctx context.Context) (*appsv1.DaemonSet, *corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var ds appsv1.DaemonSet
	if err := p.apps.Get().Namespace(p.ref.Namespace).Resource(p.ref.Resource).Name(p.ref.Name).Do(ctx).Into(&ds); err != nil {
		return nil, nil, fmt.Errorf("get %s: %w", p.ref, err)
	}
	var node corev1.Node
	if err := p.core.Get().Resource("nodes").Name(p.node).Do(ctx).Into(&node); err != nil {
		return nil, nil, fmt.Errorf("get node %s: %w", p.node, err)
	}
	if ds.Name != p.ref.Name || node.Name != p.node || node.UID == "" {
		return nil, nil, fmt.Errorf("get %s and node %s: the answer is of something else", p.ref, p.node)
	}
	return &ds, &node, nil
}

// misfit says why a DaemonSet wants no pod on a node, as its controller decides it; "" if it
// wants one. A taint counts if it was tolerated before: one that is new on the node takes
// its pods away as well, and comes and goes with the node's upkeep.
func misfit(ds *appsv1.DaemonSet, node *corev1.Node, before []corev1.Toleration) string {
	spec := &ds.Spec.Template.Spec
	if spec.NodeName != "" && spec.NodeName != node.Name {
		return "nodeName is " + spec.NodeName
	}
	fits, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *spec}).Match(node)
	if err == nil && !fits {
		return "its nodeSelector or affinity does not choose it"
	}
	now := append(given(spec), spec.Tolerations...)
	for _, taint := range node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			continue
		}
		if tolerates(before, &taint) && !tolerates(now, &taint) {
			return "its tolerations have no place any more for the taint " + taint.ToString()
		}
	}
	return ""
}

func tolerates(by []corev1.Toleration, taint *corev1.Taint) bool {
	return scheduling.TolerationsTolerateTaint(klog.Background(), by, taint, true)
}

// given are the tolerations that each pod of a DaemonSet has beside its own.
func given(spec *corev1.PodSpec) []corev1.Toleration {
	var out []corev1.Toleration
	add := func(key string, effect corev1.TaintEffect) {
		out = append(out, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect})
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		add(key, corev1.TaintEffectNoExecute)
	}
	for _, key := range []string{corev1.TaintNodeDiskPressure, corev1.TaintNodeMemoryPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeUnschedulable} {
		add(key, corev1.TaintEffectNoSchedule)
	}
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return out
}
