// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"fairlead.io/fairlead/lab/cluster"
)

// DefaultName is the lab that is meant when none is named.
const DefaultName = "default"

// Root is the folder of all labs' run folders.
const Root = "/run/fairlead/lab"

// Options of Up.
type Options struct {
	Name   string // "" = DefaultName
	Nodes  int    // 0 = 2
	Files  []string
	Stdin  io.Reader         // what "-" among Files reads
	Images map[string]string // image -> command line of this machine
	Binary string            // path of fairlead; "" = this program
	// EnvoyPath is the Envoy of the proxies; "" leaves it to them.
	EnvoyPath string
	// NoAgent leaves out agent and proxy: a plain network, and no services.
	NoAgent bool
	Out     io.Writer // progress, for people; nil: silent
}

// Change is what Apply and Delete are given.
type Change struct {
	Name  string
	Files []string
	Stdin io.Reader // what "-" among Files reads
	Out   io.Writer // progress; nil: silent
}

// Stdio are a command's standard streams; nil is /dev/null.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Status is what a lab consists of.
type Status struct {
	Name     string          `json:"name"`
	Run      string          `json:"run"` // folder; logs are below
	Nodes    []NodeStatus    `json:"nodes"`
	Pods     []PodStatus     `json:"pods"`
	Services []ServiceStatus `json:"services"`
	// Outside are the addresses of what is no part of the cluster.
	Outside []netip.Addr `json:"outside"`
	// Notes say what is not as the manifests have it.
	Notes []cluster.Note `json:"notes,omitempty"`
}

// NodeStatus is a node.
type NodeStatus struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	// Processes maps agent, proxy and dns to "running" or to what became of it.
	Processes map[string]string `json:"processes"`
}

// PodStatus is a pod.
type PodStatus struct {
	Namespace      string       `json:"namespace"`
	Name           string       `json:"name"`
	Node           string       `json:"node"`
	Addresses      []netip.Addr `json:"addresses"`
	Workload       string       `json:"workload,omitempty"`
	ServiceAccount string       `json:"serviceAccount"`
	Ready          bool         `json:"ready"`
	State          string       `json:"state"` // "running" or what is wrong
	Images         []string     `json:"images,omitempty"`
	Notes          []string     `json:"notes,omitempty"` // what runs in place of an image
}

// ServiceStatus is a service.
type ServiceStatus struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // none: headless
	Ports     []string     `json:"ports"`
}

// ErrNoLab says that there is no lab of a name.
var ErrNoLab = errors.New("there is no such lab")

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$`)

// checkName bounds names, because the paths of sockets are bounded.
func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("name %q: want up to 24 lower-case letters, digits and dashes", name)
	}
	return nil
}

// paths of a lab. Everything of a lab is below its run folder.
type paths struct{ run string }

func pathsOf(name string) paths { return paths{filepath.Join(Root, name)} }

func (p paths) source() string           { return filepath.Join(p.run, "source") }
func (p paths) logs() string             { return filepath.Join(p.run, "logs") }
func (p paths) netns() string            { return filepath.Join(p.run, "netns") }
func (p paths) node(n string) string     { return filepath.Join(p.run, n) }
func (p paths) bpf(n string) string      { return filepath.Join(p.run, n, "bpf") }
func (p paths) record() string           { return filepath.Join(p.run, "lab.json") }
func (p paths) etc(place string) string  { return filepath.Join(p.run, "etc", place) }
func (p paths) ns(place string) string   { return filepath.Join(p.netns(), place) }
func (p paths) spec(place string) string { return filepath.Join(p.run, "etc", place, "place.json") }

// Places are where processes run; each has a network namespace of its name.
// Their names have no underscore but between the parts of a pod's.
const (
	fabricPlace  = "fabric"
	outsidePlace = "outside"
)

func podPlace(p *cluster.Pod) string { return p.Node + "_" + p.Namespace + "_" + p.Name }

// List names the labs that are there.
func List() ([]string, error) {
	entries, err := os.ReadDir(Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && validName.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
