// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"slices"
)

// StatusOf says what a lab consists of and how it is.
func StatusOf(name string) (*Status, error) {
	r, err := loadRecord(cmp.Or(name, DefaultName))
	if err != nil {
		return nil, err
	}
	return (&lab{paths: pathsOf(r.Name), record: r}).status(), nil
}

// RunDirs are the run folders of a lab's nodes, in order.
func RunDirs(name string) ([]string, error) {
	r, err := loadRecord(cmp.Or(name, DefaultName))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range r.Nodes {
		out = append(out, pathsOf(r.Name).node(n))
	}
	return out, nil
}

func (l *lab) status() *Status {
	s := &Status{Name: l.record.Name, Run: l.paths.run, Services: l.record.Services, Outside: outsideAddresses, Notes: l.record.Notes}
	for _, n := range l.record.Nodes {
		s.Nodes = append(s.Nodes, l.nodeStatus(n))
	}
	for _, p := range l.record.Pods {
		ps := PodStatus{Namespace: p.Namespace, Name: p.Name, Node: p.Node, Addresses: p.Addresses, Workload: p.Workload,
			ServiceAccount: p.ServiceAccount, Ready: p.Ready && p.running(), State: l.podState(p)}
		for _, pr := range p.Programs {
			ps.Images = append(ps.Images, pr.Image)
			if pr.Note != "" {
				ps.Notes = append(ps.Notes, pr.Note)
			}
		}
		s.Pods = append(s.Pods, ps)
	}
	slices.SortFunc(s.Pods, func(a, b PodStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return s
}
