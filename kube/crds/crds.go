// SPDX-License-Identifier: Apache-2.0

// Package crds gives a cluster the CustomResourceDefinitions that it lacks. One that is
// there already and was not made here is adopted: it stays as it is.
package crds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/kube"
)

const (
	// contentKey is the annotation that says that a definition was made here, and of what:
	// a hash of the manifest.
	contentKey                = "fairlead.io/installed-definition"
	managedByLabel, managedBy = "app.kubernetes.io/managed-by", "fairlead"
	fieldManager              = "fairlead"
	writeLimit                = 10 * time.Second
	tries                     = 5 // against others who write at the same time
)

// Outcome says what became of a definition.
type Outcome string

const (
	Installed Outcome = "installed"
	Updated   Outcome = "updated"   // one that was made here, and differed
	AsItWas   Outcome = "as it was" // made here
	Adopted   Outcome = "adopted"   // made by another: nothing was changed
	Missing   Outcome = "missing"   // of Look
)

// Result is what became of one definition.
type Result struct {
	Name    string   `json:"name"`
	Outcome Outcome  `json:"outcome"`
	Serves  []string `json:"serves"` // versions, in the order of the definition
	// Lacks are versions that Fairlead's own definition serves and an adopted one does not:
	// the API server takes no objects of them.
	Lacks []string `json:"lacks,omitempty"`
	// Drops are fields that the API server takes away from objects by an adopted one.
	Drops []Drop `json:"drops,omitempty"`
}

// String is what people read.
func (r Result) String() string {
	s := fmt.Sprintf("%s: %s; it serves %s", r.Name, r.Outcome, strings.Join(r.Serves, ", "))
	if why := r.Problem(); why != "" {
		s += "; " + why
	}
	return s
}

// Problem is what a user may miss with an adopted definition; "": nothing.
func (r Result) Problem() string {
	var all []string
	if len(r.Lacks) > 0 {
		all = append(all, "it does not serve "+strings.Join(r.Lacks, ", ")+", so that objects of these versions cannot be applied")
	}
	for _, d := range r.Drops {
		all = append(all, fmt.Sprintf("of objects written or read as %s it drops %s", strings.Join(d.Versions, ", "), strings.Join(d.Fields, ", ")))
	}
	if len(r.Drops) > 0 {
		all = append(all, loss(r.Name))
	}
	return strings.Join(all, "; ")
}

// Advice is what to do about a problem.
func (r Result) Advice() string {
	return fmt.Sprintf("have a definition that serves every version and keeps every field: kubectl apply -f deploy/crds, unless who made %s writes it back; then apply its objects again, as what was dropped is lost", r.Name)
}

var resource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Install gives a cluster the definitions that it lacks, and brings those that were made
// here before up to date. Each is by itself: the results are those that succeeded, the
// error tells of the others.
func Install(ctx context.Context, cfg *kube.Config, manifests [][]byte) ([]Result, error) {
	return each(ctx, cfg, manifests, install)
}

// Look says what Install would find, and writes nothing.
func Look(ctx context.Context, cfg *kube.Config, manifests [][]byte) ([]Result, error) {
	return each(ctx, cfg, manifests, func(ctx context.Context, c dynamic.ResourceInterface, own *unstructured.Unstructured) (Result, error) {
		there, err := c.Get(ctx, own.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return Result{Name: own.GetName(), Outcome: Missing}, nil
		}
		if err != nil {
			return Result{}, fmt.Errorf("%s: %w", own.GetName(), err)
		}
		if _, ours := there.GetAnnotations()[contentKey]; ours {
			return Result{Name: own.GetName(), Outcome: AsItWas, Serves: versions(there)}, nil
		}
		return adopt(own, there), nil
	})
}

// adopt says what a definition that another has made is like.
func adopt(own, there *unstructured.Unstructured) Result {
	r := Result{Name: own.GetName(), Outcome: Adopted, Serves: versions(there), Drops: drops(own, there)}
	for _, v := range versions(own) {
		if !slices.Contains(r.Serves, v) {
			r.Lacks = append(r.Lacks, v)
		}
	}
	return r
}

func each(ctx context.Context, cfg *kube.Config, manifests [][]byte, do func(context.Context, dynamic.ResourceInterface, *unstructured.Unstructured) (Result, error)) ([]Result, error) {
	c := kube.Prepare(cfg)
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", c.Host, err)
	}
	d, err := dynamic.NewForConfigAndClient(c, client)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", c.Host, err)
	}
	var out []Result
	var failed []string
	for _, m := range manifests {
		own, err := decode(m)
		var r Result
		if err == nil {
			r, err = do(ctx, d.Resource(resource), own)
		}
		if err != nil {
			failed = append(failed, err.Error())
			continue
		}
		out = append(out, r)
	}
	if len(failed) > 0 {
		return out, fmt.Errorf("%s", strings.Join(failed, "; "))
	}
	return out, nil
}

func decode(manifest []byte) (*unstructured.Unstructured, error) {
	own := &unstructured.Unstructured{}
	text, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	if err := json.Unmarshal(text, &own.Object); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	return own, nil
}

func install(ctx context.Context, c dynamic.ResourceInterface, own *unstructured.Unstructured) (Result, error) {
	name := own.GetName()
	for range tries {
		r, err := once(ctx, c, own)
		if err == nil {
			return r, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			if apierrors.IsForbidden(err) {
				return r, fmt.Errorf("%s: %w; allow get, create and update of customresourcedefinitions by a ClusterRole, or apply deploy/crds yourself", name, err)
			}
			return r, fmt.Errorf("%s: %w", name, err)
		}
	}
	return Result{}, fmt.Errorf("%s: others write it all the time", name)
}

func once(ctx context.Context, c dynamic.ResourceInterface, own *unstructured.Unstructured) (Result, error) {
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	r := Result{Name: own.GetName(), Serves: versions(own)}
	content := hash(own)
	there, err := c.Get(limited, own.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		r.Outcome = Installed
		_, err := c.Create(limited, marked(own, content), metav1.CreateOptions{FieldManager: fieldManager})
		return r, err
	}
	if err != nil {
		return r, err
	}
	made, ours := there.GetAnnotations()[contentKey]
	switch {
	case !ours:
		return adopt(own, there), nil
	case made == content:
		r.Outcome, r.Serves = AsItWas, versions(there)
		return r, nil
	}
	// What users have added to its metadata stays. The version that was read is in it: who
	// has written since wins.
	next := marked(there, content)
	next.Object["spec"] = own.Object["spec"]
	r.Outcome = Updated
	_, err = c.Update(limited, next, metav1.UpdateOptions{FieldManager: fieldManager})
	return r, err
}

func marked(in *unstructured.Unstructured, content string) *unstructured.Unstructured {
	out := in.DeepCopy()
	with := func(m map[string]string, k, v string) map[string]string {
		m = maps.Clone(m)
		if m == nil {
			m = map[string]string{}
		}
		m[k] = v
		return m
	}
	out.SetAnnotations(with(out.GetAnnotations(), contentKey, content))
	out.SetLabels(with(out.GetLabels(), managedByLabel, managedBy))
	return out
}

func hash(u *unstructured.Unstructured) string {
	b, err := json.Marshal(u.Object["spec"]) // sorts keys
	if err != nil {
		panic("crds: " + err.Error()) // it was decoded from JSON
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// versions are those that a definition serves.
func versions(u *unstructured.Unstructured) []string {
	var out []string
	list, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
	for _, v := range list {
		m, _ := v.(map[string]any)
		if served, _ := m["served"].(bool); served {
			name, _ := m["name"].(string)
			out = append(out, name)
		}
	}
	return out
}
