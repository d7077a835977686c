// SPDX-License-Identifier: Apache-2.0

// Package echo is a server that tells its clients who answered and what arrived:
// over HTTP/1.1, HTTP/2 without TLS, gRPC, WebSocket, TCP, TLS and UDP.
//
// An HTTP request gets an Answer as JSON, a message of gRPC a StringValue with
// that JSON. What else happens is the request's own wish, in its query or in
// headers (status=503, or x-echo-status: 503):
//
//	status=CODE       answer with this status (gRPC: this code)
//	delay=DURATION    wait before answering
//	size=BYTES        pad the answer
//	header=NAME:VALUE add a header to the answer; may be repeated in the query
//	key=KEY           count the request under this key
//	fail=N            with key: the first N requests of the key get status, or 503 (14
//	                  of gRPC), the others 200
//	reset=1           break the connection off in place of answering; with fail, in
//	                  place of failing (gRPC: not with fail)
//
// GET /count?key=KEY answers how many requests a key had, or without a key how many
// there were in all, without being counted itself.
//
// TCP and UDP echo what they get; the message "who", alone in a datagram or in what
// TCP delivers at once, is answered with an Answer. A port of kind tcp-banner sends
// an Answer before the client says anything. Within TLS it is as over TCP; the Answer's
// authority is the server name that the client asked for. What comes through a tunnel
// (CONNECT) is as over TCP, too: the server stands for the target, which is the authority.
package echo

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FactsVariable of the environment holds the server's Facts as JSON.
const FactsVariable = "FAIRLEAD_POD"

// Facts say who answers.
type Facts struct {
	Pod            string            `json:"pod"`
	Node           string            `json:"node"`
	Namespace      string            `json:"namespace"`
	ServiceAccount string            `json:"serviceAccount"`
	Deployment     string            `json:"deployment,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
}

// Answer is what a client gets.
type Answer struct {
	Facts
	Protocol  string              `json:"protocol"` // HTTP/1.1, HTTP/2.0, gRPC, WebSocket, TCP, TLS, UDP
	Peer      string              `json:"peer"`     // address and port of who connected
	Local     string              `json:"local"`    // address and port that was connected to
	Method    string              `json:"method,omitempty"`
	Path      string              `json:"path,omitempty"` // with the query
	Authority string              `json:"authority,omitempty"`
	Headers   map[string][]string `json:"headers,omitempty"` // by lower-case name
	BodyBytes int64               `json:"bodyBytes,omitempty"`
	Body      string              `json:"body,omitempty"`  // if it is short text
	Count     uint64              `json:"count,omitempty"` // of the request's key
	Pad       string              `json:"pad,omitempty"`
}

// Port is where and what to serve.
type Port struct {
	Number uint16
	// Kind is http, tcp, tcp-banner, udp; tls, which takes TCP without TLS too; or
	// auto: http, tls or tcp by the client's first bytes.
	Kind string
}

// ParsePort reads "8080=http"; the kind may be left out for auto.
func ParsePort(s string) (Port, error) {
	number, kind, found := strings.Cut(s, "=")
	if !found {
		kind = "auto"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return Port{}, fmt.Errorf("port %q: want NUMBER=KIND", s)
	}
	switch kind {
	case "http", "tcp", "tcp-banner", "tls", "udp", "auto":
		return Port{uint16(n), kind}, nil
	}
	return Port{}, fmt.Errorf("port %q: kind is none of http, tcp, tcp-banner, tls, udp, auto", s)
}

// Server is an echo server.
type Server struct {
	facts Facts
	log   *slog.Logger
	tls   func() (*tls.Config, error)

	total    atomic.Uint64
	mu       sync.Mutex
	counters map[string]uint64
}

// New returns a server.
func New(facts Facts, log *slog.Logger) *Server {
	return &Server{facts: facts, log: log, tls: sync.OnceValues(selfSigned), counters: map[string]uint64{}}
}

// drain is how long requests have to finish when the server ends.
const drain = 2 * time.Second

// Run serves the ports, on every address of both families, until the context
// ends; requests may finish then. It fails if a port cannot be had.
func (s *Server) Run(ctx context.Context, ports ...Port) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // what a pod's ordinary server uses
	var serve []func(context.Context)
	var open []io.Closer
	defer func() {
		for _, c := range open {
			_ = c.Close() // nothing was written through it
		}
	}()
	for _, p := range ports {
		if p.Kind == "udp" {
			sockets, err := listenUDP(ctx, p.Number)
			for _, d := range sockets {
				open = append(open, d)
				serve = append(serve, func(ctx context.Context) { s.serveUDP(ctx, d, p.Number) })
			}
			if err != nil {
				return fmt.Errorf("serve port %d: %w", p.Number, err)
			}
			continue
		}
		l, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", p.Number))
		if err != nil {
			return fmt.Errorf("serve port %d: %w", p.Number, err)
		}
		open = append(open, l)
		serve = append(serve, func(ctx context.Context) { s.serveTCP(ctx, l, p.Kind) })
	}
	var wg sync.WaitGroup
	for _, f := range serve {
		wg.Go(func() { f(ctx) })
	}
	wg.Wait()
	return nil
}

// count a request under its key; "" counts in the total alone.
func (s *Server) count(key string) uint64 {
	s.total.Add(1)
	if key == "" {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters[key]++
	return s.counters[key]
}

// Count is what /count answers.
type Count struct {
	Pod   string `json:"pod"`
	Key   string `json:"key,omitempty"`
	Count uint64 `json:"count"`
}

func (s *Server) counted(key string) Count {
	if key == "" {
		return Count{Pod: s.facts.Pod, Count: s.total.Load()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Count{s.facts.Pod, key, s.counters[key]}
}

// Main is the program: flags as its image takes them, facts from the environment.
func Main(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("echo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var ports []Port
	fs.Func("port", "`NUMBER=KIND` to serve; repeat for more. KIND: http (also h2c, gRPC, WebSocket), tcp, tcp-banner, tls, udp, auto", func(v string) error {
		p, err := ParsePort(v)
		ports = append(ports, p)
		return err
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	if len(ports) == 0 {
		return errors.New("echo: no --port")
	}
	var facts Facts
	if v := os.Getenv(FactsVariable); v != "" {
		if err := json.Unmarshal([]byte(v), &facts); err != nil {
			return fmt.Errorf("read %s: %w", FactsVariable, err)
		}
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	log.Info("serving", "ports", fmt.Sprint(ports))
	return New(facts, log).Run(ctx, ports...)
}
