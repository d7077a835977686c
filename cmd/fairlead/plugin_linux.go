// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/cni/install"
)

// pluginFolders are the flags that say where a node's CNI plugins are.
func pluginFolders(c *cobra.Command, o *install.Options, conf, bin string) {
	c.Flags().StringVar(&o.ConfDir, "cni-conf-dir", conf, "folder of the node's network configurations, under the name that the node knows it by")
	c.Flags().StringVar(&o.BinDir, "cni-bin-dir", bin, "folder of the node's CNI plugins")
}

// pluginFlags have an agent install the chained CNI plugin; options gives nil if it is not
// to be.
func pluginFlags(c *cobra.Command, run *string) (options func() (*install.Options, error)) {
	o := &install.Options{Config: cni.Config{FailClosed: cni.Governed}}
	pluginFolders(c, o, "", "")
	c.Flags().StringVar(&o.Binary, "cni-binary", "", "file of the plugin (default "+cni.Type+" beside this program)")
	c.Flags().Var(&o.Config.FailClosed, "cni-fail-closed", "whose pods do not start before their policy is in the kernel, not even without an agent: those of namespaces that policy governs, all, or none")
	c.Flags().StringSliceVar(&o.Config.Exempt, "cni-exempt", cni.DefaultExempt(), "namespaces that are never fail-closed")
	c.Flags().IntVar(&o.Config.WaitSeconds, "cni-wait", cni.DefaultWaitSeconds, "seconds that a pod waits for the agent")
	c.Flags().StringVar(&o.Config.AgentNamespace, "cni-agent-namespace", cni.DefaultAgentNamespace, "namespace of the agent's pods, for messages")
	c.Flags().BoolVar(&o.OwnList, "cni-own-list", true, "keep a list of plugins that comes before the node's own, which its owner may write anew before there is an agent")
	remove := c.Flags().Bool("cni-remove", false, "take the plugin out where an earlier agent has put it in")
	return func() (*install.Options, error) {
		switch {
		case o.ConfDir == "" && o.BinDir == "":
			return nil, nil
		case o.ConfDir == "" || o.BinDir == "":
			return nil, usageError("the CNI plugin needs --cni-conf-dir and --cni-bin-dir, as in %s and %s", install.DefaultConfDir, install.DefaultBinDir)
		}
		if o.Config.WaitSeconds < 1 || o.Config.WaitSeconds > cni.MaxWaitSeconds {
			return nil, usageError("--cni-wait %d: want 1 to %d", o.Config.WaitSeconds, cni.MaxWaitSeconds)
		}
		if o.Binary == "" {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			o.Binary = filepath.Join(filepath.Dir(self), cni.Type)
		}
		dir, err := filepath.Abs(*run)
		if err != nil {
			return nil, err
		}
		o.Config.RunDir, o.NodeRoot = dir, nodeRoot
		if *remove {
			// What is not taken out goes on calling an agent, which answers.
			if _, err := install.Uninstall(*o); err != nil {
				fmt.Fprintf(c.ErrOrStderr(), "fairlead: the CNI plugin stays: %v\n", err)
			}
			return nil, nil
		}
		return o, nil
	}
}
