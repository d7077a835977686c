// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"context"

	"github.com/spf13/cobra"
)

// nodeCommands need Linux; elsewhere there are the offline commands alone.
func nodeCommands() []*cobra.Command { return nil }

func helper(context.Context, []string) (code int, handled bool) { return 0, false }
