// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/hubble"
)

// answers are what the API tells.
type answers struct {
	status  func() Status
	ready   func() Readiness
	explain func(context.Context, explain.Target) (*Explanation, error)
	trace   func(trace.Query) (*trace.Answer, error)
}

// Socket is the name of the agent's API socket in its run folder.
const Socket = "agent.sock"

// serveAPI answers on a unix socket until the context ends:
//
//	GET /status                                  Status as JSON
//	GET /ready                                   Readiness as JSON
//	GET /explain?target=NS/NAME[:PORT]           Explanation as JSON; 404 if there is no such thing
//	GET /trace?query=JSON                        trace.Answer as JSON; 404 if the query cannot be answered
//	GET /flows?last=N&follow=1&FILTER            hubble.Flow, one JSON object a line; FILTER is a hubble.Filter's Values
func serveAPI(ctx context.Context, socket string, o answers, flows *hubble.Ring) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("serve agent API: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve agent API: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.status()) // the client has gone
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.ready()) // the client has gone
	})
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		target, err := explain.ParseTarget(r.URL.Query().Get("target"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e, err := o.explain(r.Context(), target)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e) // the client has gone
	})
	mux.HandleFunc("GET /trace", func(w http.ResponseWriter, r *http.Request) {
		var q trace.Query
		if err := json.Unmarshal([]byte(r.URL.Query().Get("query")), &q); err != nil {
			http.Error(w, "the query is no JSON: "+err.Error(), http.StatusBadRequest)
			return
		}
		a, err := o.trace(q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the client has gone
	})
	mux.HandleFunc("GET /flows", func(w http.ResponseWriter, r *http.Request) { streamFlows(ctx, w, r, flows) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // nobody is left to tell
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve agent API: %w", err)
	}
	return nil
}

func streamFlows(ctx context.Context, w http.ResponseWriter, r *http.Request, ring *hubble.Ring) {
	q := r.URL.Query()
	last, err := strconv.Atoi(q.Get("last"))
	if err != nil || last < 0 {
		last = 20
	}
	want, err := hubble.FilterOf(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	recent, follower := ring.Follow(last, want)
	defer follower.Stop()
	enc := json.NewEncoder(w)
	for _, f := range recent {
		if enc.Encode(f) != nil {
			return
		}
	}
	if q.Get("follow") == "" {
		return
	}
	out := http.NewResponseController(w)
	for {
		if out.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.Context().Done():
			return
		case f := <-follower.Flows():
			// What was lost came after what waits here; said before it, it is not said late.
			if lost := follower.Lost(); lost > 0 && enc.Encode(hubble.Flow{Time: time.Now(), Node: f.Node, Verdict: hubble.Lost, Reason: hubble.LostByObserver, Lost: lost}) != nil {
				return
			}
			if enc.Encode(f) != nil {
				return
			}
		}
	}
}

// Client speaks to an agent's API socket.
type Client struct {
	http  *http.Client
	hint  string        // what to look at if nobody answers
	limit time.Duration // until the answer begins
}

// answerLimit is how long an agent is waited for: one that hangs, or whose node is dead,
// must not hold up who asks.
const answerLimit = 20 * time.Second

// NewClient returns a client for the socket; it connects when it is used.
func NewClient(socket string) *Client {
	c := NewClientOver(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	})
	c.hint = "; is it running on this node?"
	return c
}

// NewClientOver returns a client for a socket that is not of this machine: dial connects to it.
func NewClientOver(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{limit: answerLimit,
		http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}}
}

// Status asks the agent what it does.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	err := c.get(ctx, "/status", func(d *json.Decoder) error { return d.Decode(&s) })
	return &s, err
}

// Ready asks the agent whether its node is as the source says.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	var r Readiness
	err := c.get(ctx, "/ready", func(d *json.Decoder) error { return d.Decode(&r) })
	return r, err
}

// Explain asks the agent what becomes of a target.
func (c *Client) Explain(ctx context.Context, t explain.Target) (*Explanation, error) {
	var e Explanation
	err := c.get(ctx, "/explain?"+url.Values{"target": {t.String()}}.Encode(), func(d *json.Decoder) error { return d.Decode(&e) })
	return &e, err
}

// Trace asks the agent what becomes of a request.
func (c *Client) Trace(ctx context.Context, q trace.Query) (*trace.Answer, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("ask agent: %w", err)
	}
	var a trace.Answer
	err = c.get(ctx, "/trace?"+url.Values{"query": {string(text)}}.Encode(), func(d *json.Decoder) error { return d.Decode(&a) })
	return &a, err
}

// FlowQuery says which flows are asked for.
type FlowQuery struct {
	hubble.Filter
	Last   int  // of the past to start with, of those that the filter takes
	Follow bool // go on as flows come
	// Begun is called, if it is there, when the agent has answered: nothing that comes from
	// then on is missed.
	Begun func()
}

// Flows calls f with recent flows and, if they are to be followed, with new ones until
// the context ends or f returns an error.
func (c *Client) Flows(ctx context.Context, q FlowQuery, f func(hubble.Flow) error) error {
	args := q.Values()
	args.Set("last", strconv.Itoa(q.Last))
	if q.Follow {
		args.Set("follow", "1")
	}
	err := c.get(ctx, "/flows?"+args.Encode(), func(d *json.Decoder) error {
		if q.Begun != nil {
			q.Begun()
		}
		for d.More() {
			var flow hubble.Flow
			if err := d.Decode(&flow); err != nil {
				return err
			}
			if err := f(flow); err != nil {
				return err
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Client) get(ctx context.Context, path string, read func(*json.Decoder) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(c.limit, func() { cancel(fmt.Errorf("it has not answered for %s", c.limit)) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return fmt.Errorf("ask agent: %w", err)
	}
	resp, err := c.http.Do(req)
	if !late.Stop() && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		var of *url.Error // whose address means nothing to people
		if errors.As(err, &of) {
			err = of.Err
		}
		return fmt.Errorf("ask agent: %w%s", err, c.hint)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusBadRequest:
		why, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if err != nil {
			return fmt.Errorf("read agent's answer: %w", err)
		}
		return errors.New(strings.TrimSpace(string(why)))
	default:
		return fmt.Errorf("ask agent: %s", resp.Status)
	}
	if err := read(json.NewDecoder(resp.Body)); err != nil {
		return fmt.Errorf("read agent's answer: %w", err)
	}
	return nil
}
