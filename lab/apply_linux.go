// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/translators/objects"
)

// Apply takes up objects and makes the lab what they ask for. What is no longer
// running is started again. Documents that are broken are an error in the end; the
// others are taken up all the same.
func Apply(ctx context.Context, c Change) (*Status, error) {
	return change(ctx, c, func(l *lab, docs []cluster.Doc) { l.record.merge(docs) })
}

// Delete takes the objects that the files name out of the lab, whatever else the
// files say of them; a namespace goes with everything in it.
func Delete(ctx context.Context, c Change) (*Status, error) {
	return change(ctx, c, func(l *lab, docs []cluster.Doc) {
		for _, d := range docs {
			before := len(l.record.Docs)
			l.record.Docs = slices.DeleteFunc(l.record.Docs, func(have cluster.Doc) bool {
				inside := d.Kind == objects.NamespaceKind && have.Ref().Namespace == d.Name
				return have.Ref() == d.Ref() || inside
			})
			if len(l.record.Docs) == before {
				l.say("%s:%d: %s %s is not in the lab", d.File, d.Line, d.Kind.Kind, d.Name)
			}
		}
	})
}

func change(ctx context.Context, c Change, edit func(*lab, []cluster.Doc)) (*Status, error) {
	name := cmp.Or(c.Name, DefaultName)
	docs, broken := readDocs(objects.Files(c.Files, cmp.Or[io.Reader](c.Stdin, os.Stdin)))
	k, l, err := open(ctx, name, c.Out)
	if err != nil {
		return nil, err
	}
	defer k.unlock()
	edit(l, docs)
	err = l.daemons(ctx)
	if err == nil {
		err = l.reconcile(ctx)
	}
	if err := errors.Join(broken, err, l.record.save()); err != nil {
		return nil, err
	}
	return l.status(), nil
}

// open takes hold of a lab that is there.
func open(ctx context.Context, name string, out io.Writer) (*lock, *lab, error) {
	if _, err := loadRecord(name); err != nil {
		return nil, nil, err // before a lock file is made for nothing
	}
	k, err := takeLock(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	r, err := loadRecord(name)
	if err != nil {
		k.unlock()
		return nil, nil, err
	}
	return k, &lab{paths: pathsOf(name), record: r, out: cmp.Or[io.Writer](out, io.Discard)}, nil
}

// cluster computes what the objects ask for. Pods that are to go are still in it,
// and behind their services unless ending is set.
func (l *lab) cluster(ending bool) *cluster.Cluster {
	var old []*cluster.Pod
	ready := map[string]bool{}
	for _, p := range l.record.Pods {
		old = append(old, p.Pod)
		ready[p.Key()] = p.Ready
	}
	c := cluster.Build(l.record.Docs, cluster.Options{Nodes: l.record.Nodes, Managed: !l.record.NoAgent, Images: l.record.Images,
		Ready: func(pod string) bool { return ready[pod] }, Old: old, Ending: ending}, l.record.Cluster)
	l.record.Cluster, l.record.Notes = c.State, c.Notes
	l.record.Services = nil
	for _, s := range c.Services {
		l.record.Services = append(l.record.Services, ServiceStatus{Namespace: s.Namespace, Name: s.Name, Addresses: s.Addresses, Ports: s.Ports})
	}
	return c
}

// write makes the cluster folder what the cluster says. The names change in one
// go, so that the agents take up all of it at once.
func (l *lab) write(c *cluster.Cluster) error {
	dir := l.paths.source()
	want := map[string]bool{}
	var fresh []string
	for _, f := range c.Files {
		want[f.Name] = true
		path := filepath.Join(dir, f.Name)
		if have, err := os.ReadFile(path); err == nil && string(have) == string(f.Data) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "."+f.Name+".new"), f.Data, 0o644); err != nil {
			return fmt.Errorf("write cluster folder: %w", err)
		}
		fresh = append(fresh, f.Name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read cluster folder: %w", err)
	}
	for _, name := range fresh {
		if err := os.Rename(filepath.Join(dir, "."+name+".new"), filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("write cluster folder: %w", err)
		}
	}
	for _, e := range entries {
		if !want[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("write cluster folder: %w", err)
			}
		}
	}
	return nil
}

// reconcile makes what runs what the objects ask for: new pods first, then, when
// they take traffic, the old ones leave their services, and then they end.
func (l *lab) reconcile(ctx context.Context) error {
	c := l.cluster(false)
	l.printNotes()
	// A pod that is to be another under the same name has to go before.
	var moved []*pod
	for _, p := range l.record.Pods {
		for _, w := range c.Pods {
			if w.Key() == p.Key() && !sameRun(p.Pod, w) {
				moved = append(moved, p)
			}
		}
	}
	if err := l.retire(ctx, moved); err != nil {
		return err
	}
	waiting, err := l.create(c.Pods)
	if err != nil {
		return err
	}
	if err := l.write(l.cluster(false)); err != nil {
		return err
	}
	if err := l.run(ctx, waiting); err != nil {
		return err
	}
	var gone []*pod
	for _, p := range l.record.Pods {
		if !slices.ContainsFunc(c.Pods, func(w *cluster.Pod) bool { return w.Key() == p.Key() }) {
			gone = append(gone, p)
		}
	}
	if err := l.retire(ctx, gone); err != nil {
		return err
	}
	if err := l.write(l.cluster(true)); err != nil {
		return err
	}
	l.awaitApplied(ctx)
	return ctx.Err()
}

// sameRun reports whether a pod can become another without a new start: labels and
// the like may change.
func sameRun(have, want *cluster.Pod) bool {
	return have.Node == want.Node && have.HostNetwork == want.HostNetwork && have.ServiceAccount == want.ServiceAccount &&
		slices.Equal(have.Addresses, want.Addresses) && reflect.DeepEqual(have.Programs, want.Programs)
}

// create makes the pods that are not there, and returns those that do not take
// traffic: the new ones, those that have ended, and those that are slow.
func (l *lab) create(want []*cluster.Pod) ([]*pod, error) {
	var waiting []*pod
	for _, w := range want {
		i := slices.IndexFunc(l.record.Pods, func(p *pod) bool { return p.Key() == w.Key() })
		if i >= 0 {
			p := l.record.Pods[i]
			p.Pod, p.Ready = w, p.Ready && p.running()
			if !p.Ready {
				waiting = append(waiting, p)
			}
			continue
		}
		if err := l.makePod(w); err != nil {
			return nil, err
		}
		p := &pod{Pod: w}
		l.record.Pods = append(l.record.Pods, p)
		waiting = append(waiting, p)
	}
	return waiting, nil
}

// retire ends pods: they leave their services, finish what they do, and go.
func (l *lab) retire(ctx context.Context, pods []*pod) error {
	if len(pods) == 0 {
		return nil
	}
	for _, p := range pods {
		p.Ready = false
	}
	if err := l.write(l.cluster(true)); err != nil {
		return err
	}
	l.awaitApplied(ctx)
	if !l.record.NoAgent {
		// An Envoy that has acknowledged tells its workers only then, and they finish
		// with the connections that they have.
		select {
		case <-time.After(retireGrace):
		case <-ctx.Done():
		}
	}
	for _, p := range pods {
		for _, proc := range p.Processes {
			if err := proc.signal(syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
	_ = poll(ctx, stopLimit, 5*time.Millisecond, func() (bool, error) { // what has not ended by then is killed
		return !slices.ContainsFunc(pods, (*pod).alive), nil
	})
	for _, p := range pods {
		if err := l.removePod(ctx, p.Pod); err != nil {
			return err
		}
		l.record.Pods = slices.DeleteFunc(l.record.Pods, func(q *pod) bool { return q == p })
		l.say("pod %s: removed", p.Key())
	}
	return nil
}

// retireGrace is between a pod's leaving its services and the signal to end.
const retireGrace = 500 * time.Millisecond

// stopLimit is how long a pod may take to finish what it does.
const stopLimit = 3 * time.Second

func (l *lab) printNotes() {
	for _, n := range l.record.Notes {
		l.say("note: %s", n)
	}
}
