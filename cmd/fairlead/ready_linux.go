// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
)

func agentReadyCommand() *cobra.Command {
	return agentProbe("ready", "Tell whether the node is as its objects say; a readiness probe",
		`Ready asks the node's agent. It is ready, and the command succeeds, when all was read once,
and Envoy and kernel have what was read last. An API server that goes away later does not
change that.`, func(r agent.Readiness) error {
			if !r.Ready {
				return errors.New("not ready: " + r.Why)
			}
			return nil
		})
}

func agentAliveCommand() *cobra.Command {
	return agentProbe("alive", "Tell whether the node's agent answers; a liveness probe",
		`Alive asks the node's agent, and succeeds if it answers, ready or not: one that waits, for
the API server or for an Envoy, is not mended by a restart.`, func(agent.Readiness) error { return nil })
}

func agentProbe(name, short, long string, judge func(agent.Readiness) error) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Long: long, Args: noArgs}
	run := c.Flags().String("run", defaultRun, "run folder of the node's agent")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), probeLimit)
		defer cancel()
		r, err := agent.NewClient(*run + "/" + agent.Socket).Ready(ctx)
		if err != nil {
			return err
		}
		return judge(r)
	}
	return c
}
