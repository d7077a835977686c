// SPDX-License-Identifier: Apache-2.0

// Package metrics tells Prometheus what an agent says of its node, and what the node's
// Envoy counts.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fairlead.io/fairlead/agent"
)

// Node is who is asked: the agent, and Envoy by way of the proxy.
type Node struct {
	Status func(context.Context) (*agent.Status, error)
	Envoy  func(context.Context) ([]byte, error) // in Prometheus' text format
}

// limit is how long a node has to answer; Prometheus' own is 10 seconds.
const limit = 8 * time.Second

// Handler answers with what a node says when it is asked, and not of any time before:
//
//	GET /metrics              of agent, datapath and proxy, and of the agent's process
//	GET /metrics/envoy        what the Envoy that serves counts
//
// An agent or a proxy that does not answer is an error, by which Prometheus sees that it
// is down.
func Handler(n Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		s, err := n.Status(ctx)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		all := prometheus.NewPedanticRegistry()
		all.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		promhttp.HandlerFor(all, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /metrics/envoy", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		text, err := n.Envoy(ctx)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(text) // the client has gone
	})
	return mux
}

// collector has the samples of one status.
type collector struct{ of *agent.Status }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc()
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, f := range families {
		f.read(c.of, func(value float64, labels ...string) {
			m, err := prometheus.NewConstMetric(f.desc(), f.kind, value, labels...)
			if err != nil {
				m = prometheus.NewInvalidMetric(f.desc(), err)
			}
			ch <- m
		})
	}
}

func (f family) desc() *prometheus.Desc { return prometheus.NewDesc(f.name, f.help, f.labels, nil) }

// again is how long it takes until an address that is taken is tried again: the agent
// before this one may have it still.
const again = 5 * time.Second

// Serve answers on an address (host:port) until the context ends. An address that cannot
// be had costs the node nothing: that is said, and tried again.
func Serve(ctx context.Context, address string, h http.Handler, log *slog.Logger) {
	said := ""
	for ctx.Err() == nil {
		err := listen(ctx, address, h)
		if err == nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			log.Warn("metrics are not served", "problem", said, "advice", "name another address by --metrics; it is tried again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

func listen(ctx context.Context, address string, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 2 * limit, IdleTimeout: 5 * time.Minute}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // nobody is left to tell
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
