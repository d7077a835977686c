// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/internal/version"
)

// built is what a program was built from.
type built struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Say which version this program is; fairlead status says it of what runs",
		Args:  noArgs,
	}
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		b := built{version.String(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		return out.print(c.OutOrStdout(), b, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "fairlead %s (%s, %s)\n", b.Version, b.Go, b.Platform)
			return err
		})
	}
	return c
}
