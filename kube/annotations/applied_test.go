// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func wrote(manager string, op metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: op, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)}}
}

// What was applied from files is told by kubectl's copy, or by the server's own books.
func TestApplied(t *testing.T) {
	const deny = `{"f:metadata": {"f:annotations": {".": {}, "f:fairlead.io/default-deny": {}}, "f:labels": {"f:team": {}}}}`
	last := map[string]string{corev1.LastAppliedConfigAnnotation: `{"metadata": {"name": "shop", "labels": {"team": "a"}, "annotations": {"fairlead.io/default-deny": "smi"}}}`}
	const both, none = "{[team] [fairlead.io/default-deny]}", "{[] []}"
	for name, c := range map[string]struct {
		meta metav1.ObjectMeta
		want string
	}{
		"nobody":               {metav1.ObjectMeta{}, none},
		"kubectl":              {metav1.ObjectMeta{Annotations: last}, both},
		"kubectl, then others": {metav1.ObjectMeta{Annotations: last, ManagedFields: []metav1.ManagedFieldsEntry{wrote("edit", "Update", deny)}}, both},
		"on the server's side": {metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{wrote("kubectl", "Apply", deny)}}, both},
		"by Flux":              {metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{wrote("kustomize-controller", "Apply", deny)}}, both},
		"that others want, too": {metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{wrote("kubectl", "Apply", deny),
			wrote("fairlead", "Update", `{"f:metadata": {"f:annotations": {"f:fairlead.io/default-deny": {}}}}`)}}, "{[team] []}"},
		"by a controller": {metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{wrote("tenants", "Apply", deny)}}, none},
		"by hand":         {metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{wrote("kubectl-annotate", "Update", deny)}}, none},
	} {
		got, err := applied(&c.meta)
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.want)
		}
	}
	for name, meta := range map[string]metav1.ObjectMeta{
		"a copy that is none": {Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{"}},
		"books that are none": {ManagedFields: []metav1.ManagedFieldsEntry{wrote("kubectl", "Apply", "[")}},
	} {
		if got, err := applied(&meta); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
