// SPDX-License-Identifier: Apache-2.0

// Package install puts the objects of an installation into a cluster, waits until they do
// what they are for, and takes them away again, in an order in which nothing is left behind.
package install

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"fairlead.io/fairlead/kube/remote"
)

// Labels of the installation's objects.
const (
	nameLabel      = "app.kubernetes.io/name"
	name           = "fairlead"
	componentLabel = "app.kubernetes.io/component"
	managedLabel   = "app.kubernetes.io/managed-by"
	// Manager is who manages what this package has installed, and owns its fields.
	Manager = "fairlead-install"
	// SecurityLabel says which pods a namespace lets in.
	SecurityLabel = "pod-security.kubernetes.io/enforce"
	// helmRelease is the annotation by which Helm knows its own.
	helmRelease = "meta.helm.sh/release-name"
)

// Installer installs in one namespace of a cluster.
type Installer struct {
	client    client.Client
	namespace string
	say       func(format string, a ...any)
}

// New returns an installer; say tells a person how it goes.
func New(cfg *rest.Config, namespace string, say func(format string, a ...any)) (*Installer, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.UserAgent = -1, rest.DefaultKubernetesUserAgent()
	cfg.WarningHandler = rest.NoWarnings{}
	c, err := client.New(cfg, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", cfg.Host, err)
	}
	return &Installer{c, namespace, say}, nil
}

// Parse reads the objects of a manifest, in its order.
func Parse(manifest []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := d.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("read manifest: %w", err)
		case len(o.Object) > 0:
			out = append(out, o)
		}
	}
}

// Release names the Helm release that has the installation, "" if none has.
func (i *Installer) Release(ctx context.Context) (string, error) {
	var ds appsv1.DaemonSet
	err := i.client.Get(ctx, client.ObjectKey{Namespace: i.namespace, Name: "fairlead-agent"}, &ds)
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("look for an installation: %w", err)
	}
	return ds.Annotations[helmRelease], nil
}

// Apply makes the cluster have the objects as they are, and nothing that an earlier version
// had besides.
func (i *Installer) Apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	wanted := map[string]bool{}
	for _, o := range objects {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		mark, err := i.marks(ctx, o)
		if err != nil {
			return err
		}
		if mark {
			labels[managedLabel] = Manager
		} else if level := labels[SecurityLabel]; level != "" {
			i.say("namespace %s was there before: it is labelled %s=%s, which agents and proxies need; uninstall takes that label back", o.GetName(), SecurityLabel, level)
		}
		o.SetLabels(labels)
		err = i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.ForceOwnership, client.FieldOwner(Manager))
		if err != nil {
			return fmt.Errorf("apply %s: %w", of(o), err)
		}
		wanted[of(o)] = true
	}
	return i.prune(ctx, objects, wanted)
}

// marks reports whether an object is to have our mark: all but a namespace that somebody
// else has made, which stays when the installation goes.
func (i *Installer) marks(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
	if o.GetKind() != "Namespace" {
		return true, nil
	}
	var ns corev1.Namespace
	err := i.client.Get(ctx, client.ObjectKeyFromObject(o), &ns)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for namespace %s: %w", o.GetName(), err)
	}
	return ns.Labels[managedLabel] == Manager, nil
}

// prune deletes what has our mark and is not wanted any more, of the kinds that are.
func (i *Installer) prune(ctx context.Context, objects []*unstructured.Unstructured, wanted map[string]bool) error {
	kinds := map[schema.GroupVersionKind]bool{}
	for _, o := range objects {
		kinds[o.GroupVersionKind()] = true
	}
	for k := range kinds {
		var all unstructured.UnstructuredList
		all.SetGroupVersionKind(k)
		if err := i.client.List(ctx, &all, client.MatchingLabels{nameLabel: name, managedLabel: Manager}); err != nil {
			return fmt.Errorf("list %s: %w", k.Kind, err)
		}
		for n := range all.Items {
			o := &all.Items[n]
			if wanted[of(o)] || k.Kind == "Namespace" || o.GetNamespace() != "" && o.GetNamespace() != i.namespace {
				continue
			}
			i.say("deleting %s, which this version does not have", of(o))
			if err := client.IgnoreNotFound(i.client.Delete(ctx, o)); err != nil {
				return fmt.Errorf("delete %s: %w", of(o), err)
			}
		}
	}
	return nil
}

// of is an object as people name it.
func of(o client.Object) string {
	return strings.TrimPrefix(o.GetObjectKind().GroupVersionKind().Kind+" "+o.GetNamespace()+"/"+o.GetName(), "/")
}

// pause is how often the cluster is looked at.
const pause = 500 * time.Millisecond

// Wait waits until agents and proxies of all nodes, and the operators, are as they were
// applied and ready. If the context ends before, the error says what each of the others
// waits for.
func (i *Installer) Wait(ctx context.Context) error {
	said := ""
	for {
		text, done, err := i.progress(ctx)
		if err == nil && text != said {
			i.say("%s", text)
			said = text
		}
		if err == nil && done {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it is not all ready: %w", context.Cause(ctx)), err, i.unready())
		case <-time.After(pause):
		}
	}
}

func (i *Installer) progress(ctx context.Context) (text string, done bool, err error) {
	done = true
	var parts []string
	for _, component := range []string{"agent", "proxy"} {
		var ds appsv1.DaemonSet
		if err := i.client.Get(ctx, client.ObjectKey{Namespace: i.namespace, Name: name + "-" + component}, &ds); err != nil {
			return "", false, err
		}
		s := ds.Status
		ready := min(s.UpdatedNumberScheduled, s.NumberAvailable)
		done = done && s.ObservedGeneration >= ds.Generation && ready == s.DesiredNumberScheduled
		parts = append(parts, fmt.Sprintf("%s ready on %d of %d nodes", component, ready, s.DesiredNumberScheduled))
	}
	var d appsv1.Deployment
	if err := i.client.Get(ctx, client.ObjectKey{Namespace: i.namespace, Name: name + "-operator"}, &d); err != nil {
		return "", false, err
	}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	ready := min(d.Status.UpdatedReplicas, d.Status.AvailableReplicas)
	done = done && d.Status.ObservedGeneration >= d.Generation && ready >= want
	return strings.Join(append(parts, fmt.Sprintf("operator %d of %d", ready, want)), ", "), done, nil
}

// unready says of every pod that is not ready what it waits for.
func (i *Installer) unready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var pods corev1.PodList
	if err := i.client.List(ctx, &pods, client.InNamespace(i.namespace), client.MatchingLabels{nameLabel: name}); err != nil {
		return err
	}
	var errs []error
	if !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Labels[componentLabel] == "agent" }) {
		errs = append(errs, fmt.Errorf("no pod was made for the agents: fairlead preflight --namespace %s says what is in the way", i.namespace))
	}
	for n := range pods.Items {
		if why := remote.Waits(&pods.Items[n]); why != "" {
			p := &pods.Items[n]
			errs = append(errs, fmt.Errorf("pod %s on %s: %s", p.Name, cmp.Or(p.Spec.NodeName, "no node"), why))
		}
	}
	return errors.Join(errs...)
}

// Remove takes an installation away: the operators first, that nobody writes any more; then
// cleanup, which takes back what they wrote; agents and proxies, which give their nodes
// back as they end; and at last their permissions, which agents need to see that they go.
// A namespace that others have made, or have something in, stays. Where the installation is
// in another namespace nothing is taken away: some objects belong to no namespace, and are
// that one's.
func (i *Installer) Remove(ctx context.Context, objects []*unstructured.Unstructured, cleanup func(context.Context) error) error {
	other, err := i.elsewhere(ctx, objects)
	if err != nil {
		return err
	}
	if other != "" {
		return fmt.Errorf("the installation of this cluster is in namespace %s, not in %s: name it by --namespace; nothing was taken away", other, i.namespace)
	}
	order := map[string]int{"Deployment": 0, "DaemonSet": 2, "Namespace": 9}
	stages := map[int][]*unstructured.Unstructured{}
	for _, o := range objects {
		at, ok := order[o.GetKind()]
		if !ok {
			at = 5
		}
		stages[at] = append(stages[at], o)
	}
	for _, at := range slices.Sorted(maps.Keys(stages)) {
		if at == 9 {
			if err := i.removeLeases(ctx); err != nil {
				return err
			}
			if err := i.removeNamespace(ctx); err != nil {
				return err
			}
			continue
		}
		for _, o := range stages[at] {
			err := i.client.Delete(ctx, o, client.PropagationPolicy("Foreground"))
			if client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("delete %s: %w", of(o), err)
			}
		}
		for _, o := range stages[at] {
			if err := i.gone(ctx, o); err != nil {
				return err
			}
		}
		if at == 0 {
			if err := cleanup(ctx); err != nil {
				return fmt.Errorf("take back what the operators wrote: %w", err)
			}
		}
	}
	return nil
}

// Any reports whether one of the objects is there, besides the namespace.
func (i *Installer) Any(ctx context.Context, objects []*unstructured.Unstructured) (bool, error) {
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			continue
		}
		now := &unstructured.Unstructured{}
		now.SetGroupVersionKind(o.GroupVersionKind())
		err := i.client.Get(ctx, client.ObjectKeyFromObject(o), now)
		if err == nil {
			return true, nil
		}
		if !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("look for %s: %w", of(o), err)
		}
	}
	return false, nil
}

// gone waits until an object, with what belongs to it, is not there.
func (i *Installer) gone(ctx context.Context, o *unstructured.Unstructured) error {
	said := false
	for {
		now := &unstructured.Unstructured{}
		now.SetGroupVersionKind(o.GroupVersionKind())
		err := i.client.Get(ctx, client.ObjectKeyFromObject(o), now)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if !said && o.GetKind() == "DaemonSet" {
			i.say("waiting for %s to end on all nodes", o.GetName())
			said = true
		}
		select {
		case <-ctx.Done():
			why := errors.Join(fmt.Errorf("%s is still there: %w", of(o), context.Cause(ctx)), err, i.unready())
			if o.GetKind() == "DaemonSet" {
				why = fmt.Errorf("%w\nof a node that is down, delete the pod by force, and give the node back when it is up again: see \"One node alone\" in deploy/README.md", why)
			}
			return why
		case <-time.After(pause):
		}
	}
}

// removeLeases deletes those of agents that are no more. A next installation that leaves
// such a node out would take it for one that has an agent, which judges what comes there.
func (i *Installer) removeLeases(ctx context.Context) error {
	var all coordinationv1.LeaseList
	if err := i.client.List(ctx, &all, client.InNamespace(i.namespace), client.MatchingLabels{nameLabel: name, componentLabel: "agent"}); err != nil {
		return fmt.Errorf("list Leases of namespace %s: %w", i.namespace, err)
	}
	for n := range all.Items {
		if err := client.IgnoreNotFound(i.client.Delete(ctx, &all.Items[n])); err != nil {
			return fmt.Errorf("delete Lease %s/%s: %w", i.namespace, all.Items[n].Name, err)
		}
	}
	return nil
}

// elsewhere names the namespace of an installation that lives and has the objects that
// belong to no namespace, "" if there is none but this one.
func (i *Installer) elsewhere(ctx context.Context, objects []*unstructured.Unstructured) (string, error) {
	for _, o := range objects {
		if o.GetKind() != "ClusterRoleBinding" {
			continue
		}
		var b rbacv1.ClusterRoleBinding
		if err := i.client.Get(ctx, client.ObjectKeyFromObject(o), &b); client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("look for another installation: %w", err)
		}
		for _, s := range b.Subjects {
			if s.Namespace == "" || s.Namespace == i.namespace {
				continue
			}
			var ds appsv1.DaemonSet
			err := i.client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: name + "-agent"}, &ds)
			if err == nil {
				return s.Namespace, nil
			}
			if !apierrors.IsNotFound(err) {
				return "", fmt.Errorf("look for another installation: %w", err)
			}
		}
	}
	return "", nil
}

// kept are kinds whose objects are somebody's work, and go with their namespace.
var kept = []schema.GroupVersionKind{
	{Version: "v1", Kind: "Pod"}, {Version: "v1", Kind: "PersistentVolumeClaim"}, {Version: "v1", Kind: "Service"},
	{Version: "v1", Kind: "Secret"}, {Version: "v1", Kind: "ConfigMap"},
	{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apps", Version: "v1", Kind: "StatefulSet"}, {Group: "apps", Version: "v1", Kind: "DaemonSet"},
	{Group: "batch", Version: "v1", Kind: "CronJob"}, {Group: "batch", Version: "v1", Kind: "Job"},
}

// everywhere are ConfigMaps that others put into every namespace.
var everywhere = []string{"kube-root-ca.crt", "istio-ca-root-cert", "openshift-service-ca.crt"}

// isKept reports whether an object would be missed.
func isKept(o *unstructured.Unstructured) bool {
	kind, _, _ := unstructured.NestedString(o.Object, "type")
	return o.GetLabels()[nameLabel] != name && kind != string(corev1.SecretTypeServiceAccountToken) &&
		(o.GetKind() != "ConfigMap" || !slices.Contains(everywhere, o.GetName()))
}

// removeNamespace deletes the namespace unless somebody else made it or has something there.
func (i *Installer) removeNamespace(ctx context.Context) error {
	ns := &corev1.Namespace{}
	if err := i.client.Get(ctx, client.ObjectKey{Name: i.namespace}, ns); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("look for namespace %s: %w", i.namespace, err)
	}
	if ns.Labels[managedLabel] != Manager {
		i.say("namespace %s stays: it was there before", i.namespace)
		return i.giveUpNamespace(ctx)
	}
	for _, k := range kept {
		var all unstructured.UnstructuredList
		all.SetGroupVersionKind(k)
		if err := i.client.List(ctx, &all, client.InNamespace(i.namespace)); err != nil {
			return fmt.Errorf("look into namespace %s: %w", i.namespace, err)
		}
		for n := range all.Items {
			if o := &all.Items[n]; isKept(o) {
				i.say("namespace %s stays: it has something of others, as %s", i.namespace, of(o))
				return nil
			}
		}
	}
	if err := client.IgnoreNotFound(i.client.Delete(ctx, ns)); err != nil {
		return fmt.Errorf("delete namespace %s: %w", i.namespace, err)
	}
	return nil
}

// giveUpNamespace takes our labels off a namespace that stays, but for those that others
// have applied as well.
func (i *Installer) giveUpNamespace(ctx context.Context) error {
	bare := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": i.namespace},
	}}
	err := i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(bare), client.ForceOwnership, client.FieldOwner(Manager))
	if err != nil {
		return fmt.Errorf("take the labels off namespace %s: %w", i.namespace, err)
	}
	return nil
}
