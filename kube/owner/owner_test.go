// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	agents = Ref{"daemonsets", "fairlead-system", "fairlead-agent"}
	gvr    = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
)

// text is a log that a test reads.
type text struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// begin makes a server that has the DaemonSet, and follows it until the test ends.
func begin(t *testing.T) (*Follower, *fake.FakeMetadataClient, *text) {
	t.Helper()
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleMetadataClient(scheme, object(nil))
	log := &text{}
	f := follower(client, agents, slog.New(slog.NewTextHandler(log, nil)))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return f, client, log
}

func object(deleted *metav1.Time) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: metav1.ObjectMeta{Namespace: agents.Namespace, Name: agents.Name, DeletionTimestamp: deleted}}
}

// forbid has the server refuse a verb, as when the role is gone.
func forbid(client *fake.FakeMetadataClient, verb string) {
	client.PrependReactor(verb, "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(gvr.GroupResource(), agents.Name, errors.New("no role"))
	})
}

func (f *Follower) heardOfEnd() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone
}

func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !yes(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

func watched(client *fake.FakeMetadataClient) func() bool {
	return func() bool {
		for _, a := range client.Actions() {
			if a.GetVerb() == "watch" {
				return true
			}
		}
		return false
	}
}

// While it is there, whoever is stopped is replaced; that the server does not answer is no
// reason to believe otherwise.
func TestThere(t *testing.T) {
	f, client, _ := begin(t)
	eventually(t, "watch", watched(client))
	if f.Gone(t.Context()) {
		t.Error("gone, though it is there")
	}
	forbid(client, "get")
	if f.Gone(t.Context()) {
		t.Error("gone, though it was there when it could be asked for")
	}
}

func TestDeleted(t *testing.T) {
	f, client, _ := begin(t)
	eventually(t, "watch", watched(client))
	if err := client.Resource(gvr).Namespace(agents.Namespace).Delete(t.Context(), agents.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if !f.Gone(t.Context()) {
		t.Error("not gone, though it was deleted")
	}
	eventually(t, "hear of it", f.heardOfEnd)
	forbid(client, "get")
	if !f.Gone(t.Context()) {
		t.Error("not gone, though it was heard of before the permission went")
	}
}

// With foreground deletion it is there until its pods are gone.
func TestBeingDeleted(t *testing.T) {
	f, client, _ := begin(t)
	eventually(t, "watch", watched(client))
	now := metav1.Now()
	if err := client.Tracker().Update(gvr, object(&now), agents.Namespace); err != nil {
		t.Fatal(err)
	}
	if !f.Gone(t.Context()) {
		t.Error("not gone, though it is being deleted")
	}
	eventually(t, "hear of it", f.heardOfEnd)
}

// Who may not ask is told what to allow, once, and leaves the node as it is.
func TestForbidden(t *testing.T) {
	f, client, log := begin(t)
	eventually(t, "watch", watched(client)) // the first one is done with the client
	for _, verb := range []string{"get", "list", "watch"} {
		forbid(client, verb)
	}
	told := func() bool { return strings.Contains(log.String(), "allow get, list and watch") }
	blind := follower(client, agents, f.log)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { blind.Run(ctx) })
	eventually(t, "advice", told)
	stop()
	wg.Wait()
	if blind.Gone(t.Context()) {
		t.Error("gone, though nobody could say so")
	}
}

// A server that is not whole, or what is in front of it, answers 404 to everything. Nothing
// is taken away because of that.
func TestNotFoundOfAnother(t *testing.T) {
	f, client, _ := begin(t)
	eventually(t, "watch", watched(client))
	of := gvr.GroupResource()
	for what, err := range map[string]error{
		"a page":         apierrors.NewGenericServerResponse(404, "get", of, agents.Name, "404 page not found", 0, true),
		"of something":   apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, agents.Namespace),
		"without detail": &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound}},
	} {
		client.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
		if f.Gone(t.Context()) {
			t.Errorf("%s: gone, though it is there", what)
		}
	}
}

// What a server says of an object that it has not is understood in each of the encodings
// that it may choose; a page in its place is not.
func TestAnswersOfAServer(t *testing.T) {
	status := apierrors.NewNotFound(gvr.GroupResource(), agents.Name).ErrStatus
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	asJSON, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := status.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	asProtobuf, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "Status"}, Raw: raw}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		encoding string
		body     []byte
		gone     bool
	}{
		{"application/json", asJSON, true},
		{"application/vnd.kubernetes.protobuf", append([]byte("k8s\x00"), asProtobuf...), true},
		{"text/plain; charset=utf-8", []byte("404 page not found\n"), false},
		{"text/html", []byte("<html>no such site</html>"), false},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.encoding)
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(c.body)
		}))
		f, err := New(&rest.Config{Host: s.URL}, agents, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f.heard(false) // it was there
		if got := f.Gone(t.Context()); got != c.gone {
			t.Errorf("%s: gone %t", c.encoding, got)
		}
		s.Close()
	}
}

// One that was never there is not the one that is meant: its name was changed, say, and what
// names it was not.
func TestNeverThere(t *testing.T) {
	f, _, log := begin(t)
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	other := follower(fake.NewSimpleMetadataClient(scheme), agents, f.log)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { other.Run(ctx) })
	eventually(t, "advice", func() bool { return strings.Contains(log.String(), "there is no such object") })
	if other.Gone(t.Context()) {
		t.Error("gone, though it was never there")
	}
	stop()
	wg.Wait()
}

func TestParseRef(t *testing.T) {
	if r, err := ParseRef("daemonsets", "a/b"); err != nil || fmt.Sprint(r) != "daemonsets a/b" {
		t.Errorf("%v, %v", r, err)
	}
	for _, text := range []string{"", "a", "/b", "a/", "a/b/c"} {
		if r, err := ParseRef("daemonsets", text); err == nil {
			t.Errorf("%q: %v", text, r)
		}
	}
}
