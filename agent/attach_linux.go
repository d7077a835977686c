// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/model/incr"
)

const (
	// readAgain is how often records are read though nothing was heard of a change.
	readAgain = 30 * time.Second
	// lookEvery is how often it is looked whether there are other records.
	lookEvery = 200 * time.Millisecond
	// answerEvery is how often it is looked whether an attachment is done that a plugin
	// waits for: an interface may be tried again, and a listener taken, at any time.
	answerEvery = 20 * time.Millisecond
)

// podKernel is what the kernel's part knows of pods.
type podKernel interface {
	SetPlaces(map[netip.Addr]datapath.Place)
	Pod(name string) (datapath.PodStatus, bool)
}

// attachments are those that plugins have told of, and the plugins that wait. The folder
// of records is the truth: they come without an agent, too.
type attachments struct {
	run  string
	log  *slog.Logger
	wake chan struct{} // the records are others than before, or somebody has asked
	// linkName gives the name of an interface, "" if there is none of an index.
	linkName func(index int) (string, error)

	mu      sync.Mutex
	records []cni.Record // oldest first
	problem string
	waiting map[*plugin]bool
}

// plugin waits for an attachment.
type plugin struct {
	id   cni.ID
	last cni.Answer
	next chan cni.Answer // the newest that it has not been told
}

func newAttachments(run string, log *slog.Logger) *attachments {
	return &attachments{run: run, log: log, wake: make(chan struct{}, 1), linkName: linkName, waiting: map[*plugin]bool{}}
}

func (s *attachments) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// read reads the folder, and rouses the loop if it holds something else than before.
func (s *attachments) read() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := cni.ReadAll(s.run)
	s.problem = ""
	if err != nil {
		s.problem = err.Error()
	}
	if !reflect.DeepEqual(now, s.records) {
		s.records = now
		s.rouse()
	}
}

// goneAfter is how old a record is before it can be one that nobody takes away: a plugin
// that was out of use when its pod went was not told.
const goneAfter = time.Minute

// prune removes the records of interfaces that are not there any more.
func (s *attachments) prune(now time.Time) {
	records, _ := s.get()
	for _, r := range records {
		if now.Sub(r.At) < goneAfter || r.Link.Name == "" {
			continue
		}
		if name, err := s.linkName(r.Link.Index); err != nil || name == r.Link.Name {
			continue // it is there, or that cannot be told
		}
		s.log.Info("pod's network is gone, and nobody said so", "pod", r.Key(), "interface", r.Link.Name)
		_ = cni.Remove(s.run, r.ID) // it is tried again
	}
}

// linkName asks the kernel. The standard library does not tell an interface that is not
// there from a question that was not answered.
func linkName(index int) (string, error) {
	l, err := netlink.LinkByIndex(index)
	switch {
	case err == nil:
		return l.Attrs().Name, nil
	case errors.Is(err, unix.ENODEV), errors.As(err, new(netlink.LinkNotFoundError)):
		return "", nil
	}
	return "", fmt.Errorf("look for interface %d: %w", index, err)
}

func (s *attachments) get() ([]cni.Record, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records, s.problem
}

// watch keeps up with the folder until the context ends. It looks at when the folder
// changed last, for a node may have no inotify left, and who waits for an answer has it
// read at once.
func (s *attachments) watch(ctx context.Context) error {
	dir := filepath.Join(s.run, cni.Folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("watch records: %w", err)
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var changed, read time.Time
	for {
		if info, err := os.Stat(dir); err != nil || !info.ModTime().Equal(changed) || time.Since(read) > readAgain {
			if err == nil && time.Since(info.ModTime()) > lookEvery { // else more may come at the same time
				changed = info.ModTime()
			}
			read = time.Now()
			s.read()
			s.prune(read)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// answers are those of a plugin's question; see cni.Serve.
func (s *attachments) answers(ctx context.Context, id cni.ID, f func(cni.Answer) bool) {
	s.read()
	p := &plugin{id: id, next: make(chan cni.Answer, 1)}
	s.mu.Lock()
	s.waiting[p] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, p)
	}()
	s.rouse()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-p.next:
			if !f(a) {
				if r, err := cni.Read(s.run, id); err == nil && a.Ready {
					s.log.Info("pod may start", "pod", r.Key(), "took", time.Since(r.At).Round(time.Millisecond))
				}
				return
			}
		}
	}
}

// tell has every plugin that waits told what there is to say. It reports whether one goes
// on waiting.
func (s *attachments) tell(judge func(cni.Record) cni.Answer) (waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.waiting {
		a := cni.Answer{State: "the agent has no record of it"}
		if i := slices.IndexFunc(s.records, func(r cni.Record) bool { return r.ID == p.id }); i >= 0 {
			a = judge(s.records[i])
		}
		waiting = waiting || !a.Ready
		if a == p.last {
			continue
		}
		p.last = a
		select {
		case <-p.next: // was not taken, and is not true any more
		default:
		}
		p.next <- a
	}
	return waiting
}

// pluginStatus is what there is to tell of the plugin, nil if nobody has one.
func (a *agent) pluginStatus() *PluginStatus {
	s := a.attached
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.opts.Plugin == nil && len(s.records) == 0 {
		return nil
	}
	out := &PluginStatus{Pods: len(s.records), Waiting: len(s.waiting)}
	a.mu.Lock()
	defer a.mu.Unlock()
	out.Configuration = a.pluginIn
	var problems []string
	for _, t := range ofPlugin {
		if p := a.problems[t]; p != "" {
			problems = append(problems, p)
		}
	}
	out.Problem = strings.Join(problems, "; ")
	return out
}

func attachmentOf(r cni.Record) pipeline.Attachment {
	return pipeline.Attachment{Pod: r.Key(), UID: r.UID, Addresses: r.Addresses}
}

// setAttachments brings the records into the pipeline, and tells the kernel's part where
// the pods are.
func (a *agent) setAttachments() []incr.Change {
	records, problem := a.attached.get()
	a.say(aboutRecords, problem)
	all := make([]pipeline.Attachment, len(records))
	places := map[netip.Addr]datapath.Place{}
	for i, r := range records {
		all[i] = attachmentOf(r)
		for _, addr := range r.Addresses {
			places[addr] = datapath.Place{Index: r.Link.Index, Name: r.Link.Name, Cookie: r.Link.Cookie}
		}
	}
	if a.pods != nil {
		a.pods.SetPlaces(places)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pipe.SetAttachments(all)
}

// reattach takes up which attachments the node has. Before the first application, and
// where the source is not this node's, load does it.
func (a *agent) reattach(ctx context.Context) {
	if !a.begun || a.held {
		return
	}
	changes := a.setAttachments()
	if len(changes) > 0 {
		a.bring(ctx, a.res.take(changes), func() error { return a.writeKernel(ctx, changes) })
	}
}

// judgeAttachment is what there is to say of an attachment as things stand.
func (a *agent) judgeAttachment(r cni.Record) cni.Answer {
	if !a.begun || a.held {
		return cni.Answer{State: "the agent has not read this node's objects yet"}
	}
	a.mu.Lock()
	known, problem := a.pipe.Attached(attachmentOf(r)), a.problems[aboutKernel]
	a.mu.Unlock()
	switch {
	case !known:
		return cni.Answer{State: "the pod is not known yet from the objects"}
	case a.resync && a.notBefore.IsZero(): // where rows are left out, the others are written
		return cni.Answer{State: problem}
	case a.pods == nil:
		return cni.Answer{State: "there is no kernel"}
	}
	st, ok := a.pods.Pod(r.Key())
	if !ok || !slices.Equal(st.Addresses, r.Addresses) {
		return cni.Answer{State: "the pod is not in the kernel yet"}
	}
	return cni.Answer{Guarded: st.Guarded, Ready: st.Ready, State: st.Reason}
}
