// SPDX-License-Identifier: Apache-2.0

// Package kubetest has an API server for tests: discovery, lists, watches, and all that can
// go wrong with one. It is reached through memory, so that a test may run on a clock of its
// own, or by TCP.
package kubetest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// Server is an API server. It ends with its test.
type Server struct {
	t    *testing.T
	http *http.Server
	in   chan net.Conn
	over chan struct{}

	mu        sync.Mutex
	version   int
	resources map[string]*Resource // by "group/plural"
	down      bool
	conns     []net.Conn
	answer    func(r *http.Request) (code int, hang bool) // in place of an answer; 0: none
	requests  []string
	writes    []Write
	applied   map[string]map[string]any // what a manager has applied last, by object and manager
	forget    int                       // resource versions up to this one are gone
	legacy    bool                      // see Old
}

// Resource is a kind that is served.
type Resource struct {
	Group, Kind, Plural string
	Versions            []string
	Cluster             bool // not namespaced
	Hidden              bool // served, and not told of
	Status              bool // has a subresource for status
	objects             map[string]map[string]any
	events              []event
	grown               chan struct{} // closed when there are more events
	muted               bool          // streams that are there say nothing
}

type event struct {
	version int
	typ     string
	object  map[string]any
}

// New returns a server with the kinds of Kubernetes that are read, and no objects.
func New(t *testing.T) *Server {
	s := &Server{t: t, in: make(chan net.Conn), over: make(chan struct{}), resources: map[string]*Resource{}, applied: map[string]map[string]any{}, version: 100}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve)}
	go func() { _ = s.http.Serve(s) }()
	t.Cleanup(func() {
		s.stop()
		_ = s.http.Close()
	})
	s.Add(&Resource{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Plural: "customresourcedefinitions", Versions: []string{"v1"}, Cluster: true})
	for _, r := range []Resource{
		{Kind: "Namespace", Plural: "namespaces", Cluster: true}, {Kind: "Node", Plural: "nodes", Cluster: true},
		{Kind: "Pod", Plural: "pods"}, {Kind: "Service", Plural: "services"}, {Kind: "ConfigMap", Plural: "configmaps"}, {Kind: "Secret", Plural: "secrets"},
		{Group: "discovery.k8s.io", Kind: "EndpointSlice", Plural: "endpointslices"}, {Group: "coordination.k8s.io", Kind: "Lease", Plural: "leases"},
		{Group: "events.k8s.io", Kind: "Event", Plural: "events"},
	} {
		r.Versions = []string{"v1"}
		s.Add(&r)
	}
	return s
}

// Config reaches the server.
func (s *Server) Config() *rest.Config {
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial() }, MaxIdleConnsPerHost: 100}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &rest.Config{Host: "http://api.test", Transport: transport}
}

// TCP serves on a port of this machine, too, and returns its URL.
func (s *Server) TCP() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = s.http.Serve(tcp{l, s}) }()
	return "http://" + l.Addr().String()
}

// tcp are connections by TCP, which are cut as the others are.
type tcp struct {
	net.Listener
	server *Server
}

// Accept implements net.Listener.
func (t tcp) Accept() (net.Conn, error) {
	for {
		c, err := t.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t.server.mu.Lock()
		down := t.server.down
		if !down {
			t.server.conns = append(t.server.conns, c)
		}
		t.server.mu.Unlock()
		if !down {
			return c, nil
		}
		_ = c.Close()
	}
}

func (s *Server) dial() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6443}, Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	select {
	case s.in <- theirs:
		s.conns = append(s.conns, theirs)
		return ours, nil
	case <-s.over:
		return nil, net.ErrClosed
	}
}

// Accept, Close and Addr make it a net.Listener.
func (s *Server) Accept() (net.Conn, error) {
	select {
	case c := <-s.in:
		return c, nil
	case <-s.over:
		return nil, net.ErrClosed
	}
}

func (s *Server) Close() error { return nil }

func (s *Server) Addr() net.Addr { return &net.TCPAddr{} }

// Away cuts all connections and takes no more.
func (s *Server) Away() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *Server) Back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

func (s *Server) stop() {
	s.Away()
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}

// Interrupt answers requests in place of the server; nil ends that.
func (s *Server) Interrupt(answer func(r *http.Request) (code int, hang bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// Forgets ends all streams with 410, and knows nothing of what was before.
func (s *Server) Forgets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.forget = s.version
	for _, r := range s.resources {
		r.events = nil
		r.wake()
	}
}

func (s *Server) Add(r *Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.objects == nil {
		r.objects = map[string]map[string]any{}
	}
	r.grown = make(chan struct{})
	s.resources[r.Group+"/"+r.Plural] = r
}

func (r *Resource) wake() {
	close(r.grown)
	r.grown = make(chan struct{})
}

// Define serves a kind of a CustomResourceDefinition.
func (s *Server) Define(group, kind, plural string, versions ...string) {
	s.Add(&Resource{Group: group, Kind: kind, Plural: plural, Versions: versions})
	s.Apply(Definition(plural + "." + group))
}

// Definition is a CustomResourceDefinition, by its name.
func Definition(name string) string {
	return "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: " + name + "}\n"
}

// Alter changes what is served.
func (s *Server) Alter(name string, change func(*Resource)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.resources[name])
}

// Hide has discovery tell nothing of a kind.
func (s *Server) Hide(name string, hidden bool) {
	s.Alter(name, func(r *Resource) { r.Hidden = hidden })
}

// Mute has streams say nothing of what changes, until it is over.
func (s *Server) Mute(name string, muted bool) {
	s.Alter(name, func(r *Resource) {
		r.muted = muted
		r.wake()
	})
}

// Old has discovery answer as it did before it was aggregated.
func (s *Server) Old() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.legacy = true
}

// Defined reports whether a kind is served.
func (s *Server) Defined(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resources[name] != nil
}

// Undefine deletes a CustomResourceDefinition and all objects of its kind.
func (s *Server) Undefine(group, plural string) {
	r := s.resources[group+"/"+plural]
	for key := range maps.Clone(r.objects) {
		s.Remove(group, plural, key)
	}
	s.Remove("apiextensions.k8s.io", "customresourcedefinitions", plural+"."+group)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.resources, group+"/"+plural)
	r.wake()
}

// Apply creates or replaces objects.
func (s *Server) Apply(text string) {
	s.t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			s.t.Fatal(err)
		}
		s.Put(o)
	}
}

// Put creates or replaces an object.
func (s *Server) Put(o map[string]any) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	group, _, found := strings.Cut(o["apiVersion"].(string), "/")
	if !found {
		group = ""
	}
	for _, r := range s.resources {
		if r.Group != group || r.Kind != o["kind"] {
			continue
		}
		meta := o["metadata"].(map[string]any)
		if !r.Cluster && meta["namespace"] == nil {
			meta["namespace"] = "default"
		}
		s.store(r, o)
		return
	}
	s.t.Errorf("the server has no %s in %q", o["kind"], group)
}

// store creates or replaces an object. It is called with mu held.
func (s *Server) store(r *Resource, o map[string]any) {
	meta := o["metadata"].(map[string]any)
	key := keyOf(o)
	s.version++
	typ := "ADDED"
	if old := r.objects[key]; old != nil {
		typ = "MODIFIED"
		before := old["metadata"].(map[string]any)
		meta["uid"], meta["creationTimestamp"] = before["uid"], before["creationTimestamp"]
		if r.Status { // as kubectl apply, which does not write it
			delete(o, "status")
			if status, ok := old["status"]; ok {
				o["status"] = status
			}
		}
		generation, _ := before["generation"].(int64)
		if fmt.Sprint(o["spec"]) != fmt.Sprint(old["spec"]) {
			generation++
		}
		meta["generation"] = generation
	} else {
		meta["uid"], meta["generation"] = fmt.Sprintf("uid-%d", s.version), int64(1)
		if meta["creationTimestamp"] == nil {
			meta["creationTimestamp"] = time.Date(2026, 1, 1, 0, 0, s.version, 0, time.UTC).Format(time.RFC3339)
		}
	}
	meta["resourceVersion"] = strconv.Itoa(s.version)
	meta["managedFields"] = []any{map[string]any{"manager": "kubectl", "time": time.Now().Format(time.RFC3339)}}
	r.objects[key] = o
	r.events = append(r.events, event{s.version, typ, o})
	r.wake()
}

func keyOf(o map[string]any) string {
	meta := o["metadata"].(map[string]any)
	if ns, _ := meta["namespace"].(string); ns != "" {
		return ns + "/" + meta["name"].(string)
	}
	return meta["name"].(string)
}

// Remove deletes an object by its key.
func (s *Server) Remove(group, plural, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resources[group+"/"+plural]
	o := r.objects[key]
	if o == nil {
		return
	}
	s.drop(r, key)
}

// Asked counts requests whose method and path contain a text.
func (s *Server) Asked(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r, text) {
			n++
		}
	}
	return n
}
