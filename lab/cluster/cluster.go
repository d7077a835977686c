// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Doc is an object as the user wrote it. Seq orders docs as creation time does in
// Kubernetes: it stays while the object is there.
type Doc struct {
	Seq int
	objects.Raw
}

// Options are what besides the objects makes the cluster.
type Options struct {
	Nodes   []string // names; at most MaxNodes
	Managed bool     // agents run on the nodes
	// Images maps an image, with or without its tag, to a command line.
	Images map[string]string
	// Ready reports whether a pod takes traffic. nil: every pod does.
	Ready func(pod string) bool
	// Old are pods of before that still run: those that the objects no longer ask
	// for stay in the cluster, and leave the EndpointSlices if Ending is set.
	Old    []*Pod
	Ending bool
}

// MaxNodes is how many nodes the address plan has room for.
const MaxNodes = 9

// Pod is a pod with its place and what runs in it. Its fields are kept in files
// between two runs of the lab.
type Pod struct {
	Namespace      string            `json:"namespace"`
	Name           string            `json:"name"`
	Node           string            `json:"node"`
	Addresses      []netip.Addr      `json:"addresses"` // IPv4, IPv6
	HostNetwork    bool              `json:"hostNetwork,omitempty"`
	Workload       string            `json:"workload,omitempty"` // name of the Deployment or its like
	ServiceAccount string            `json:"serviceAccount"`
	Labels         map[string]string `json:"labels,omitempty"`
	Programs       []Program         `json:"programs"`
	Object         *corev1.Pod       `json:"object"` // as the agents see it, but for its conditions
	File           string            `json:"file"`
	Line           int               `json:"line"`
}

// Key is "namespace/name".
func (p *Pod) Key() string { return p.Namespace + "/" + p.Name }

// Note is something that the lab does not do as the object says.
type Note struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Object  string `json:"object"` // "Deployment shop/reviews"
	Message string `json:"message"`

	// lost: something that the objects ask for is not in the cluster, also not in one that
	// nobody runs.
	lost *objects.Object
}

// String is "file:line: object: message".
func (n Note) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", n.File, n.Line, n.Object, n.Message)
}

// Cluster is what the objects come to.
type Cluster struct {
	Pods     []*Pod // that the objects ask for
	Services []*Service
	Files    []File
	Notes    []Note
	State    State
}

// File is one object as the agents read it.
type File struct {
	Name string
	Data []byte
}

// Build computes the cluster. docs are in the order of Seq, each object once.
func Build(docs []Doc, o Options, s State) *Cluster {
	return build(docs, o, s).cluster()
}

func build(docs []Doc, o Options, s State) *builder {
	b := &builder{options: o, state: s.clone(), asked: map[string]bool{}, noted: map[Note]bool{}}
	b.read(docs)
	b.services()
	numbers := map[string]bool{}
	for _, w := range b.workloads() {
		b.expand(w)
		numbers[w.object.Kind.Kind+" "+w.object.Key()] = true
	}
	maps.DeleteFunc(b.state.Numbers, func(k string, _ Numbers) bool { return !numbers[k] })
	b.place()
	b.files(docs)
	keep := map[string]bool{}
	for _, p := range slices.Concat(b.pods, b.old()) {
		keep[p.Key()] = true
	}
	maps.DeleteFunc(b.state.Pods, func(k string, _ Slot) bool { return !keep[k] })
	slices.SortStableFunc(b.notes, func(x, y Note) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line))
	})
	return b
}

func (b *builder) cluster() *Cluster {
	return &Cluster{Pods: b.pods, Services: b.svcs, Files: b.out, Notes: b.notes, State: b.state}
}

// Latest keeps the last doc of each object at the place of the first, as applying
// them one after the other does.
func Latest(docs []Doc) []Doc {
	at := map[objects.Ref]int{}
	var out []Doc
	for _, d := range docs {
		if i, ok := at[d.Ref()]; ok {
			out[i].Raw = d.Raw
			continue
		}
		at[d.Ref()] = len(out)
		out = append(out, d)
	}
	return out
}

// clusterScoped are kinds that have no namespace whatever their metadata says.
// Others without a namespace are taken to be in "default"; where that is wrong it
// makes no difference, as their names are unique all the same.
var clusterScoped = []objects.Kind{objects.NamespaceKind, objects.NodeKind}

// notRun are kinds that ask for pods in Kubernetes and not here.
var notRun = []objects.Kind{{Group: "batch", Kind: "Job"}, {Group: "batch", Kind: "CronJob"}, {Group: "", Kind: "ReplicationController"}}

// Ref names the object among all of the cluster.
func (d Doc) Ref() objects.Ref {
	ns := cmp.Or(d.Namespace, corev1.NamespaceDefault)
	if slices.Contains(clusterScoped, d.Kind) {
		ns = ""
	}
	return objects.Ref{Kind: d.Kind, Namespace: ns, Name: d.Name}
}

// builder is one Build.
type builder struct {
	options Options
	state   State
	objects []*objects.Object  // of kinds that this package reads, in order
	invalid []Doc              // of those kinds that could not be decoded whole
	ofPods  []model.Diagnostic // of pods that are used, in whose place others are put
	svcs    []*Service
	pods    []*Pod
	asked   map[string]bool // keys of pods
	out     []File
	notes   []Note
	noted   map[Note]bool
}

// read decodes the kinds that matter here; agents judge the others.
func (b *builder) read(docs []Doc) {
	r := objects.NewRegistry(kubernetes.New(kubernetes.Options{}).Types()...)
	for _, d := range docs {
		if slices.Contains(notRun, d.Kind) {
			b.note(&objects.Object{Kind: d.Kind, Namespace: d.Ref().Namespace, Name: d.Name, Place: objects.Place{File: d.File, First: d.Line}},
				"no pods: the lab does not run objects of this kind")
		}
		if !r.Has(d.Kind) {
			continue
		}
		batch := objects.Decode(r, objects.Input{Name: d.File, Data: d.Text})
		for _, o := range batch.Objects {
			switch {
			case o.Invalid:
				b.invalid = append(b.invalid, d)
				b.note(o, "not used, it is invalid: %s", batch.Diagnostics[0].Message)
			case o.Kind == objects.NodeKind:
				b.note(o, "left out: the lab has nodes of its own")
			default:
				b.objects = append(b.objects, o)
				if o.Kind == objects.PodKind {
					b.ofPods = append(b.ofPods, batch.Diagnostics...)
				}
			}
		}
	}
}

// note says once what is not done as an object says.
func (b *builder) note(o *objects.Object, format string, a ...any) {
	b.add(Note{File: o.Place.File, Line: o.Place.First, Object: o.Kind.Kind + " " + o.Key(), Message: fmt.Sprintf(format, a...)})
}

// lose is note of something that the object asks for and the cluster lacks.
func (b *builder) lose(o *objects.Object, format string, a ...any) {
	b.add(Note{o.Place.File, o.Place.First, o.Kind.Kind + " " + o.Key(), fmt.Sprintf(format, a...), o})
}

func (b *builder) add(n Note) {
	if !b.noted[n] {
		b.noted[n] = true
		b.notes = append(b.notes, n)
	}
}

// old are the pods of before that the objects no longer ask for.
func (b *builder) old() []*Pod {
	var out []*Pod
	for _, p := range b.options.Old {
		if !b.asked[p.Key()] {
			out = append(out, p)
		}
	}
	return out
}
