// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Files are read in the order of their names: nodes, then the user's objects in
// the order of Seq, then what was made of them. So the user's objects keep their
// places when pods come and go.
func (b *builder) files(docs []Doc) {
	for i, name := range b.options.Nodes {
		b.generate("a", b.node(name, i+1), "lab", 1)
	}
	given := map[string]*Service{}
	for _, s := range b.svcs {
		given[s.Key()] = s
	}
	for _, d := range docs {
		if d.Kind == objects.NodeKind || d.Kind == objects.PodKind {
			continue // the lab's own take their place
		}
		f := File{DocName(d), d.Text}
		if s := given[d.Ref().Namespace+"/"+d.Name]; d.Kind == objects.ServiceKind && s != nil && len(s.given) > 0 {
			f.Data = withAddresses(d, s)
		}
		b.out = append(b.out, f)
	}
	b.implied(docs)
	for _, p := range b.running() {
		o := p.Object.DeepCopy()
		status := corev1.ConditionFalse
		if b.ready(p) {
			status = corev1.ConditionTrue
		}
		o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
		b.generate("z", o, p.File, p.Line)
	}
	for _, s := range b.svcs {
		if len(s.object.Spec.Selector) == 0 || s.object.Spec.Type == corev1.ServiceTypeExternalName {
			continue // its endpoints are the user's
		}
		for _, family := range families(s.object) {
			for _, e := range b.endpointSlices(s, family) {
				b.generate("z", e, s.source.Place.File, s.source.Place.First)
			}
		}
	}
	slices.SortFunc(b.out, func(x, y File) int { return strings.Compare(x.Name, y.Name) })
}

func (b *builder) node(name string, n int) *corev1.Node {
	o := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}}
	o.Name = name
	o.Labels = map[string]string{corev1.LabelHostname: name}
	if b.options.Managed {
		o.Annotations = map[string]string{kubernetes.AgentKey: "true"}
	}
	for _, a := range NodeAddresses(n) {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	for _, r := range PodRanges(n) {
		o.Spec.PodCIDRs = append(o.Spec.PodCIDRs, r.String())
	}
	o.Spec.PodCIDR = o.Spec.PodCIDRs[0]
	o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return o
}

// implied adds the namespaces and service accounts that objects are in or use and
// nobody wrote down.
func (b *builder) implied(docs []Doc) {
	have := map[objects.Ref]bool{}
	for _, d := range docs {
		have[d.Ref()] = true
	}
	add := func(kind objects.Kind, namespace, name string, at *objects.Object) {
		ref := objects.Ref{Kind: kind, Namespace: namespace, Name: name}
		if have[ref] {
			return
		}
		have[ref] = true
		meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
		if kind == objects.NamespaceKind {
			meta.Labels = map[string]string{corev1.LabelMetadataName: name}
			b.generate("z", &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind.Kind}, ObjectMeta: meta}, at.Place.File, at.Place.First)
			return
		}
		b.generate("z", &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind.Kind}, ObjectMeta: meta}, at.Place.File, at.Place.First)
	}
	for _, o := range b.objects {
		if o.Namespace != "" {
			add(objects.NamespaceKind, "", o.Namespace, o)
		}
	}
	for _, p := range b.running() {
		at := &objects.Object{Place: objects.Place{File: p.File, First: p.Line}}
		add(objects.NamespaceKind, "", p.Namespace, at)
		add(objects.ServiceAccountKind, p.Namespace, p.ServiceAccount, at)
	}
}

// named is what every object of Kubernetes' own has.
type named interface {
	GetNamespace() string
	GetName() string
}

// generate adds an object that stands for one of the user's, at its place.
func (b *builder) generate(prefix string, o named, file string, line int) {
	data, err := sigsyaml.Marshal(o)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", o.GetName(), err)) // plain structs
	}
	kind := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1."))
	name := fileName(prefix, kind, o.GetNamespace(), o.GetName())
	b.out = append(b.out, File{name, append(fmt.Appendf(nil, "# fairlead:source %s:%d generated\n", file, line), data...)})
}

// DocName is the name of the file for a user's object. Its first part is Seq.
func DocName(d Doc) string {
	return fileName(fmt.Sprintf("u%06d", d.Seq), strings.ToLower(d.Kind.Kind), d.Namespace, d.Name)
}

// fileName joins words with what no file name may have replaced.
func fileName(words ...string) string {
	var s strings.Builder
	for _, w := range words {
		if w == "" {
			continue
		}
		if s.Len() > 0 {
			s.WriteByte('.')
		}
		for _, r := range w[:min(len(w), 70)] {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
				s.WriteRune(r)
			} else {
				s.WriteByte('_')
			}
		}
		if len(w) > 70 {
			s.WriteString("-" + short(8, w))
		}
	}
	return s.String() + ".yaml"
}

// withAddresses adds clusterIPs to a service's text, without moving its lines
// where that can be done.
func withAddresses(d Doc, s *Service) []byte {
	ips := fmt.Sprintf("clusterIPs: [%s]", quoted(s.given))
	r := objects.NewRegistry(kubernetes.New(kubernetes.Options{}).Types()...)
	right := func(text []byte) bool {
		batch := objects.Decode(r, objects.Input{Name: d.File, Data: text})
		if len(batch.Objects) != 1 || batch.Objects[0].Invalid {
			return false
		}
		got := batch.Objects[0].Value.(*corev1.Service).DeepCopy()
		if strings.Join(got.Spec.ClusterIPs, ", ") != strings.ReplaceAll(quoted(s.given), `"`, "") {
			return false
		}
		got.Spec.ClusterIPs = s.object.Spec.ClusterIPs
		a, errA := sigsyaml.Marshal(got)
		b, errB := sigsyaml.Marshal(s.object)
		return errA == nil && errB == nil && bytes.Equal(a, b)
	}
	var doc yaml.Node
	if yaml.Unmarshal(d.Text, &doc) == nil {
		if text := insertInSpec(d.Text, &doc, ips); text != nil && right(text) {
			return text
		}
	}
	o := s.object.DeepCopy()
	o.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	o.Spec.ClusterIPs = nil
	for _, a := range s.given {
		o.Spec.ClusterIPs = append(o.Spec.ClusterIPs, a.String())
	}
	data, err := sigsyaml.Marshal(o)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", s.Key(), err)) // plain structs
	}
	return append(fmt.Appendf(nil, "# fairlead:source %s:%d generated\n", d.File, d.Line), data...)
}

func quoted(as []netip.Addr) string {
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = `"` + a.String() + `"`
	}
	return strings.Join(s, ", ")
}

// insertInSpec puts a field into a document's spec: on the line of its brace, or
// after its end if nothing follows.
func insertInSpec(text []byte, doc *yaml.Node, field string) []byte {
	if len(doc.Content) != 1 {
		return nil
	}
	top := doc.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		spec := top[i+1]
		if top[i].Value != "spec" || spec.Kind != yaml.MappingNode || len(spec.Content) == 0 {
			continue
		}
		if spec.Style&yaml.FlowStyle != 0 {
			lines := bytes.SplitAfter(text, []byte("\n"))
			l := lines[spec.Line-1]
			at := cmp.Or(bytes.IndexByte(l[spec.Column-1:], '{'), 0) + spec.Column
			lines[spec.Line-1] = slices.Concat(l[:at], []byte(field+", "), l[at:])
			return bytes.Join(lines, nil)
		}
		if i+2 == len(top) {
			return fmt.Appendf(nil, "%s\n%s%s\n", bytes.TrimRight(text, " \r\n"), strings.Repeat(" ", spec.Column-1), field)
		}
	}
	return nil
}
