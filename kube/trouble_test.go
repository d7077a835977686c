// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/kube/kubetest"
	"fairlead.io/fairlead/translators/objects"
)

// refusing answers requests of a resource with a code.
func refusing(code int, resource string) func(*http.Request) (int, bool) {
	return func(q *http.Request) (int, bool) {
		if strings.HasSuffix(q.URL.Path, "/"+resource) {
			return code, false
		}
		return 0, false
	}
}

func begin(t *testing.T, r *rig) {
	t.Helper()
	r.Apply(node + "---\n" + service("web", 80))
	r.after(time.Second)
	r.want(t, "Node n1, Service shop/web")
}

func TestAServerThatIsAway(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		begin(t, r)
		r.Away()
		if got := r.after(time.Minute); len(got) != 0 {
			t.Errorf("updates %+v", got)
		}
		h := r.source.Health()
		if r.problems() != "the API server does not answer: dial 192.0.2.1:6443: connection refused" || !h.Complete || h.Problems[0].Holds || h.Objects != 2 {
			t.Errorf("health %+v", h)
		}
		if ago := time.Since(h.Problems[0].Since); ago < 50*time.Second || ago > time.Minute {
			t.Errorf("since %s", ago)
		}
		r.Remove("", "services", "shop/web")
		r.Apply(service("other", 80))
		r.Back()
		r.after(time.Minute)
		r.want(t, "Node n1, Service shop/other")
		if r.problems() != "" {
			t.Error(r.problems())
		}
	})
}

// One that comes back knows nothing of where streams were.
func TestAServerThatRestartsAndForgets(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		begin(t, r)
		r.Away()
		r.Remove("", "services", "shop/web")
		r.Forgets()
		r.after(10 * time.Second)
		r.Back()
		r.after(2 * time.Minute)
		r.want(t, "Node n1")
		if r.problems() != "" {
			t.Error(r.problems())
		}
	})
}

func TestStreamsThatEndWith410(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		begin(t, r)
		r.Interrupt(func(q *http.Request) (int, bool) { // not the streams that are
			return 0, strings.HasSuffix(q.URL.Path, "/services")
		})
		r.Remove("", "services", "shop/web")
		r.Apply(service("other", 80))
		r.after(time.Second)
		r.want(t, "Node n1, Service shop/other")
		r.Apply(service("more", 80))
		r.Remove("", "services", "shop/more")
		r.Forgets()
		r.after(3 * time.Second)
		if got := r.problems(); got != "Service: the stream was ended (410); the objects are listed anew" {
			t.Error(got)
		}
		r.Interrupt(nil)
		r.after(5 * time.Minute)
		r.want(t, "Node n1, Service shop/other")
		if r.problems() != "" {
			t.Error(r.problems())
		}
	})
}

func TestTooManyRequests(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		begin(t, r)
		r.Interrupt(refusing(429, "services"))
		r.Forgets()
		r.after(3 * time.Second)
		r.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
		r.after(10 * time.Second)
		r.want(t, "Namespace shop, Node n1, Service shop/web")
		if got := r.problems(); got != "Service: too many requests (429)" {
			t.Error(got)
		}
		r.after(10 * time.Minute)
		if n := r.Asked("/services?"); n > 600 {
			t.Errorf("asked %d times in ten minutes, more often than it says", n)
		}
		r.Interrupt(nil)
		r.after(2 * time.Minute)
		if r.problems() != "" {
			t.Error(r.problems())
		}
	})
}

// A server that takes requests and does not answer, and streams that fall silent, are not
// waited for without end.
func TestAServerThatHangs(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		begin(t, r)
		r.Interrupt(func(*http.Request) (int, bool) { return 0, true })
		r.Forgets()
		r.after(20 * time.Second)
		if got := r.problems(); !strings.HasPrefix(got, "no answer yet") {
			t.Error(got)
		}
		r.after(5 * time.Minute)
		if got := r.problems(); !strings.HasPrefix(got, "the API server does not answer: no answer in time") && !strings.HasPrefix(got, "no answer yet") {
			t.Error(got)
		}
		r.want(t, "Node n1, Service shop/web")
		r.Apply(service("other", 80))
		r.Interrupt(nil)
		r.after(3 * time.Minute)
		r.want(t, "Node n1, Service shop/other, Service shop/web")
		if r.problems() != "" {
			t.Error(r.problems())
		}
	})
}

func TestCredentialsThatRunOut(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		begin(t, r)
		r.Interrupt(func(*http.Request) (int, bool) { return 401, false })
		r.Forgets()
		r.after(time.Minute)
		if got := r.problems(); got != "the API server does not accept the credentials (401)" {
			t.Error(got)
		}
		r.want(t, "Node n1, Service shop/web")
		r.Interrupt(nil)
		r.after(2 * time.Minute)
		if r.problems() != "" {
			t.Error(r.problems())
		}
	})
}

// A kind that may not be read costs the others nothing.
func TestForbiddenKinds(t *testing.T) {
	kind := objects.Ref{Kind: objects.Kind{Group: "networking.istio.io", Kind: "VirtualService"}}
	run(t, func(t *testing.T, r *rig) {
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
		r.Apply(node + "---\n" + vs("web", "5s"))
		r.Interrupt(refusing(403, "virtualservices"))
		r.after(10 * time.Second)
		r.want(t, "Node n1")
		if got := r.problems(); got != "VirtualService.networking.istio.io: may not be read (403)" {
			t.Error(got)
		}
		if want := "kind-not-read VirtualService: VirtualService.networking.istio.io: the API server does not let it be read (403): its objects are not used\n"; r.said[kind] != want {
			t.Errorf("said %q", r.said[kind])
		}
		r.Interrupt(nil)
		r.after(2 * time.Minute)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
		r.Interrupt(refusing(403, "virtualservices"))
		r.Forgets()
		r.after(time.Minute)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
		if r.said[kind] != "" || r.problems() == "" {
			t.Errorf("said %q, health %+v: what was read stays, and status tells", r.said[kind], r.source.Health())
		}
	})
}

// Without a kind that restricts more would be allowed: nothing is handed out.
func TestForbiddenKindsThatGuard(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Define("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", "v1")
		r.Apply(node)
		r.Interrupt(refusing(403, "authorizationpolicies"))
		r.after(10 * time.Minute)
		r.want(t, "")
		want := "AuthorizationPolicy.security.istio.io: may not be read (403); allow list and watch of it by a ClusterRole; until then nothing new is applied, as without it more could be allowed than is meant"
		if h := r.source.Health(); h.Complete || len(h.Problems) != 1 || h.Problems[0].String() != want {
			t.Errorf("health %+v", h)
		}
		r.Interrupt(nil)
		r.after(2 * time.Minute)
		r.want(t, "Node n1")
	})
}

// Who may not watch definitions looks at what is served.
func TestForbiddenDefinitions(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Interrupt(refusing(403, "customresourcedefinitions"))
		begin(t, r)
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v1")
		r.Apply(vs("web", "5s"))
		r.after(lookEveryBlind + time.Second)
		r.want(t, "Node n1, Service shop/web, VirtualService.networking.istio.io shop/web")
		if got := r.problems(); got != "CustomResourceDefinition: may not be read (403)" {
			t.Error(got)
		}
		r.Undefine("networking.istio.io", "virtualservices")
		r.after(2 * lookEveryBlind)
		r.want(t, "Node n1, Service shop/web")
	})
}

func TestVersionsThatNobodyReads(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Define("networking.istio.io", "VirtualService", "virtualservices", "v9")
		r.Apply(node)
		r.after(10 * time.Second)
		r.want(t, "Node n1")
		if got := r.problems(); got != "VirtualService.networking.istio.io: is served as v9 alone, and read as v1, v1alpha3, v1beta1: its objects are not used" {
			t.Error(got)
		}
		r.Alter("networking.istio.io/virtualservices", func(res *kubetest.Resource) { res.Versions = []string{"v1", "v9"} })
		r.Apply(kubetest.Definition("virtualservices.networking.istio.io") + "---\n" + vs("web", "5s"))
		r.after(10 * time.Second)
		r.want(t, "Node n1, VirtualService.networking.istio.io shop/web")
		if r.problems() != "" || len(r.said) > 0 {
			t.Errorf("problems %q, said %v", r.problems(), r.said)
		}
	})
}

// A server that is only just starting does not know all that it serves: that is no reason
// to do without what restricts.
func TestAServerThatIsStarting(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		r.Define("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", "v1")
		r.Apply(node + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: shop}\nspec: {}\n")
		r.Hide("security.istio.io/authorizationpolicies", true)
		r.Interrupt(refusing(500, "readyz"))
		r.after(15 * time.Second)
		r.want(t, "")
		r.Interrupt(nil)
		r.after(20 * time.Second)
		r.want(t, "")
		if got := r.problems(); !strings.Contains(got, "it does not serve authorizationpolicies.security.istio.io yet, though that is defined") {
			t.Error(got)
		}
		r.Hide("security.istio.io/authorizationpolicies", false)
		r.after(30 * time.Second)
		r.want(t, "AuthorizationPolicy.security.istio.io shop/deny, Node n1")
	})
}
