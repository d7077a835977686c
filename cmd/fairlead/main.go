// SPDX-License-Identifier: Apache-2.0

// Command fairlead runs the mesh configuration that you already have on one
// sidecar-free data plane.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/internal/version"
)

// Exit codes: 0 fine, 1 something is wrong with the input or the system, 2 the
// command was used wrongly.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitError ends the program with a code; an empty message has been printed already.
type exitError struct {
	code int
	msg  string
}

func (e *exitError) Error() string { return e.msg }

// usageError is for wrong flags and arguments.
func usageError(format string, a ...any) error {
	return &exitError{exitUsage, fmt.Sprintf(format, a...)}
}

func main() { os.Exit(start()) }

func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if code, handled := helper(ctx, os.Args[1:]); handled {
		return code
	}
	return run(ctx, root())
}

func run(ctx context.Context, cmd *cobra.Command) int {
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{exitFailed, err.Error()}
	}
	if at := unanswered(err); at != "" && e.msg != "" {
		e.msg += "\nThere is no API server that answers at " + at + ": is it up, and the one that is meant? --kubeconfig and --context name another."
	}
	if e.msg != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "fairlead: "+e.msg)
	}
	return e.code
}

// unanswered is the address of a server that was asked over the network and could not be
// reached, "" if an error is about something else.
func unanswered(err error) string {
	var asked *url.Error
	var op *net.OpError
	if !errors.As(err, &asked) || !errors.As(err, &op) || op.Op != "dial" || strings.HasPrefix(op.Net, "unix") {
		return ""
	}
	u, err := url.Parse(asked.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "fairlead",
		Short: "Run the mesh configuration that you already have on one sidecar-free data plane",
		Long: `Fairlead takes the configuration of Istio, SMI, Linkerd and the Gateway API, and runs it
on an eBPF datapath and one stock Envoy per node.

Start with "fairlead translate -f YOUR-MANIFESTS/": it needs no cluster and no
privileges, and says what becomes of every object.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	group(c)
	c.Version = version.String() // has a flag --version
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError("%v\nRun \"%s --help\" for its flags.", err, c.CommandPath())
	})
	c.AddCommand(offlineCommands()...)
	c.AddCommand(clusterCommands()...)
	c.AddCommand(agentsCommands()...)
	c.AddCommand(nodeCommands()...)
	c.AddCommand(operatorCommand(), versionCommand())
	return c
}

// group makes a command that has only commands below it say what it does not know.
func group(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.DisableFlagsInUseLine = true
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		hint := ""
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf(" Did you mean %q?", near[0])
		}
		return usageError("%s has no command %q.%s\nRun \"%s --help\" for what there is.", c.CommandPath(), args[0], hint, c.CommandPath())
	}
}

// noArgs refuses arguments with a hint.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		hint := ""
		if f := c.Flags().Lookup("file"); f != nil {
			hint = ": name files with -f"
		}
		return usageError("%s takes no arguments, got %q%s", c.CommandPath(), args[0], hint)
	}
	return nil
}
