// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/tools/txtar"
)

// Scenario is one point at which the halves are compared.
type Scenario struct {
	Name string
	// About are the fields that it varies, "Kind path.without.spec.or.positions".
	About []string
	World *World
	Mesh  string // MeshConfig
	Istio string // objects of Istio
	// Sidecars: the servers have sidecars, too. Without, what is sent reaches them past
	// none; it is set where some object is about what comes in.
	Sidecars bool
	// Version of Istio whose behaviour is wanted; "" is the newest.
	Version  string
	Requests []*Request
	// Text is the scenario as a file.
	Text []byte
}

// Read reads a scenario's file.
func Read(path string) (*Scenario, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	s, err := FromArchive(strings.TrimSuffix(filepath.Base(path), ".txtar"), a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// FromArchive makes a scenario of sections "istio.yaml", "mesh.yaml", "world" and
// "requests". Lines of the comment that begin with "about:" name fields.
func FromArchive(name string, a *txtar.Archive) (*Scenario, error) {
	s := &Scenario{Name: name, World: &World{}, Text: txtar.Format(a)}
	for line := range strings.Lines(string(a.Comment)) {
		if f, ok := strings.CutPrefix(strings.TrimSpace(line), "about:"); ok {
			for one := range strings.SplitSeq(f, ",") {
				s.About = append(s.About, strings.TrimSpace(one))
			}
		}
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "version:"); ok {
			s.Version = strings.TrimSpace(v)
		}
	}
	if len(s.About) == 0 {
		return nil, fmt.Errorf("no line about:")
	}
	if err := s.World.Parse(Base); err != nil {
		return nil, err
	}
	for _, f := range a.Files {
		text := string(f.Data)
		switch f.Name {
		case "istio.yaml":
			s.Istio = text
		case "mesh.yaml":
			s.Mesh = text
		case "world":
			if err := s.World.Parse(text); err != nil {
				return nil, fmt.Errorf("world: %w", err)
			}
		case "requests":
			rs, err := ParseRequests(text)
			if err != nil {
				return nil, err
			}
			s.Requests = rs
		default:
			return nil, fmt.Errorf("section %q: want istio.yaml, mesh.yaml, world or requests", f.Name)
		}
	}
	if len(s.Requests) == 0 {
		return nil, fmt.Errorf("no requests")
	}
	for _, k := range []string{"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"} {
		s.Sidecars = s.Sidecars || strings.Contains(s.Istio, "kind: "+k)
	}
	s.Sidecars = s.Sidecars || strings.Contains(s.Istio, "ISTIO_MUTUAL")
	for _, q := range s.Requests {
		if s.World.Pod(q.Source) == nil {
			return nil, fmt.Errorf("%s: there is no pod %s", q.Text, q.Source)
		}
	}
	return s, nil
}
