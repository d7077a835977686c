// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// controller is the name under which Fairlead tells of a route's parents.
const controller = "fairlead.io/mesh-controller"

const statusNamespace = "gateway-status"

// route is what HTTPRoutes and GRPCRoutes have in common.
type route struct {
	object client.Object
	spec   gatewayv1.CommonRouteSpec
	status gatewayv1.RouteStatus
}

func (r route) String() string {
	return fmt.Sprintf("%T %s", r.object, client.ObjectKeyFromObject(r.object))
}

// routes lists those of all namespaces.
func routes(ctx context.Context, c client.Client) ([]route, error) {
	var http gatewayv1.HTTPRouteList
	var grpc gatewayv1.GRPCRouteList
	if err := c.List(ctx, &http); err != nil {
		return nil, err
	}
	if err := c.List(ctx, &grpc); err != nil {
		return nil, err
	}
	var out []route
	for i := range http.Items {
		r := &http.Items[i]
		out = append(out, route{r, r.Spec.CommonRouteSpec, r.Status.RouteStatus})
	}
	for i := range grpc.Items {
		r := &grpc.Items[i]
		out = append(out, route{r, r.Spec.CommonRouteSpec, r.Status.RouteStatus})
	}
	return out, nil
}

// lacking are routes of the suite that name services which it does not have: echo-v3, with
// a weight of 0.
var lacking = []string{"mesh-grpc-weighted-backends"}

// served tells what a status lacks that says that a route is served at all its parents.
func (r route) served() error {
	for _, ref := range r.spec.ParentRefs {
		i := slices.IndexFunc(r.status.Parents, func(p gatewayv1.RouteParentStatus) bool {
			a, _ := json.Marshal(p.ParentRef)
			b, _ := json.Marshal(ref)
			return p.ControllerName == controller && string(a) == string(b)
		})
		if i < 0 {
			return fmt.Errorf("%s: nothing about %s", r, ref.Name)
		}
		have := r.status.Parents[i].Conditions
		if err := kubernetes.ConditionsHaveLatestObservedGeneration(r.object, have); err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		refs := metav1.Condition{Type: "ResolvedRefs", Status: metav1.ConditionTrue, Reason: "ResolvedRefs"}
		if slices.Contains(lacking, r.object.GetName()) {
			refs.Status, refs.Reason = metav1.ConditionFalse, "BackendNotFound"
		}
		for _, want := range []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted"}, refs} {
			if !slices.ContainsFunc(have, func(c metav1.Condition) bool {
				return c.Type == want.Type && c.Status == want.Status && c.Reason == want.Reason
			}) {
				return fmt.Errorf("%s: %s is not %s: %v", r, want.Type, want.Status, have)
			}
		}
	}
	return nil
}

// alsoStatus has each test looked at, after its own end and before its routes go, for
// whether the status of these says that they are served. What is missing is no failure of
// the suite's: it goes to unsaid.
func alsoStatus(all []suite.ConformanceTest, unsaid *[]string) []suite.ConformanceTest {
	out := slices.Clone(all)
	for i, test := range all {
		out[i].Test = func(t *testing.T, s *suite.ConformanceTestSuite) {
			test.Test(t, s)
			var err error
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				var all []route
				if all, err = routes(t.Context(), s.Client); err != nil {
					continue
				}
				if len(all) == 0 && len(test.Manifests) > 0 {
					err = fmt.Errorf("%s has no routes", test.ShortName)
				}
				for _, r := range all {
					if err == nil {
						err = r.served()
					}
				}
				if err == nil {
					return
				}
			}
			*unsaid = append(*unsaid, fmt.Sprintf("status after %s: %v", test.ShortName, err))
		}
	}
	return out
}

// The status of routes at Services is what the suite asks of routes at Gateways, by its
// own helpers; other controllers' words stay, also when Fairlead's are taken back.
func checkStatus(t *testing.T) {
	o := options(t)
	cluster.Kubectl(t, "apply", "-f", "testdata/status.yaml")
	t.Cleanup(func() {
		if _, err := cluster.Try(context.Background(), "", "delete", "-f", "testdata/status.yaml", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	foreign := gatewayv1.RouteParentStatus{ControllerName: "example.com/gateways", ParentRef: gatewayv1.ParentReference{Name: "public"},
		Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", ObservedGeneration: 1, LastTransitionTime: metav1.Now().Rfc3339Copy()}}}
	tell(t, o.Client, foreign)

	for name, wants := range map[string][]metav1.Condition{
		"accepted":                {{Type: "Accepted", Status: "True", Reason: "Accepted"}, {Type: "ResolvedRefs", Status: "True", Reason: "ResolvedRefs"}},
		"no-service":              {{Type: "Accepted", Status: "False", Reason: "NoMatchingParent"}},
		"no-port":                 {{Type: "Accepted", Status: "False", Reason: "NoMatchingParent"}},
		"no-section":              {{Type: "Accepted", Status: "False", Reason: "NoMatchingParent"}},
		"section-of-another-port": {{Type: "Accepted", Status: "False", Reason: "NoMatchingParent"}},
		"port-of-connections":     {{Type: "Accepted", Status: "False", Reason: "UnsupportedProtocol"}},
		"conflicted":              {{Type: "Accepted", Status: "False", Reason: "Conflicted"}},
		"no-backend":              {{Type: "Accepted", Status: "True", Reason: "Accepted"}, {Type: "ResolvedRefs", Status: "False", Reason: "BackendNotFound"}},
		"kind":                    {{Type: "Accepted", Status: "True", Reason: "Accepted"}, {Type: "ResolvedRefs", Status: "False", Reason: "InvalidKind"}},
		"some-rules":              {{Type: "Accepted", Status: "True", Reason: "Accepted"}, {Type: "PartiallyInvalid", Status: "True", Reason: "UnsupportedValue"}},
	} {
		t.Run(name, func(t *testing.T) {
			service := types.NamespacedName{Namespace: statusNamespace, Name: "web"}
			if name == "no-service" {
				service.Name = "nobody"
			}
			for _, want := range wants {
				kubernetes.HTTPRouteMustHaveCondition(t, o.Client, o.TimeoutConfig, types.NamespacedName{Namespace: statusNamespace, Name: name}, service, want)
			}
		})
	}
	t.Run("grpc", func(t *testing.T) {
		mustBeServed(t, o.Client, "GRPCRoute", "accepted")
	})
	t.Run("generation", func(t *testing.T) { checkGeneration(t, o.Client, o.TimeoutConfig) })
	t.Run("backend comes and goes", func(t *testing.T) {
		cluster.Kubectl(t, "create", "service", "clusterip", "nobody", "-n", statusNamespace, "--tcp=80")
		kubernetes.HTTPRouteMustHaveResolvedRefsConditionsTrue(t, o.Client, o.TimeoutConfig,
			types.NamespacedName{Namespace: statusNamespace, Name: "no-backend"}, types.NamespacedName{Namespace: statusNamespace, Name: "web"})
		cluster.Kubectl(t, "delete", "service", "nobody", "-n", statusNamespace)
		kubernetes.HTTPRouteMustHaveResolvedRefsMustHaveBackendsNotFound(t, o.Client, o.TimeoutConfig,
			types.NamespacedName{Namespace: statusNamespace, Name: "no-backend"}, types.NamespacedName{Namespace: statusNamespace, Name: "web"})
	})
	t.Run("others stay", func(t *testing.T) {
		check := func(ours int) error {
			var r gatewayv1.HTTPRoute
			if err := o.Client.Get(t.Context(), types.NamespacedName{Namespace: statusNamespace, Name: "accepted"}, &r); err != nil {
				return err
			}
			n := 0
			theirs := false
			for _, p := range r.Status.Parents {
				if p.ControllerName == controller {
					n++
				}
				theirs = theirs || p.ControllerName == foreign.ControllerName && len(p.Conditions) == 1 && p.Conditions[0].LastTransitionTime.Equal(&foreign.Conditions[0].LastTransitionTime)
			}
			if n != ours || !theirs {
				return fmt.Errorf("%d parents of ours, want %d: %v", n, ours, r.Status.Parents)
			}
			return nil
		}
		testcluster.Eventually(t, 30*time.Second, "both", func() error { return check(1) })
		cluster.Cleanup(t)
		testcluster.Eventually(t, 30*time.Second, "the other's alone", func() error { return check(0) })
	})
}

// tell has another controller write its part of a route's status.
func tell(t *testing.T, c client.Client, parent gatewayv1.RouteParentStatus) {
	t.Helper()
	testcluster.Eventually(t, 30*time.Second, "another controller writes", func() error {
		var r gatewayv1.HTTPRoute
		if err := c.Get(t.Context(), types.NamespacedName{Namespace: statusNamespace, Name: "accepted"}, &r); err != nil {
			return err
		}
		r.Status.Parents = append(r.Status.Parents, parent)
		return c.Status().Update(t.Context(), &r)
	})
}

func mustBeServed(t *testing.T, c client.Client, kind, name string) {
	t.Helper()
	testcluster.Eventually(t, 30*time.Second, kind+" "+name, func() error {
		all, err := routes(t.Context(), c)
		if err != nil {
			return err
		}
		for _, r := range all {
			if _, grpc := r.object.(*gatewayv1.GRPCRoute); grpc == (kind == "GRPCRoute") && r.object.GetNamespace() == statusNamespace && r.object.GetName() == name {
				return r.served()
			}
		}
		return fmt.Errorf("it is not there")
	})
}

// checkGeneration is what the suite's HTTPRouteObservedGenerationBump does: an edit is
// seen in every condition.
func checkGeneration(t *testing.T, c client.Client, timeouts config.TimeoutConfig) {
	name := types.NamespacedName{Namespace: statusNamespace, Name: "some-rules"}
	kubernetes.HTTPRouteMustHaveLatestConditions(t, c, timeouts, name)
	var before, after gatewayv1.HTTPRoute
	if err := c.Get(t.Context(), name, &before); err != nil {
		t.Fatal(err)
	}
	edited := before.DeepCopy()
	edited.Spec.Rules = edited.Spec.Rules[:1]
	if err := c.Patch(t.Context(), edited, client.MergeFrom(&before)); err != nil {
		t.Fatal(err)
	}
	kubernetes.HTTPRouteMustHaveCondition(t, c, timeouts, name, types.NamespacedName{Namespace: statusNamespace, Name: "web"},
		metav1.Condition{Type: "Accepted", Status: "True", Reason: "Accepted"})
	kubernetes.HTTPRouteMustHaveLatestConditions(t, c, timeouts, name)
	if err := c.Get(t.Context(), name, &after); err != nil {
		t.Fatal(err)
	}
	if after.Generation == before.Generation {
		t.Fatal("the edit changed nothing")
	}
	for _, p := range after.Status.Parents {
		if slices.ContainsFunc(p.Conditions, func(c metav1.Condition) bool { return c.Type == "PartiallyInvalid" }) {
			t.Errorf("no rule is dropped any more: %v", p.Conditions)
		}
	}
}
