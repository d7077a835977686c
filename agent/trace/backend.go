// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
)

// clusterName are the parts of the name of a cluster of a service's port: what it is, the
// port, the labels of the endpoints, and what tells it apart besides.
var clusterName = regexp.MustCompile(`^(mirror/|missing/|dialled/)?(.+:\d+)(?:/([0-9a-f]{16}))?(?:=[0-9a-f]{16})?(?:\+[a-z0-9]+)?(?:~[a-z0-9]+)?(?:@6)?$`)

// Backends gives names of clusters in the words of those who wrote the routes: the service
// with its port, and the labels that its endpoints have to have. Several clusters may have
// the same: they differ in how the endpoints are dealt with, or in what these let in.
func Backends(t Tables) func(cluster string) string {
	labels := labelsByHash(t)
	return func(cluster string) string {
		if parts := strings.Split(cluster, "|"); len(parts) > 2 && (parts[0] == "tcp" || parts[0] == "tls") {
			return streamWords(parts)
		}
		parts := clusterName.FindStringSubmatch(cluster)
		if parts == nil {
			return cluster
		}
		name := parts[2]
		if of := labels[parts[3]]; len(of) > 0 {
			name += "{" + labelWords(of) + "}"
		}
		switch parts[1] {
		case "missing/":
			name += " (not there)"
		case "dialled/":
			name += " (as it is dialled)"
		}
		return name
	}
}

// streamWords are those of a cluster of connections: it is named by what these are.
func streamWords(parts []string) string {
	n := len(parts)
	out := "connections to " + parts[n-1]
	if n > 3 && parts[1] != "" {
		out += " for " + parts[1]
	}
	if class := parts[n-2]; class != "" {
		out += " from clients of class " + class
	}
	return out
}

// labelsByHash are those by which routes narrow backends.
func labelsByHash(t Tables) map[string]map[string]string {
	out := map[string]map[string]string{}
	add := func(in ...model.Backend) {
		for _, b := range in {
			if len(b.Labels) > 0 {
				out[model.Hash(b.Labels)[:16]] = b.Labels
			}
		}
	}
	for _, row := range t.Rows(merge.Frontends) {
		f := row.Value.(*model.Frontend)
		add(f.Backends...)
		for _, c := range f.Connections {
			add(c.Backends...)
		}
		for _, r := range f.Routes {
			add(r.Backends...)
			for _, m := range r.Mirrors {
				add(m.Backend)
			}
		}
	}
	return out
}

func labelWords(labels map[string]string) string {
	words := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, k+"="+labels[k])
	}
	return strings.Join(words, ",")
}

// backend is a cluster's name in those words.
func (t *tracer) backend(cluster string) string {
	if t.backends == nil {
		t.backends = Backends(t)
	}
	return t.backends(cluster)
}
