// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
)

// Target is what is asked about: a service, a host without service, or a pod.
type Target struct {
	Namespace, Name string
	Port            uint16 // of a service or host; 0: all
}

// ParseTarget reads "namespace/name" or "namespace/name:port", and of a host without
// service "namespace/host/name" too, as its key has it.
func ParseTarget(s string) (Target, error) {
	ns, name, ok := strings.Cut(s, "/")
	name, port, hasPort := strings.Cut(strings.TrimPrefix(name, "host/"), ":")
	t := Target{Namespace: ns, Name: name}
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return Target{}, fmt.Errorf("%q: want NAMESPACE/NAME, or NAMESPACE/NAME:PORT of a service; for a request say --from and --url", s)
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Target{}, fmt.Errorf("%q: %q is no port", s, port)
		}
		t.Port = uint16(n)
	}
	return t, nil
}

// String is what ParseTarget reads.
func (t Target) String() string {
	if t.Port == 0 {
		return t.Namespace + "/" + t.Name
	}
	return model.FrontendKey(t.Namespace, t.Name, t.Port)
}

// NotFoundError says that nothing has the name.
type NotFoundError struct {
	Target Target
	hint   string // what there is
}

// Error names the target, and what there is.
func (e *NotFoundError) Error() string {
	if e.Target.Port != 0 {
		return "there is no service or host " + e.Target.String() + e.hint
	}
	return "there is no service, host or pod " + e.Target.String() + e.hint
}

// hint says what there is in place of what is not found: other ports of the name, or else
// names that have a part of it, or all of the namespace, some of them.
func hint(t *view, target Target) string {
	const most = 5
	var ports, named, all []string
	add := func(namespace, name string) {
		if namespace != target.Namespace {
			return
		}
		all = append(all, namespace+"/"+name)
		if strings.Contains(name, target.Name) {
			named = append(named, namespace+"/"+name)
		}
	}
	for _, row := range t.Rows(translators.Services) {
		s := row.Value.(*model.Service)
		add(s.Namespace, s.Name)
		for _, p := range s.Ports {
			if row.Key == target.Namespace+"/"+target.Name {
				ports = append(ports, model.FrontendKey(s.Namespace, s.Name, p.Port))
			}
		}
	}
	if target.Port == 0 {
		for _, row := range t.Rows(translators.Workloads) {
			w := row.Value.(*model.Workload)
			add(w.Namespace, w.Name)
		}
	}
	some := all
	for _, better := range [][]string{named, ports} {
		if len(better) > 0 {
			some = better
		}
	}
	slices.Sort(some)
	some = slices.Compact(some)
	switch {
	case len(some) == 0:
		return ", nor anything else in that namespace"
	case len(some) > most:
		some = append(some[:most], "others")
	}
	return "; there are " + strings.Join(some, ", ")
}
