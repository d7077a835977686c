// SPDX-License-Identifier: Apache-2.0

// lab is what pods of the test cluster run: the lab's echo server, load generator and
// clients, chosen by the name that it is called by.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/lab/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, filepath.Base(os.Args[0]), os.Args[1:]))
}

func run(ctx context.Context, name string, args []string) int {
	switch name {
	case "echo-server":
		if err := echo.Main(ctx, args, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "echo-server:", err)
			return 1
		}
		return 0
	case "load":
		return load.Main(ctx, args, os.Stdout, os.Stderr)
	case "request":
		return load.RequestMain(ctx, os.Stdin, os.Stdout, os.Stderr)
	case "call":
		return load.CallMain(ctx, args, os.Stdout, os.Stderr)
	case "knock":
		if err := knock(ctx, args, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "knock:", err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(os.Stderr, "called as %s; there are echo-server, load, request, call and knock\n", name)
	return 2
}
