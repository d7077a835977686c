// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var errRival = errors.New("another agent renews it")

// answered reports whether an API server has answered at all.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.Is(err, errRival) || errors.As(err, &status) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err)
}

// explain says what keeps the Lease from being renewed, and what to do about it.
func (w *Writer) explain(err error) string {
	name := fmt.Sprintf("the Lease %s/%s", w.opts.Namespace, w.opts.Node)
	switch {
	case errors.Is(err, errRival):
		return fmt.Sprintf("%s is renewed by another agent, %s: give each node's agent the name of its own node, or remove one of two installations", name, w.rival)
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("%s may not be written (403): allow get, create and update of leases in that namespace by a Role", name)
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("%s cannot be made: is there a namespace %s? (%v)", name, w.opts.Namespace, err)
	case apierrors.IsConflict(err) && w.rival != "":
		return fmt.Sprintf("%s was written by another agent, %s: give each node's agent the name of its own node, or remove one of two installations", name, w.rival)
	case !answered(err):
		return "the API server does not answer"
	}
	return fmt.Sprintf("%s cannot be written: %v", name, err)
}
