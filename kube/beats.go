// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Annotations of an agent's Lease that tell what it is; the operators' has the first.
const (
	VersionKey  = "fairlead.io/version"
	RevisionKey = "fairlead.io/revision"
	// PreflightKey is what was found on the node that is in the way, as JSON; see kube/preflight.
	PreflightKey = "fairlead.io/preflight"
	// GuardsKey is there once no pod starts on the node that its agent has not been told of.
	GuardsKey = "fairlead.io/guards-starts"
)

// beat is what a Lease says by its last renewal.
type beat struct {
	renewed                           string // changes with each
	at                                time.Time
	duration                          time.Duration
	holder, version, revision, behind string
	nodeUID                           string
}

// DefaultDuration is how long a node's word counts after it was heard, where it does not
// say so itself; maxDuration bounds what it may say.
const (
	DefaultDuration = 15 * time.Second
	maxDuration     = 10 * time.Minute
)

func beatOf(u *unstructured.Unstructured) *beat {
	b := &beat{duration: DefaultDuration}
	spec := func(name string) any { v, _, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", name); return v }
	b.holder, _ = spec("holderIdentity").(string)
	text, _ := spec("renewTime").(string)
	b.at, _ = time.Parse(time.RFC3339Nano, text)
	switch n := spec("leaseDurationSeconds").(type) {
	case int64:
		b.duration = time.Duration(n) * time.Second
	case float64:
		b.duration = time.Duration(n) * time.Second
	}
	b.duration = min(max(b.duration, time.Second), maxDuration)
	b.renewed = b.holder + " " + text
	notes := u.GetAnnotations()
	b.version, b.revision, b.behind, b.nodeUID = notes[VersionKey], notes[RevisionKey], notes[kubernetes.BehindKey], notes[kubernetes.NodeUIDKey]
	return b
}

// heartbeat is what is known of an agent by its Lease. How long it was not heard is
// counted by this machine's own time, and only while it would have been heard: clocks
// that differ do not matter, nor does an API server that is away.
type heartbeat struct {
	held   *held
	beat   *beat
	heard  time.Time     // when the last renewal came to be known here
	silent time.Duration // since then
	behind string        // why what the node checks does not count; "": it does
	gone   bool          // behind for so long that there is no agent
	since  time.Time     // when that began
}

// forgetAfter is how long an agent is waited for. A node that is behind still counts as one
// whose own kernel and proxy guard its pods, and others leave judging to it; of one that has
// no agent for so long, because it was taken out or uninstalled, nobody must believe that.
const forgetAfter = 10 * time.Minute

const forgotten = "its agent has not renewed its Lease for so long that the node counts as one without Fairlead"

const notRenewed = "its agent has not renewed its Lease in time: it was stopped, hangs, or does not reach the API server"

// judge decides whether the node's word counts.
func (h *heartbeat) judge(now time.Time) (changed bool) {
	why := h.beat.behind
	if why == "" && h.silent >= h.beat.duration {
		why = notRenewed
	}
	gone := h.silent >= h.beat.duration+forgetAfter
	if gone {
		why = forgotten
	}
	if why == h.behind && !h.since.IsZero() {
		return false
	}
	if changed = h.since.IsZero() || (why == "") != (h.behind == "") || gone != h.gone; changed {
		h.since = now
	}
	h.behind, h.gone = why, gone
	return changed
}

// edit is the Lease as the index has it; it has none of an agent that is gone.
func (h *heartbeat) edit(t objects.Type) objects.Edit {
	meta := map[string]any{"name": h.held.Name, "namespace": h.held.Namespace,
		"annotations": map[string]any{kubernetes.NodeUIDKey: h.beat.nodeUID, kubernetes.BehindKey: ""}}
	if h.behind != "" {
		// Why is told in status. It may change without any other effect.
		meta["annotations"].(map[string]any)[kubernetes.BehindKey] = "true"
	}
	if h.gone {
		return objects.Edit{Ref: objects.Ref{Kind: objects.LeaseKind, Namespace: h.held.Namespace, Name: h.held.Name}}
	}
	e := objects.DecodeAPI(t, map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta})
	e.New.SetUID(string(h.held.UID))
	return e
}

// heard notes a Lease's version.
func (s *Source) heard(w *kindWatch, o *held) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.beats[o.Name]
	switch {
	case h == nil || h.held.UID != o.UID:
		h = &heartbeat{heard: now}
		s.beats[o.Name] = h
		// Nobody knows how long it was not renewed. By the clocks of both machines it may be
		// in time; if they are wrong, it is so for one duration at most.
		switch age := now.Sub(o.beat.at); {
		case age > o.beat.duration+forgetAfter:
			h.silent = o.beat.duration + forgetAfter
		case age < -o.beat.duration || age > o.beat.duration:
			h.silent = o.beat.duration
		}
	case h.beat.renewed != o.beat.renewed:
		h.heard, h.silent = now, 0
	}
	h.held, h.beat = o, o.beat
	h.judge(now)
	s.noteLocked(w, o.Namespace+"/"+o.Name, h.edit(w.served.typ), nil)
}

// lost notes that a Lease is gone.
func (s *Source) lost(o *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.beats[o.Name]; h != nil && h.held.UID == o.UID {
		delete(s.beats, o.Name)
	}
}

// Deaf tells the source why what it does not hear is no news, "" if it is: whoever renews a
// Lease knows whether the API server answers, and whether its own renewals come back.
func (s *Source) Deaf(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = why
}

// sweep counts for how long Leases have not been renewed. After a time in which they would
// not have been heard, everybody has the whole of it again.
func (s *Source) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A process that was stopped has not listened either.
	passed := min(now.Sub(s.swept), 2*tellEvery)
	s.swept = now
	w := s.kinds[objects.LeaseKind]
	if w == nil || !w.synced {
		return
	}
	_, why := w.track.state(now)
	hears := why.kind == none && s.deaf == ""
	for name, h := range s.beats {
		switch {
		case h.gone:
			continue // until it is renewed
		case hears:
			h.silent += passed
		case h.behind == "":
			h.silent = 0
		}
		if h.judge(now) {
			s.log.Info("what a node checks does not count", "node", name, "why", h.behind)
			s.noteLocked(w, h.held.Namespace+"/"+name, h.edit(w.served.typ), nil)
		}
	}
}

// Peer is a node as its agent's Lease tells of it.
type Peer struct {
	Node     string `json:"node"`
	Instance string `json:"instance"` // the agent
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"` // of the configuration that it has applied
	// Behind is why what its proxy has checked does not count here, "" if it does.
	Behind   string        `json:"behind,omitempty"`
	Since    time.Time     `json:"since"`    // when that became so, as seen here
	Heard    time.Time     `json:"heard"`    // when the last renewal came to be known here
	Duration time.Duration `json:"duration"` // for how long it counts after that
	NodeUID  string        `json:"nodeUID,omitempty"`
}

// Peers are all agents that were heard of, by their nodes' names.
func (s *Source) Peers() []Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Peer
	for _, name := range slices.Sorted(maps.Keys(s.beats)) {
		out = append(out, s.beats[name].peer(name))
	}
	return out
}

func (h *heartbeat) peer(name string) Peer {
	return Peer{name, h.beat.holder, h.beat.version, h.beat.revision, h.behind, h.since, h.heard, h.beat.duration, h.beat.nodeUID}
}

// Heard is when the last renewal of a node's Lease came to be known, if it was by that
// instance; zero if it was not.
func (s *Source) Heard(node, instance string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.beats[node]; h != nil && h.beat.holder == instance {
		return h.heard
	}
	return time.Time{}
}

// Lags says what keeps the source from hearing of changes that could restrict, if it has
// lasted for a while; "" if nothing does.
func (s *Source) Lags(now time.Time, limit time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	type trouble struct {
		since time.Time
		text  string
	}
	var all []trouble
	look := func(name string, t *track) {
		if since, why := t.state(now); why.kind != none && now.Sub(since) >= limit {
			all = append(all, trouble{since, fmt.Sprintf("%s: %s", name, why.text)})
		}
	}
	look("discovery", &s.discovery)
	if !s.crds.blind() {
		look("CustomResourceDefinition", &s.crds.track)
	}
	for k, w := range s.kinds {
		if objects.Guards(k) {
			look(k.String(), &w.track)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return slices.MinFunc(all, func(a, b trouble) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.text, b.text)) }).text
}
