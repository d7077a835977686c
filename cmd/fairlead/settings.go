// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"fairlead.io/fairlead/agent/check"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube/installed"
	"fairlead.io/fairlead/translators/kubernetes"
)

// textFlag is a flag that remembers how it was written.
type textFlag struct {
	text string
	set  func(string) error
}

func (f *textFlag) String() string { return f.text }
func (f *textFlag) Type() string   { return "value" }

// Set implements pflag.Value.
func (f *textFlag) Set(s string) error {
	if err := f.set(s); err != nil {
		return err
	}
	f.text = s
	return nil
}

// settle gives the mesh's settings of a command that reads a cluster the values that its
// installation has, where no flag says otherwise: what the command says is what the agents
// do. It is told once where they are from.
func (s *server) settle(c *cobra.Command) error {
	if s.settings != nil {
		return nil
	}
	s.settings = &check.Settings{Flags: map[string]string{}}
	say := func(format string, a ...any) { fmt.Fprintf(c.ErrOrStderr(), "fairlead: "+format+"\n", a...) }
	cfg, err := s.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), readLimit)
	defer cancel()
	all, err := installed.Find(ctx, cfg)
	theirs := pflag.NewFlagSet("", pflag.ContinueOnError)
	switch {
	case apierrors.IsForbidden(err):
		say("judged by the settings that flags say, or their defaults; those of an installation are not known: %v", err)
		return nil
	case err != nil:
		return err
	case len(all) == 0:
		say("judged by the settings that flags say, or their defaults: nothing is installed in this cluster")
	default:
		if theirs, err = meshArgs(all[0].Args); err != nil {
			return fmt.Errorf("the settings of the installation in namespace %s: %w; use the command of its version", all[0].Namespace, err)
		}
		s.settings.Installation = all[0].Namespace
	}
	var differ []string
	theirs.VisitAll(func(f *pflag.Flag) {
		switch ours := c.Flags().Lookup(f.Name); {
		case ours == nil || ours.Changed && settingOf(ours) == settingOf(f):
		case ours.Changed:
			differ = append(differ, fmt.Sprintf("--%s=%s (there: %s)", f.Name, settingOf(ours), orDash(settingOf(f))))
		case f.Changed && err == nil:
			err = c.Flags().Set(f.Name, f.Value.String())
		}
	})
	if err != nil {
		return err
	}
	var set []string
	meshFlagNames().VisitAll(func(f *pflag.Flag) {
		if ours := c.Flags().Lookup(f.Name); ours != nil && ours.Changed {
			s.settings.Flags[f.Name] = ours.Value.String()
			if settingOf(ours) != settingOf(f) {
				set = append(set, "--"+f.Name+"="+ours.Value.String())
			}
		}
	})
	if len(all) == 0 {
		return nil
	}
	say("judged by the settings of the installation in namespace %s: %s", all[0].Namespace, cmp.Or(strings.Join(set, " "), "all as by default"))
	if len(differ) > 0 {
		say("warning: not as the installation has it: %s: the agents do otherwise", strings.Join(differ, ", "))
	}
	if len(all) > 1 {
		say("warning: there are installations in %d namespaces, %s and others: one of them is too many", len(all), all[1].Namespace)
	}
	return nil
}

// settingOf is a flag's value, what it stands for by default included.
func settingOf(f *pflag.Flag) string {
	if f.Name == "default-mode" {
		return cmp.Or(f.Value.String(), kubernetes.ModeEnforce)
	}
	return f.Value.String()
}

// meshFlagNames are the mesh's flags with their defaults.
func meshFlagNames() *pflag.FlagSet {
	c := &cobra.Command{}
	meshFlags(c, &pipeline.Options{})
	return c.Flags()
}

// meshArgs reads the mesh's flags out of an agent's arguments.
func meshArgs(args []string) (*pflag.FlagSet, error) {
	f := meshFlagNames()
	f.ParseErrorsAllowlist.UnknownFlags = true
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "-h" || a == "--help" })
	return f, f.Parse(args)
}
