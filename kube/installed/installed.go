// SPDX-License-Identifier: Apache-2.0

// Package installed finds what of Fairlead is installed in a cluster, by the least that
// tells it: to list DaemonSets.
package installed

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/remote"
)

// Installation is one of a cluster's; there should be one.
type Installation struct {
	Namespace string
	Args      []string // of the agents, as its DaemonSet has them
}

// Find finds those of a cluster, sorted by namespace.
func Find(ctx context.Context, cfg *kube.Config) ([]Installation, error) {
	c, err := kube.RESTClient(cfg, appsv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	var sets appsv1.DaemonSetList
	err = c.Get().Resource("daemonsets").VersionedParams(&metav1.ListOptions{LabelSelector: remote.Agents}, scheme.ParameterCodec).Do(ctx).Into(&sets)
	if apierrors.IsNotFound(err) {
		return nil, nil // a server without workloads has none of ours
	}
	if err != nil {
		return nil, fmt.Errorf("look for an installation: %w", err)
	}
	var out []Installation
	for _, ds := range sets.Items {
		for _, c := range ds.Spec.Template.Spec.Containers {
			if c.Name == remote.Container {
				out = append(out, Installation{ds.Namespace, c.Args})
			}
		}
	}
	slices.SortFunc(out, func(a, b Installation) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return out, nil
}
