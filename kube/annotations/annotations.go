// SPDX-License-Identifier: Apache-2.0

// Package annotations changes annotations of namespaces, which is how people tell Fairlead
// what is to hold there.
package annotations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"fairlead.io/fairlead/kube"
)

// Client speaks to an API server about namespaces.
type Client struct{ rest *rest.RESTClient }

// NewClient returns a client; it connects when it is used.
func NewClient(cfg *rest.Config) (*Client, error) {
	out, err := kube.RESTClient(cfg, corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	return &Client{out}, nil
}

// Get reads the annotations of a namespace.
func (c *Client) Get(ctx context.Context, namespace string) (map[string]string, error) {
	ns, err := c.get(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return ns.Annotations, nil
}

func (c *Client) get(ctx context.Context, namespace string) (*corev1.Namespace, error) {
	var ns corev1.Namespace
	if err := c.rest.Get().Resource("namespaces").Name(namespace).Do(ctx).Into(&ns); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", namespace, err)
	}
	return &ns, nil
}

// Edit says which annotations are to be as what, nil for none, given those that there are.
// An error leaves the namespace alone.
type Edit func(now map[string]string) (map[string]*string, error)

// manager is who wrote, as the objects' managedFields tell it.
const manager = "fairlead"

// Change edits the annotations of a namespace in one write. If somebody else writes between
// the reading and the write, edit is asked again.
func (c *Client) Change(ctx context.Context, namespace string, edit Edit) error {
	for {
		ns, err := c.get(ctx, namespace)
		if err != nil {
			return err
		}
		values, err := edit(ns.Annotations)
		if err != nil {
			return err
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": ns.UID, "resourceVersion": ns.ResourceVersion, "annotations": values,
		}})
		if err != nil {
			return fmt.Errorf("write namespace %s: %w", namespace, err)
		}
		err = c.rest.Patch(types.MergePatchType).Resource("namespaces").Name(namespace).Param("fieldManager", manager).Body(patch).Do(ctx).Error()
		switch {
		case err == nil:
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("write namespace %s: %w", namespace, err)
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), err)
		}
	}
}
