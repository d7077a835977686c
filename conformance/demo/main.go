// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command demo shows the main job on real input: an application on two nodes,
// steered by Istio, swapped to SMI and back while load and a prober of forbidden
// requests run.
//
//	demo FAIRLEAD-BINARY ENVOY-BINARY
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"fairlead.io/fairlead/lab"
)

// labName is the demo's own, so that it disturbs no other lab.
const labName = "demo"

func main() { os.Exit(start()) }

func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("usage: demo FAIRLEAD-BINARY ENVOY-BINARY; \"make demo\" gives both")
	}
	if os.Geteuid() != 0 {
		return errors.New("it makes network namespaces and loads kernel programs: run it as root")
	}
	d := &demo{dir: filepath.Join("conformance", "demo"), binary: args[0], envoy: args[1], out: os.Stdout}
	if d.binary, err = filepath.Abs(d.binary); err != nil {
		return err
	}
	defer func() {
		// Also after Ctrl-C, with time of its own.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if e := lab.Down(down, labName); e != nil && !errors.Is(e, lab.ErrNoLab) {
			err = errors.Join(err, e)
			return
		}
		fmt.Fprintln(d.out, "\nThe lab is down; nothing of it is left on this machine.")
	}()
	return d.story(ctx)
}
