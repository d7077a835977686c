// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// server answers for one DaemonSet and one node.
type server struct {
	mu   sync.Mutex
	ds   *appsv1.DaemonSet
	node *corev1.Node
	// code, if set, is answered in place of the object whose path ends so.
	code map[string]int
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	for suffix, code := range s.code {
		if strings.HasSuffix(r.URL.Path, suffix) {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
				Code: int32(code), Reason: map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound}[code]})
			return
		}
	}
	switch r.URL.Path {
	case "/apis/apps/v1/namespaces/fairlead-system/daemonsets/fairlead-agent":
		_ = json.NewEncoder(w).Encode(s.ds)
	case "/api/v1/nodes/one":
		_ = json.NewEncoder(w).Encode(s.node)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *server) change(f func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func newServer() *server {
	return &server{
		ds: &appsv1.DaemonSet{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
			ObjectMeta: metav1.ObjectMeta{Namespace: agents.Namespace, Name: agents.Name},
			Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				NodeSelector: map[string]string{"kubernetes.io/os": "linux"},
				Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}}}},
		node: &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: "one", UID: "u1", Labels: map[string]string{"kubernetes.io/os": "linux", "pool": "a"}},
			Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "dedicated", Value: "x", Effect: corev1.TaintEffectNoSchedule}}}},
		code: map[string]int{},
	}
}

// at begins to follow the place that the server tells of, until it is known.
func (s *server) at(t *testing.T) *Place {
	t.Helper()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	p, err := NewPlace(&rest.Config{Host: web.URL}, agents, "one", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p.pause = time.Millisecond
	return p
}

func zone(op corev1.NodeSelectorOperator, values ...string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "pool", Operator: op, Values: values}}}}}}}
}

// A place is lost when the DaemonSet would have no pod there any more, and for nothing else.
func TestPlace(t *testing.T) {
	spec := func(s *server) *corev1.PodSpec { return &s.ds.Spec.Template.Spec }
	for name, c := range map[string]struct {
		change func(*server)
		lost   string // in the reason; "": it is kept
	}{
		"nothing":              {func(*server) {}, ""},
		"another selector":     {func(s *server) { spec(s).NodeSelector = map[string]string{"pool": "b"} }, "nodeSelector or affinity"},
		"no selector":          {func(s *server) { spec(s).NodeSelector = nil }, ""},
		"the label is gone":    {func(s *server) { delete(s.node.Labels, "kubernetes.io/os") }, "nodeSelector or affinity"},
		"affinity elsewhere":   {func(s *server) { spec(s).Affinity = zone(corev1.NodeSelectorOpIn, "b") }, "nodeSelector or affinity"},
		"affinity to here":     {func(s *server) { spec(s).Affinity = zone(corev1.NodeSelectorOpIn, "a", "b") }, ""},
		"affinity to no such":  {func(s *server) { spec(s).Affinity = zone(corev1.NodeSelectorOpNotIn, "a") }, "nodeSelector or affinity"},
		"affinity nobody gets": {func(s *server) { spec(s).Affinity = zone("Beside", "a") }, ""},
		"another node's name":  {func(s *server) { spec(s).NodeName = "two" }, "two"},
		"preferred elsewhere": {func(s *server) {
			spec(s).Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
				Weight: 1, Preference: zone(corev1.NodeSelectorOpIn, "b").NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]}}}}
		}, ""},
		"a toleration less":     {func(s *server) { spec(s).Tolerations = nil }, "dedicated=x:NoSchedule"},
		"tolerations rewritten": {func(s *server) { spec(s).Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: "Exists"}} }, ""},
		"a taint less":          {func(s *server) { s.node.Spec.Taints = nil; spec(s).Tolerations = nil }, ""},
		"only preferred without": {func(s *server) {
			s.node.Spec.Taints[0].Effect = corev1.TaintEffectPreferNoSchedule
			spec(s).Tolerations = nil
		}, ""},
		"a taint of Kubernetes": {func(s *server) {
			spec(s).Tolerations = spec(s).Tolerations[:0]
			s.node.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}, {Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
		}, ""},
		"a node that was made anew":     {func(s *server) { s.node.UID = "u2"; s.node.Labels = nil }, ""},
		"a node that is being deleted":  {func(s *server) { now := metav1.Now(); s.node.DeletionTimestamp = &now; s.node.Labels = nil }, ""},
		"no such node":                  {func(s *server) { spec(s).NodeSelector = map[string]string{"pool": "b"}; s.code["/one"] = 404 }, ""},
		"may not ask for the node":      {func(s *server) { spec(s).NodeSelector = map[string]string{"pool": "b"}; s.code["/one"] = 403 }, ""},
		"may not ask for the DaemonSet": {func(s *server) { s.node.Labels = nil; s.code["/fairlead-agent"] = 403 }, ""},
		"no such DaemonSet":             {func(s *server) { s.node.Labels = nil; s.code["/fairlead-agent"] = 404 }, ""},
		"a server that fails":           {func(s *server) { s.node.Labels = nil; s.code["/fairlead-agent"] = 500; s.code["/one"] = 500 }, ""},
		"an answer of another kind":     {func(s *server) { s.node = &corev1.Node{TypeMeta: s.node.TypeMeta} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			p := s.at(t)
			p.Run(t.Context())
			s.change(c.change)
			why := p.Lost(t.Context())
			if c.lost == "" && why != "" || !strings.Contains(why, c.lost) {
				t.Errorf("lost: %q, want %q", why, c.lost)
			}
		})
	}
}

// A taint that is put on a node evicts its pods, too: that is no word about who the
// DaemonSet is for. Only one that was tolerated and is not any more says so.
func TestPlaceNewTaint(t *testing.T) {
	s := newServer()
	s.ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: "Exists"}}
	p := s.at(t)
	p.Run(t.Context())
	s.change(func(s *server) {
		s.node.Spec.Taints = append(s.node.Spec.Taints, corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute})
	})
	if why := p.Lost(t.Context()); why != "" {
		t.Errorf("lost: %s", why)
	}
}

// Where it was never known to have had a place, nothing is taken away for having none.
func TestPlaceNeverKnown(t *testing.T) {
	s := newServer()
	s.ds.Spec.Template.Spec.NodeSelector = map[string]string{"pool": "b"}
	p := s.at(t)
	if why := p.Lost(t.Context()); why != "" {
		t.Errorf("never asked before: %s", why)
	}
	p.Run(t.Context())
	if why := p.Lost(t.Context()); why != "" {
		t.Errorf("was never there: %s", why)
	}
}

// It is known from when the server answers.
func TestPlaceKnownLate(t *testing.T) {
	s := newServer()
	s.code["/one"] = 503
	p := s.at(t)
	p.retry = time.Millisecond
	done := make(chan struct{})
	go func() { defer close(done); p.Run(t.Context()) }()
	time.Sleep(20 * time.Millisecond)
	s.change(func(s *server) { delete(s.code, "/one") })
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not asked for again")
	}
	s.change(func(s *server) { s.ds.Spec.Template.Spec.NodeSelector = map[string]string{"pool": "b"} })
	if why := p.Lost(t.Context()); why == "" {
		t.Error("kept, though it is chosen no more")
	}
}

// Labels that a labeller takes away and puts back cost nothing.
func TestPlaceFlaps(t *testing.T) {
	s := newServer()
	p := s.at(t)
	p.Run(t.Context())
	s.change(func(s *server) { delete(s.node.Labels, "kubernetes.io/os") })
	p.pause = 200 * time.Millisecond
	time.AfterFunc(50*time.Millisecond, func() { s.change(func(s *server) { s.node.Labels["kubernetes.io/os"] = "linux" }) })
	if why := p.Lost(t.Context()); why != "" {
		t.Errorf("lost: %s", why)
	}
}
