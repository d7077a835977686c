// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"fairlead.io/fairlead/translators/objects"
)

// Stored is what an API server has of an object that is not for translators: what one
// must know to write its status.
type Stored struct {
	Resource schema.GroupVersionResource // the version that it was read in
	// Writable: the resource has a subresource for status. One without it takes none.
	Writable bool

	UID             string
	ResourceVersion string
	Generation      int64
	Deleting        bool
	Status          map[string]any // as it stands; nil: there is none. Not to be changed
}

// stored copies what counts of an object, which is trimmed afterwards.
func (s served) stored(u *unstructured.Unstructured) *Stored {
	out := &Stored{Resource: s.gvr(), Writable: s.status, UID: string(u.GetUID()), ResourceVersion: u.GetResourceVersion(),
		Generation: u.GetGeneration(), Deleting: u.GetDeletionTimestamp() != nil}
	if status, ok := u.Object["status"].(map[string]any); ok {
		out.Status = runtime.DeepCopyJSON(status)
	}
	return out
}

// store notes what an API server has of an object; nil: it is gone. It is called with mu
// held, before put, so that both are handed out together.
func (s *Source) store(ref objects.Ref, st *Stored) {
	if ref.Name == "" || !slices.Contains(s.statuses, ref.Kind) {
		return
	}
	s.stored[ref] = st
	if s.whole {
		s.wake()
	}
}
