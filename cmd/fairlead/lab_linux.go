// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/lab"
)

// helper runs the hidden commands by which a lab runs parts of this program.
func helper(ctx context.Context, args []string) (code int, handled bool) {
	return lab.Helper(ctx, args, os.Stdin, os.Stdout, os.Stderr)
}

func labCommands() []*cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Run nodes and pods in network namespaces of this machine, from ordinary manifests",
		Long: `Lab puts up nodes and pods in network namespaces, from ordinary Kubernetes manifests,
with the same agent, proxy and kernel programs that a cluster's node runs. It needs
root. It is no kubelet: an image that it does not know becomes an echo server on the
container's ports, and it says so.`,
	}
	group(c)
	name := c.PersistentFlags().String("name", lab.DefaultName, "name of the lab; several may be up at once")
	c.AddCommand(labUp(name), labChange(name, "apply", "Take up manifests, as kubectl apply", lab.Apply),
		labChange(name, "delete", "Take objects out, as kubectl delete", lab.Delete),
		labExec(name), labLogs(name), labStatus(name), labDown(name), labList())
	return []*cobra.Command{c}
}

func labUp(name *string) *cobra.Command {
	c := &cobra.Command{
		Use:     "up -f PATH...",
		Short:   "Put up a lab, in place of one of the same name",
		Example: "  fairlead lab up -f app/ -f mesh/\n  fairlead lab exec frontend -- curl -s http://reviews/",
		Args:    noArgs,
	}
	var o lab.Options
	c.Flags().StringArrayVarP(&o.Files, "file", "f", nil, "file or folder of manifests, - for standard input; repeat for more")
	c.Flags().IntVar(&o.Nodes, "nodes", 2, "number of nodes")
	c.Flags().StringVar(&o.EnvoyPath, "envoy", os.Getenv("ENVOY"), "Envoy binary (default: $ENVOY)")
	c.Flags().BoolVar(&o.NoAgent, "no-agent", false, "leave out agent and proxy: a plain network")
	out := outputFlag(c)
	images := c.Flags().StringArray("image", nil, "NAME=COMMAND: run a program of this machine for an image; repeat for more")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Name, o.Out, o.Stdin, o.Images = *name, c.ErrOrStderr(), c.InOrStdin(), map[string]string{}
		for _, i := range *images {
			image, command, ok := strings.Cut(i, "=")
			if !ok || image == "" || command == "" {
				return usageError("--image %s: want NAME=COMMAND", i)
			}
			o.Images[image] = command
		}
		if len(o.Files) == 0 {
			return usageError("a lab needs manifests: name files or folders with -f")
		}
		if o.EnvoyPath == "" && !o.NoAgent {
			return usageError("a lab needs --envoy or $ENVOY: the path of an Envoy binary (hack/envoy.sh prints one)")
		}
		s, err := lab.Up(c.Context(), o)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), s, func(w io.Writer) error { return printLab(w, s) })
	}
	return c
}

func labChange(name *string, verb, short string, do func(context.Context, lab.Change) (*lab.Status, error)) *cobra.Command {
	c := &cobra.Command{Use: verb + " -f PATH...", Short: short, Args: noArgs}
	var ch lab.Change
	out := outputFlag(c)
	c.Flags().StringArrayVarP(&ch.Files, "file", "f", nil, "file or folder of manifests, - for standard input; repeat for more")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if len(ch.Files) == 0 {
			return usageError("nothing to read: name files or folders with -f")
		}
		ch.Name, ch.Out, ch.Stdin = *name, c.ErrOrStderr(), c.InOrStdin()
		s, err := do(c.Context(), ch)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), s, func(w io.Writer) error { return printLab(w, s) })
	}
	return c
}

func labExec(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "exec POD -- COMMAND...",
		Short: "Run a command in a pod's network, DNS and cgroup",
		Long: `Exec runs a program of this machine as if it were in the pod. POD is ns/name, a name, or
a Deployment's name for one of its pods; node/NODE and outside are places, too.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError("lab exec needs a pod and a command: fairlead lab exec POD -- COMMAND...")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			code, err := lab.Exec(c.Context(), *name, args[0], args[1:], lab.Stdio{In: c.InOrStdin(), Out: c.OutOrStdout(), Err: c.ErrOrStderr()})
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
}

func labLogs(name *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "logs POD",
		Short: "Print what a pod's programs, or node/NODE's agent and proxy, have printed",
		Args:  exactlyOne("a pod"),
	}
	follow := c.Flags().BoolP("follow", "f", false, "go on as it comes")
	c.RunE = func(c *cobra.Command, args []string) error {
		return lab.Logs(c.Context(), *name, args[0], *follow, c.OutOrStdout())
	}
	return c
}

func exactlyOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError("%s needs %s", c.CommandPath(), what)
		}
		return nil
	}
}

func labStatus(name *string) *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "Show a lab's nodes, pods and services", Args: noArgs}
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := lab.StatusOf(*name)
		if err != nil {
			return explainNoLab(*name, err)
		}
		return out.print(c.OutOrStdout(), s, func(w io.Writer) error {
			if err := printLab(w, s); err != nil {
				return err
			}
			printNotes(w, s)
			return nil
		})
	}
	return c
}

func explainNoLab(name string, err error) error {
	if !errors.Is(err, lab.ErrNoLab) {
		return err
	}
	names, _ := lab.List()
	if len(names) == 0 {
		return fmt.Errorf("there is no lab %s, and no other; put one up with: fairlead lab up -f PATH", name)
	}
	return fmt.Errorf("there is no lab %s; there are: %s", name, strings.Join(names, ", "))
}

func printLab(w io.Writer, s *lab.Status) error {
	var rows [][]string
	for _, n := range s.Nodes {
		var procs []string
		for p, state := range n.Processes {
			procs = append(procs, p+" "+state)
		}
		slices.Sort(procs)
		rows = append(rows, []string{n.Name, addresses(n.Addresses), strings.Join(procs, ", ")})
	}
	if err := tabulate(w, []string{"node", "addresses", "processes"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, p := range s.Pods {
		rows = append(rows, []string{p.Namespace + "/" + p.Name, p.Node, addresses(p.Addresses), p.ServiceAccount, p.State, orDash(strings.Join(p.Notes, "; "))})
	}
	fmt.Fprintln(w)
	if err := tabulate(w, []string{"pod", "node", "addresses", "account", "state", "note"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, sv := range s.Services {
		rows = append(rows, []string{sv.Namespace + "/" + sv.Name, orDash(addresses(sv.Addresses)), strings.Join(sv.Ports, ", ")})
	}
	fmt.Fprintln(w)
	if err := tabulate(w, []string{"service", "addresses", "ports"}, rows); err != nil {
		return err
	}
	return nil
}

// printNotes says what is not as the manifests have it; verbs that change a lab say
// it as they go.
func printNotes(w io.Writer, s *lab.Status) {
	for i, n := range s.Notes {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "note: %v\n", n)
	}
}

func addresses(as []netip.Addr) string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.String()
	}
	return strings.Join(out, " ")
}

func labDown(name *string) *cobra.Command {
	return &cobra.Command{Use: "down", Short: "Take a lab down; nothing of it remains", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := lab.Down(c.Context(), *name); err != nil {
				return explainNoLab(*name, err)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "lab %s is down\n", *name)
			return err
		}}
}

func labList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the labs that are up", Args: noArgs}
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		names, err := lab.List()
		if err != nil {
			return err
		}
		names = append([]string{}, names...) // an empty list, not null
		return out.print(c.OutOrStdout(), names, func(w io.Writer) error {
			for _, n := range names {
				fmt.Fprintln(w, n)
			}
			return nil
		})
	}
	return c
}
