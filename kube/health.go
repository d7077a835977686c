// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"fairlead.io/fairlead/translators/objects"
)

// Health is how it stands between a Source and its API server.
type Health struct {
	Server string `json:"server"`
	// Complete: all that is served and may be read was read once. Until then nothing was
	// handed out; after it, what was read stays in use, whatever becomes of the server.
	Complete bool `json:"complete"`
	Kinds    int  `json:"kinds"` // that are watched
	Objects  int  `json:"objects"`
	// Problems are those of the moment, the widest first.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is something that is not as it should be.
type Problem struct {
	// Kinds that it is about; none: the API server as a whole.
	Kinds  []string  `json:"kinds,omitempty"`
	Since  time.Time `json:"since"`
	What   string    `json:"what"`
	Advice string    `json:"advice,omitempty"`
	// Holds: nothing can be handed out until it is over, because more could be allowed
	// than is meant.
	Holds bool `json:"holds,omitempty"`

	cause cause
}

// String is what people read, without the time.
func (p Problem) String() string {
	text := p.text()
	switch {
	case p.Holds && len(p.Kinds) > 0:
		text += "; until then nothing new is applied, as without it more could be allowed than is meant"
	case p.Holds:
		text += "; until then nothing new is applied"
	}
	return text
}

// text is what is wrong and what to do about it.
func (p Problem) text() string {
	text := p.What
	if len(p.Kinds) > 0 {
		text = strings.Join(p.Kinds, ", ") + ": " + text
	}
	if p.Advice != "" {
		text += "; " + p.Advice
	}
	return text
}

// once is what is wrong for somebody who reads once, and applies nothing.
func (h Health) once() string {
	var out []string
	for _, p := range h.Problems {
		out = append(out, p.text())
	}
	if len(out) == 0 {
		return "not all of them came in time"
	}
	return strings.Join(out, "; ")
}

// String tells of all problems, "" if there is none.
func (h Health) String() string {
	var out []string
	for _, p := range h.Problems {
		out = append(out, fmt.Sprintf("%s (since %s)", p, p.Since.UTC().Format(time.RFC3339)))
	}
	if len(out) == 0 && !h.Complete {
		return "the objects are being read for the first time"
	}
	return strings.Join(out, "; ")
}

// lasts reports whether nothing can be handed out and waiting will hardly help.
func (p Problem) lasts() bool {
	return p.Holds && (p.cause == away || p.cause == unauthorized || p.cause == forbidden)
}

// cause sorts what can be wrong.
type cause int

const (
	none cause = iota
	away
	slow
	overloaded
	expired
	unauthorized
	forbidden
	missing
	other
)

// failure is why something failed.
type failure struct {
	kind   cause
	text   string
	advice string
}

// wide reports whether the failure is one of the server and not of a kind.
func (f failure) wide() bool { return f.kind == away || f.kind == slow || f.kind == unauthorized }

// explain says what an error of the client means, and what to do about it.
func explain(err error) failure {
	var network net.Error
	switch {
	case apierrors.IsUnauthorized(err):
		return failure{unauthorized, "the API server does not accept the credentials (401)",
			"renew the token or certificate of the kubeconfig, or the pod's service account"}
	case apierrors.IsForbidden(err):
		return failure{forbidden, "may not be read (403)", "allow list and watch of it by a ClusterRole"}
	case apierrors.IsTooManyRequests(err):
		return failure{overloaded, "too many requests (429)", ""}
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return failure{expired, "the stream was ended (410); the objects are listed anew", ""}
	case apierrors.IsNotFound(err):
		return failure{missing, "is not served (404)", ""}
	case errors.As(err, &network), errors.Is(err, errNoAnswer), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failure{away, "the API server does not answer: " + bare(err).Error(), ""}
	case apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err),
		apierrors.IsUnexpectedServerError(err):
		return failure{away, "the API server is not well: " + err.Error(), ""}
	}
	return failure{other, err.Error(), ""}
}

// bare is an error of the network without what differs from one request to the next: its
// address, and the port that it came from.
func bare(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		return fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err)
	}
	return err
}

// errNoAnswer is of requests that a server has taken and not answered.
var errNoAnswer = errors.New("no answer in time")

// Health tells how it stands.
func (s *Source) Health() Health {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := Health{Server: s.cfg.Host, Complete: s.whole, Kinds: len(s.kinds)}
	for _, have := range s.have {
		for key := range have {
			if key != "/" { // what is said of the kind
				h.Objects++
			}
		}
	}
	type group struct {
		problem Problem
		wide    bool
	}
	groups := map[string]*group{}
	add := func(name string, since time.Time, why failure, holds bool) {
		key := fmt.Sprint(why.text, why.advice, holds)
		if why.wide() {
			key = fmt.Sprint(why.kind)
		}
		g := groups[key]
		if g == nil {
			g = &group{Problem{Since: since, What: why.text, Advice: why.advice, cause: why.kind}, why.wide()}
			groups[key] = g
		}
		if since.Before(g.problem.Since) {
			g.problem.Since = since
		}
		g.problem.Holds = g.problem.Holds || holds
		g.problem.Kinds = append(g.problem.Kinds, name)
	}
	if since, why := s.discovery.state(now); why.kind != none {
		g := failure{away, "what the API server serves is not known: " + why.text, why.advice}
		if why.wide() {
			g.text = why.text
		}
		add("", since, g, !s.whole)
	}
	if since, why := s.crds.track.state(now); why.kind != none {
		if why.kind == forbidden {
			why.advice = fmt.Sprintf("allow list and watch of them by a ClusterRole; until then kinds that come or go are seen within %s", lookEveryBlind)
		}
		name := "CustomResourceDefinition"
		if why.wide() {
			name = "" // they are asked for first
		}
		add(name, since, why, !s.whole && why.kind != forbidden)
	}
	for k, w := range s.kinds {
		since, why := w.track.state(now)
		if why.kind == none && !w.synced && now.Sub(w.begun) >= slowLimit {
			since, why = w.begun, failure{kind: slow, text: "no answer yet"}
		}
		if why.kind != none {
			add(k.String(), since, why, !s.whole && !w.synced && (why.kind != forbidden || objects.Guards(k)))
		}
	}
	for k, p := range s.unreadable {
		add(k.String(), p.since, failure{other, p.text, "serve one that is read too, or wait for a release that reads it"}, !s.whole && objects.Guards(k))
	}
	for _, g := range groups {
		slices.Sort(g.problem.Kinds)
		// What is wrong with the server is told once, however many kinds it shows in.
		if g.wide && (slices.Contains(g.problem.Kinds, "") || len(g.problem.Kinds) > 2) {
			g.problem.Kinds = nil
		}
		h.Problems = append(h.Problems, g.problem)
	}
	slices.SortFunc(h.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(len(a.Kinds), len(b.Kinds)), a.Since.Compare(b.Since), strings.Compare(a.What, b.What))
	})
	return h
}
