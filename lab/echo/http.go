// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

const (
	maxText = 4 << 10  // of a body, given back
	maxPad  = 16 << 20 // of an answer
)

// httpServer serves every protocol that starts as HTTP. WebSockets end with ctx.
func (s *Server) httpServer(ctx context.Context) *http.Server {
	grpc := s.grpcHandler()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			if r.Header.Get("X-Echo-Reset") != "" && r.Header.Get("X-Echo-Fail") == "" {
				s.count(r.Header.Get("X-Echo-Key"))
				panic(http.ErrAbortHandler) // here, as gRPC's handlers are not this goroutine
			}
			grpc.ServeHTTP(w, r)
		case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
			s.webSocket(ctx, w, r)
		case r.Method == http.MethodConnect:
			s.tunnel(ctx, w, r)
		default:
			s.answer(w, r)
		}
	})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

// wish reads what a request asks for from its query or its headers.
type wish struct {
	query  url.Values
	header func(string) string
}

func (w wish) get(name string) string {
	if v := w.query.Get(name); v != "" {
		return v
	}
	return w.header("X-Echo-" + name)
}

// outcome is what a request asks for.
type outcome struct {
	status  int // 0: nothing in particular
	delay   time.Duration
	size    int
	headers []string
	count   uint64
	reset   bool
}

func (s *Server) outcome(w wish) (outcome, error) {
	o := outcome{count: s.count(w.get("key")), headers: w.query["header"]}
	if h := w.header("X-Echo-Header"); h != "" {
		o.headers = append(o.headers, h)
	}
	var errs []error
	number := func(name string, limit int) int {
		v := w.get(name)
		if v == "" {
			return 0
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > limit {
			errs = append(errs, fmt.Errorf("%s: want a number from 0 to %d, got %q", name, limit, v))
		}
		return n
	}
	o.status, o.size, o.reset = number("status", 599), number("size", maxPad), w.get("reset") != ""
	if first := number("fail", 1<<30); first > 0 {
		if o.count > 0 && o.count <= uint64(first) {
			o.status = cmp.Or(o.status, http.StatusServiceUnavailable)
		} else {
			o.status, o.reset = 0, false
		}
	}
	if v := w.get("delay"); v != "" {
		var err error
		if o.delay, err = time.ParseDuration(v); err != nil {
			errs = append(errs, err)
		}
	}
	return o, errors.Join(errs...)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/count" {
		writeJSON(w, http.StatusOK, s.counted(r.URL.Query().Get("key")))
		return
	}
	a := s.fromRequest(r)
	o, err := s.outcome(wish{r.URL.Query(), r.Header.Get})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	head, err := io.ReadAll(io.LimitReader(r.Body, maxText))
	rest, err2 := io.Copy(io.Discard, r.Body)
	if errors.Join(err, err2) != nil || !pause(r.Context(), o.delay) {
		return // the client has gone
	}
	if a.BodyBytes = int64(len(head)) + rest; rest == 0 && utf8.Valid(head) {
		a.Body = string(head)
	}
	a.Count, a.Pad = o.count, strings.Repeat("x", o.size)
	if o.reset {
		panic(http.ErrAbortHandler) // net/http's way to break off
	}
	w.Header().Set("X-Echo-Pod", s.facts.Pod)
	for _, h := range o.headers {
		name, value, _ := strings.Cut(h, ":")
		w.Header().Add(name, strings.TrimSpace(value))
	}
	status := o.status
	if status < 200 { // also a code that only gRPC knows
		status = http.StatusOK
	}
	writeJSON(w, status, a)
}

func (s *Server) fromRequest(r *http.Request) *Answer {
	a := &Answer{Facts: s.facts, Protocol: r.Proto, Peer: unmap(r.RemoteAddr), Method: r.Method, Path: r.RequestURI,
		Authority: r.Host, Headers: map[string][]string{}}
	if l, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		a.Local = unmap(l.String())
	}
	for k, v := range r.Header {
		a.Headers[strings.ToLower(k)] = v
	}
	return a
}

// pause waits; false if the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		_ = json.NewEncoder(w).Encode(v) // the client has gone
	}
}

// webSocket sends an Answer and then every message back.
func (s *Server) webSocket(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	a := s.fromRequest(r)
	a.Protocol, a.Count = "WebSocket", s.count(r.URL.Query().Get("key"))
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any Origin
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	b, err := json.Marshal(a)
	if err != nil || c.Write(ctx, websocket.MessageText, b) != nil {
		return
	}
	for {
		kind, msg, err := c.Read(ctx)
		if err != nil || c.Write(ctx, kind, msg) != nil {
			return
		}
	}
}
