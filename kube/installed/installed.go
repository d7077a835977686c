// SPDX-License-Identifier: Apache-2.0

// Package installed finds what of Fairlead is installed in a cluster, by the least that
// tells it: to list DaemonSets.
package installed

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
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

// Operator is the one that leads, by its Lease.
type Operator struct {
	Namespace string    `json:"namespace,omitempty"`
	Holder    string    `json:"holder,omitempty"`  // "": none leads
	Version   string    `json:"version,omitempty"` // of the one that led last
	Renewed   time.Time `json:"renewed,omitzero"`  // by the holder, as its clock has it
	Problem   string    `json:"problem,omitempty"` // why nothing is known
}

// operators is the label selector of the operators' Leases.
const operators = "app.kubernetes.io/name=fairlead,app.kubernetes.io/component=operator"

// FindOperator finds the operator of a cluster, nil if there is none. Who may not list Leases
// is told so in it.
func FindOperator(ctx context.Context, cfg *kube.Config) (*Operator, error) {
	c, err := kube.RESTClient(cfg, coordinationv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	var leases coordinationv1.LeaseList
	err = c.Get().Resource("leases").VersionedParams(&metav1.ListOptions{LabelSelector: operators}, scheme.ParameterCodec).Do(ctx).Into(&leases)
	if apierrors.IsForbidden(err) {
		return &Operator{Problem: err.Error()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the operator's Lease: %w", err)
	}
	if len(leases.Items) == 0 {
		return nil, nil
	}
	slices.SortFunc(leases.Items, func(a, b coordinationv1.Lease) int { return cmp.Compare(a.Namespace, b.Namespace) })
	l := leases.Items[0]
	o := &Operator{Namespace: l.Namespace, Version: l.Annotations[kube.VersionKey]}
	if l.Spec.HolderIdentity != nil {
		o.Holder = *l.Spec.HolderIdentity
	}
	if l.Spec.RenewTime != nil {
		o.Renewed = l.Spec.RenewTime.Time
	}
	return o, nil
}
