// SPDX-License-Identifier: Apache-2.0

// app is the application of the SMI conformance suite, written anew: what the service of
// learn-layer5 does, and no more.
//
//	POST /call       sends the request that its body describes, and notes what came of it
//	/echo            answers with the request
//	GET /metrics     what was received, what succeeded, what failed
//	DELETE /metrics  forgets it
//
// As the suite's runner, "app ask" sends one request, or several alike, and prints the last
// answer's status and body.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"time"
)

// call is what /call is told to send.
type call struct {
	URL     string            `json:"url"`
	Method  string            `json:"method"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
}

// sent is a request that was answered.
type sent struct {
	URL     string
	Method  string
	Headers map[string]string
}

// metrics is what the suite looks at.
type metrics struct {
	ReqReceived   []string // who asked, by the header ServiceName
	RespSucceeded []sent
	RespFailed    []sent
}

type app struct {
	name   string
	client *http.Client

	mu      sync.Mutex
	metrics metrics
}

const nameHeader = "ServiceName"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "ask" {
		if err := ask(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			os.Exit(1)
		}
		return
	}
	a := &app{name: os.Getenv("SERVICE_NAME"), client: &http.Client{}} // keeps connections, as the suite's
	mux := http.NewServeMux()
	mux.HandleFunc("POST /call", a.call)
	mux.HandleFunc("/echo", a.echo)
	mux.HandleFunc("GET /metrics", a.show)
	mux.HandleFunc("DELETE /metrics", a.forget)
	server := &http.Server{Addr: ":" + cmp.Or(os.Getenv("PORT"), "9091"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if err := server.ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

// received notes who asked.
func (a *app) received(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metrics.ReqReceived = append(a.metrics.ReqReceived, cmp.Or(r.Header.Get(nameHeader), "Unidentified"))
}

func (a *app) call(w http.ResponseWriter, r *http.Request) {
	a.received(r)
	var c call
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), c.Method, c.URL, strings.NewReader(c.Body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for k, v := range c.Headers {
		req.Header.Set(k, v)
	}
	req.Header.Set(nameHeader, a.name)
	resp, err := a.client.Do(req)
	if err != nil { // in neither list
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // what came of it is judged by the status
	a.mu.Lock()
	defer a.mu.Unlock()
	done := sent{c.URL, c.Method, c.Headers}
	if resp.StatusCode >= 200 && resp.StatusCode < 400 {
		a.metrics.RespSucceeded = append(a.metrics.RespSucceeded, done)
	} else {
		a.metrics.RespFailed = append(a.metrics.RespFailed, done)
	}
	_, _ = w.Write(body)
}

func (a *app) echo(w http.ResponseWriter, r *http.Request) {
	a.received(r)
	text, err := httputil.DumpRequest(r, true)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(text)
}

func (a *app) show(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a.metrics)
}

func (a *app) forget(http.ResponseWriter, *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.metrics = metrics{}
}

// ask is the runner's client.
func ask(args []string) error {
	fs := flag.NewFlagSet("ask", flag.ContinueOnError)
	repeat := fs.Int("repeat", 1, "how often")
	body := fs.String("body", "", "what to send")
	if err := fs.Parse(args); err != nil {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	for i := range *repeat {
		req, err := http.NewRequest(fs.Arg(0), fs.Arg(1), bytes.NewBufferString(*body))
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if i == *repeat-1 {
			fmt.Printf("%d\n%s", resp.StatusCode, text)
		} else if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("request %d: %s: %s", i+1, resp.Status, text)
		}
	}
	return nil
}
