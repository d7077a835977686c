// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/translators/objects"
)

// lab is one verb's hold on a lab.
type lab struct {
	paths  paths
	record *record
	out    io.Writer
}

func (l *lab) say(format string, a ...any) {
	fmt.Fprintf(l.out, format+"\n", a...)
}

// cleanupLimit is how long taking down may take after the caller has lost patience.
const cleanupLimit = 20 * time.Second

// Up puts up a lab, in place of one that had its name or of what was left of it. If
// it cannot, or the context ends, nothing remains.
func Up(ctx context.Context, o Options) (*Status, error) {
	name, nodes := cmp.Or(o.Name, DefaultName), cmp.Or(o.Nodes, 2)
	if err := checkName(name); err != nil {
		return nil, err
	}
	if nodes < 1 || nodes > cluster.MaxNodes {
		return nil, fmt.Errorf("%d nodes: a lab has 1 to %d", nodes, cluster.MaxNodes)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab needs root: it makes network namespaces")
	}
	r := &record{Name: name, Images: maps.Clone(o.Images), EnvoyPath: o.EnvoyPath, NoAgent: o.NoAgent, Daemons: map[string]process{}}
	for i := range nodes {
		r.Nodes = append(r.Nodes, fmt.Sprintf("node-%d", i+1))
	}
	var err error
	if r.Binary = o.Binary; r.Binary == "" {
		if r.Binary, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find own program: %w", err)
		}
	}
	docs, err := readDocs(objects.Files(o.Files, cmp.Or[io.Reader](o.Stdin, os.Stdin)))
	if err != nil {
		return nil, err
	}
	r.merge(docs)
	k, err := takeLock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer k.unlock()
	l := &lab{paths: pathsOf(name), record: r, out: cmp.Or[io.Writer](o.Out, io.Discard)}
	if _, err := os.Stat(l.paths.run); err == nil {
		l.say("lab %s: removing what there was of that name", name)
	}
	if err := tearDown(ctx, name); err != nil {
		return nil, err
	}
	if err := l.up(ctx); err != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		k.remove = true
		return nil, errors.Join(err, tearDown(late, name))
	}
	return l.status(), nil
}

func (l *lab) up(ctx context.Context) error {
	for _, dir := range []string{l.paths.source(), l.paths.logs(), l.paths.netns(), filepath.Join(l.paths.run, "etc")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make run folder: %w", err)
		}
	}
	var err error
	if l.record.Cgroup, err = makeCgroup(l.record.Name); err != nil {
		return err
	}
	if err := l.tools(); err != nil {
		return err
	}
	if err := l.wireFabric(); err != nil {
		return err
	}
	// What the agents read first is the cluster, not an empty folder.
	if err := l.write(l.cluster(true)); err != nil {
		return err
	}
	if err := l.places(); err != nil {
		return err
	}
	if err := l.daemons(ctx); err != nil {
		return err
	}
	if err := l.record.save(); err != nil { // what asks for the lab's status meanwhile gets an answer
		return err
	}
	if err := l.reconcile(ctx); err != nil {
		return err
	}
	for _, n := range l.record.Nodes {
		for _, what := range l.daemonNames() {
			if why := l.daemonState(n, what); why != running {
				return fmt.Errorf("%s of %s %s", what, n, why)
			}
		}
	}
	return l.record.save()
}

// places prepares the places that are not pods.
func (l *lab) places() error {
	for _, n := range l.record.Nodes {
		if err := os.MkdirAll(l.paths.bpf(n), 0o755); err != nil {
			return fmt.Errorf("make run folder of %s: %w", n, err)
		}
		if err := unix.Mount("bpf", l.paths.bpf(n), "bpf", 0, ""); err != nil {
			return fmt.Errorf("mount BPF file system of %s: %w", n, err)
		}
		if err := os.MkdirAll(filepath.Join(l.nodeCgroup(n), "pods"), 0o755); err != nil {
			return fmt.Errorf("make cgroup of %s: %w", n, err)
		}
		at := place{Netns: l.paths.ns(n), Cgroup: filepath.Join(l.nodeCgroup(n), "system"), Path: l.bin()}
		if err := l.place(n, at); err != nil {
			return err
		}
		// The proxy looks names up, those of the cluster, too. It needs the programs that
		// are mounted, and no namespaces of pods, which it would keep alive.
		var err error
		at.Hide = l.paths.netns()
		at.Files, err = l.etcFiles(proxyPlace(n), map[string]string{"/etc/resolv.conf": fmt.Sprintf("nameserver %s\n", dnsAddress)})
		if err != nil {
			return err
		}
		if err := l.place(proxyPlace(n), at); err != nil {
			return err
		}
	}
	return l.place(outsidePlace, place{Netns: l.paths.ns(outsidePlace), Cgroup: filepath.Join(l.record.Cgroup, outsidePlace), Path: l.bin()})
}

// proxyPlace is where a node's proxy runs.
func proxyPlace(node string) string { return node + ".proxy" }

func (l *lab) nodeCgroup(node string) string { return filepath.Join(l.record.Cgroup, node) }

func (l *lab) podCgroup(p *cluster.Pod) string {
	return filepath.Join(l.nodeCgroup(p.Node), "pods", p.Namespace+"_"+p.Name)
}

func (l *lab) bin() string { return filepath.Join(l.paths.run, "bin") }

func (l *lab) place(name string, p place) error {
	if err := os.MkdirAll(l.paths.etc(name), 0o755); err != nil {
		return fmt.Errorf("make place %s: %w", name, err)
	}
	return p.save(l.paths.spec(name))
}

// tools are commands that every place of the lab has. They need a file system of
// their own: many machines run nothing that is in /run.
func (l *lab) tools() error {
	if err := os.MkdirAll(l.bin(), 0o755); err != nil {
		return fmt.Errorf("make folder of tools: %w", err)
	}
	if err := unix.Mount("tmpfs", l.bin(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("make folder of tools: %w", err)
	}
	for name, command := range map[string]string{"fairlead": "", "load": " " + loadCommand, "request": " " + requestCommand, "call": " " + callCommand, "echo-server": " " + echoCommand} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s%s \"$@\"\n", shellQuote(l.record.Binary), command)
		file := filepath.Join(l.bin(), name)
		if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
			return fmt.Errorf("write tool %s: %w", name, err)
		}
	}
	return nil
}

// merge takes up docs as applying them does: an object that is there keeps its
// place in the order of creation.
func (r *record) merge(docs []cluster.Doc) {
	for _, d := range docs {
		i := slices.IndexFunc(r.Docs, func(have cluster.Doc) bool { return have.Ref() == d.Ref() })
		if i >= 0 {
			r.Docs[i].Raw = d.Raw
			continue
		}
		r.LastSeq++
		d.Seq = r.LastSeq
		r.Docs = append(r.Docs, d)
	}
}

// readDocs cuts inputs into objects. Those that are broken are errors, the others
// are returned all the same.
func readDocs(inputs []objects.Input) ([]cluster.Doc, error) {
	var docs []cluster.Doc
	var errs []error
	for _, in := range inputs {
		raws, _, diags := objects.Cut(in)
		for _, d := range diags {
			errs = append(errs, fmt.Errorf("%s:%d: %s", d.Source.File, d.Source.Line, d.Message))
		}
		for _, r := range raws {
			docs = append(docs, cluster.Doc{Raw: r})
		}
	}
	return docs, errors.Join(errs...)
}
