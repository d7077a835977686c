// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Applied are the labels and annotations of a namespace that were applied from files: what
// the files lack is taken away by applying them again. Both are sorted.
type Applied struct{ Labels, Annotations []string }

// appliers are who applies files on the server's side, by the names that they give
// themselves. Others who do so, as controllers that label namespaces, apply no files.
var appliers = []string{"kubectl", "kustomize-controller", "argocd-controller"}

// Applied reads what was applied to a namespace; nothing if there is no such namespace.
func (c *Client) Applied(ctx context.Context, namespace string) (Applied, error) {
	ns, err := c.get(ctx, namespace)
	if apierrors.IsNotFound(err) {
		return Applied{}, nil
	}
	if err != nil {
		return Applied{}, err
	}
	return applied(&ns.ObjectMeta)
}

func applied(meta *metav1.ObjectMeta) (Applied, error) {
	labels, notes := map[string]bool{}, map[string]bool{}
	// kubectl apply goes by its copy of what it applied last, whoever has written since.
	if text, ok := meta.Annotations[corev1.LastAppliedConfigAnnotation]; ok {
		var last struct {
			Metadata struct {
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			return Applied{}, fmt.Errorf("read annotation %s of namespace %s: %w", corev1.LastAppliedConfigAnnotation, meta.Name, err)
		}
		add(labels, slices.Collect(maps.Keys(last.Metadata.Labels)))
		add(notes, slices.Collect(maps.Keys(last.Metadata.Annotations)))
	}
	// The server takes away what only the applier has written.
	others := map[bool]map[string]bool{false: {}, true: {}}
	ours := map[bool]map[string]bool{false: {}, true: {}}
	for _, m := range meta.ManagedFields {
		of, err := fieldsOf(m)
		if err != nil {
			return Applied{}, fmt.Errorf("read who wrote namespace %s: %w", meta.Name, err)
		}
		into := others
		if m.Operation == metav1.ManagedFieldsOperationApply && slices.Contains(appliers, m.Manager) {
			into = ours
		}
		add(into[false], of.Labels)
		add(into[true], of.Annotations)
	}
	for isNote, all := range ours {
		for key := range all {
			switch {
			case others[isNote][key]:
			case isNote:
				notes[key] = true
			default:
				labels[key] = true
			}
		}
	}
	return Applied{slices.Sorted(maps.Keys(labels)), slices.Sorted(maps.Keys(notes))}, nil
}

func add(to map[string]bool, keys []string) {
	for _, k := range keys {
		to[k] = true
	}
}

// fieldsOf are the labels and annotations that one manager has written.
func fieldsOf(m metav1.ManagedFieldsEntry) (Applied, error) {
	var fields struct {
		Metadata struct {
			Labels      map[string]json.RawMessage `json:"f:labels"`
			Annotations map[string]json.RawMessage `json:"f:annotations"`
		} `json:"f:metadata"`
	}
	if m.FieldsV1 == nil || m.Subresource != "" {
		return Applied{}, nil
	}
	if err := json.Unmarshal(m.FieldsV1.Raw, &fields); err != nil {
		return Applied{}, err
	}
	return Applied{names(fields.Metadata.Labels), names(fields.Metadata.Annotations)}, nil
}

func names(fields map[string]json.RawMessage) []string {
	var out []string
	for f := range fields {
		if name, ok := strings.CutPrefix(f, "f:"); ok { // "." is the map itself
			out = append(out, name)
		}
	}
	return out
}
