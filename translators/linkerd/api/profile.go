// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServiceProfile is linkerd.io/v1alpha1 and v1alpha2. Its name is that of a service in
// DNS.
type ServiceProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec struct {
		Routes       []ProfileRoute `json:"routes,omitempty"`
		RetryBudget  *RetryBudget   `json:"retryBudget,omitempty"`
		DstOverrides []WeightedDst  `json:"dstOverrides,omitempty"`
		OpaquePorts  []string       `json:"opaquePorts,omitempty"`
	} `json:"spec"`
}

// ProfileRoute is a route of a ServiceProfile.
type ProfileRoute struct {
	Name            string          `json:"name"`
	Condition       *RequestMatch   `json:"condition,omitempty"`
	ResponseClasses []ResponseClass `json:"responseClasses,omitempty"`
	IsRetryable     bool            `json:"isRetryable,omitempty"`
	Timeout         string          `json:"timeout,omitempty"`
}

// RequestMatch is a condition on requests: all of what is set must hold.
type RequestMatch struct {
	All       []RequestMatch `json:"all,omitempty"`
	Any       []RequestMatch `json:"any,omitempty"`
	Not       NotMatches     `json:"not,omitempty"`
	PathRegex string         `json:"pathRegex,omitempty"`
	Method    string         `json:"method,omitempty"`
}

// NotMatches are conditions of which none may hold. Linkerd's CRD has a list, and its
// Go type one condition alone: both are taken.
type NotMatches []RequestMatch

// UnmarshalJSON implements json.Unmarshaler for both shapes.
func (n *NotMatches) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		b = append(append([]byte{'['}, b...), ']')
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var list []RequestMatch
	if err := d.Decode(&list); err != nil {
		return fmt.Errorf("not must be a condition, or a list of conditions: %w", err)
	}
	*n = list
	return nil
}

// ResponseClass tells answers that are failures.
type ResponseClass struct {
	Condition *ResponseMatch `json:"condition,omitempty"`
	IsFailure bool           `json:"isFailure,omitempty"`
}

// ResponseMatch is a condition on answers: all of what is set must hold.
type ResponseMatch struct {
	All    []ResponseMatch `json:"all,omitempty"`
	Any    []ResponseMatch `json:"any,omitempty"`
	Not    *ResponseMatch  `json:"not,omitempty"`
	Status *Range          `json:"status,omitempty"`
}

// Range of statuses, both ends in it.
type Range struct {
	Min uint32 `json:"min,omitempty"`
	Max uint32 `json:"max,omitempty"`
}

// RetryBudget bounds retries by the number of requests.
type RetryBudget struct {
	RetryRatio          float32 `json:"retryRatio"`
	MinRetriesPerSecond uint32  `json:"minRetriesPerSecond"`
	TTL                 string  `json:"ttl"`
}

// WeightedDst is a backend.
type WeightedDst struct {
	Authority string            `json:"authority"`
	Weight    resource.Quantity `json:"weight"`
}
