// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"context"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/kube/preflight"
)

// nodeCommands need Linux; elsewhere there are those that read files or ask a cluster.
func nodeCommands() []*cobra.Command { return nil }

// labRuns says that there are no labs.
func labRuns(string) ([]string, error) {
	return nil, usageError("labs run on Linux alone: name a cluster with --kubeconfig")
}

func preflightNodeFlags(*cobra.Command) func() ([]preflight.Finding, error) {
	return func() ([]preflight.Finding, error) { return nil, usageError("nodes run Linux: this machine does not") }
}

func newLabPlace(context.Context, string, string) (place, error) {
	_, err := labRuns("")
	return nil, err
}

func helper(context.Context, []string) (code int, handled bool) { return 0, false }
