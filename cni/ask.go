// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// Question is what a plugin asks an agent, as one line of JSON: when is this attachment
// done?
type Question struct{ ID }

// Answer is a line of JSON that an agent sends whenever there is something new, until it
// has sent one with Ready.
type Answer struct {
	// Guarded: what the kernel must have before the pod may run is there.
	Guarded bool `json:"guarded"`
	// Ready: all of it is there, its routes too.
	Ready bool `json:"ready"`
	// State is what is waited for.
	State string `json:"state,omitempty"`
}

// maxLine bounds a line of either side.
const maxLine = 16 << 10

// askAgain is the pause before an agent that is not there is asked again.
const askAgain = 50 * time.Millisecond

// routesLimit is how long a pod that is guarded waits for its routes: where Envoy is away
// they may take long to come, and nothing that is forbidden passes without them.
const routesLimit = 2 * time.Second

// absentLimit is how long an agent that is not there at all is waited for where that is
// not needed.
const absentLimit = time.Second

// Outcome is what came of asking.
type Outcome struct {
	Guarded bool
	State   string        // what was still waited for; "" if nothing was
	Heard   bool          // an agent answered
	Waited  time.Duration // how long it took
}

// Ask waits until the agent says that an attachment is done. It goes on asking while there
// is no agent, or one that dies or says what makes no sense, until the context ends, or
// sooner where the answer makes no difference (need is false).
func Ask(ctx context.Context, run string, id ID, need bool) Outcome {
	begun := time.Now()
	var out Outcome
	for {
		err := askOnce(ctx, filepath.Join(run, Socket), id, &out)
		out.Waited = time.Since(begun)
		if err == nil {
			return out
		}
		if !out.Heard {
			out.State = err.Error()
		}
		if ctx.Err() != nil || out.Guarded || !need && !out.Heard && out.Waited >= absentLimit {
			return out
		}
		select {
		case <-ctx.Done():
			out.Waited = time.Since(begun)
			return out
		case <-time.After(askAgain):
		}
	}
}

// askOnce asks one agent; nil says that the outcome is final.
func askOnce(ctx context.Context, socket string, id ID, out *Outcome) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return errors.New("no agent answers at " + socket)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	text, err := json.Marshal(Question{id})
	if err != nil {
		return fmt.Errorf("ask agent: %w", err)
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("ask agent: %w", err)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		var a Answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return fmt.Errorf("the agent's answer makes no sense: %w", err)
		}
		out.Heard, out.State = true, a.State
		switch {
		case a.Ready:
			out.Guarded, out.State = true, ""
			return nil
		case a.Guarded && !out.Guarded:
			out.Guarded = true
			_ = conn.SetReadDeadline(time.Now().Add(routesLimit)) // else it ends with the context
		case !a.Guarded:
			out.Guarded = false
			_ = conn.SetReadDeadline(time.Time{})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("hear the agent: %w", err)
	}
	return errors.New("the agent has hung up")
}
