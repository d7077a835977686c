// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/deploy"
	"fairlead.io/fairlead/kube/install"
	"fairlead.io/fairlead/kube/preflight"
	"fairlead.io/fairlead/operator"
)

// installation is the flags that say what is installed, and where.
type installation struct {
	server    *server
	namespace string
	limit     time.Duration
}

func installationFlags(c *cobra.Command, limit time.Duration) *installation {
	i := &installation{server: &server{usual: true}}
	i.server.fileFlags(c, "kubeconfig file of the cluster (default: as kubectl has it)")
	namespaceFlag(c, &i.namespace, "namespace of the installation")
	c.Flags().DurationVar(&i.limit, "timeout", limit, "how long it may take")
	return i
}

// installer reaches the cluster, and refuses one that Helm has installed to.
func (i *installation) installer(c *cobra.Command, instead string) (*install.Installer, error) {
	i.server.here = !i.server.named()
	cfg, err := i.server.config()
	if err != nil {
		return nil, err
	}
	in, err := install.New(cfg, i.namespace, func(format string, a ...any) { fmt.Fprintf(c.ErrOrStderr(), format+"\n", a...) })
	if err != nil {
		return nil, err
	}
	release, err := in.Release(c.Context())
	if err == nil && release != "" {
		err = fmt.Errorf("the Helm release %s has this installation: %s", release, fmt.Sprintf(instead, release, i.namespace))
	}
	return in, err
}

// context ends with the limit, for all that the command does from now on.
func (i *installation) context(c *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(c.Context(), i.limit, fmt.Errorf("%s are over; --timeout gives it more", i.limit))
	c.SetContext(ctx)
	return ctx, cancel
}

func installCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "install [--kubeconfig FILE]",
		Short: "Install Fairlead on a cluster, or bring an installation up to this version and these flags",
		Long: `Install looks whether something stands in the way, applies what the chart of this version
renders, and waits until agents and proxies of all nodes are ready. Nothing changes in the
pods, and nothing restarts. Run again, it brings what is there up to this version and these
flags. What it does not have a flag for, the chart has a value for: use Helm then.

Interrupted or failed it can be run again, or taken back by "fairlead uninstall".`,
		Example: "  fairlead install\n  fairlead install --image-registry registry.example/mesh --image-tag v1.2.0 --trust-domain example.org\n  fairlead install --print | kubectl apply -f -",
		Args:    noArgs,
	}
	i := installationFlags(c, 5*time.Minute)
	var e manifestEdit
	c.Flags().StringVar(&e.registry, "image-registry", "", "registry and folder of the images fairlead and proxy (default: that of the manifests)")
	c.Flags().StringVar(&e.tag, "image-tag", "", "tag of the images (default: that of the manifests)")
	c.Flags().StringVar(&e.pullPolicy, "image-pull-policy", "", "Always, IfNotPresent or Never")
	c.Flags().StringArrayVar(&e.agent, "agent-arg", nil, "further argument of the agents, as in --agent-arg=--uplink=eth1; repeat for more")
	c.Flags().StringArrayVar(&e.proxy, "proxy-arg", nil, "further argument of the proxies; repeat for more")
	mesh := passedFlags(c, func(c *cobra.Command, o *pipeline.Options) { meshFlags(c, o) })
	skip := c.Flags().Bool("skip-preflight", false, "install though something stands in the way")
	show := c.Flags().Bool("print", false, "print the manifests that would be applied, and do nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := ownNamespace(i.namespace); err != nil {
			return err
		}
		e.namespace = i.namespace
		args, err := mesh()
		if err != nil {
			return err
		}
		e.agent, e.operator = append(args, e.agent...), args
		objects, text, err := e.manifests()
		if err != nil {
			return err
		}
		if *show {
			_, err := c.OutOrStdout().Write(text)
			return err
		}
		ctx, cancel := i.context(c)
		defer cancel()
		in, err := i.installer(c, "helm upgrade %s changes it, in namespace %s")
		if err != nil {
			return err
		}
		found, err := i.server.preflight(c, i.namespace)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(found, func(f preflight.Finding) bool { return f.Level == preflight.Fine })
		if err := printFindings(c.ErrOrStderr(), found); err != nil {
			return err
		}
		if preflight.Worst(found) == preflight.Problem && !*skip {
			return errors.New("nothing was installed: mend what is a problem, or say --skip-preflight")
		}
		if err := in.Apply(ctx, objects); err != nil {
			return fmt.Errorf("%w\nwhat was applied before that stays: run it again, or fairlead uninstall", err)
		}
		if err := in.Wait(ctx); err != nil {
			if text := err.Error(); strings.Contains(text, "ImagePull") || strings.Contains(text, "ErrImage") {
				err = fmt.Errorf("%w\nsay where the images are by --image-registry and --image-tag; hack/images.sh makes them", err)
			}
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "Fairlead is installed; fairlead status tells how it does, fairlead check what your objects come to, fairlead uninstall takes it away")
		return err
	}
	return c
}

func uninstallAllCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "uninstall [--kubeconfig FILE]",
		Short: "Take Fairlead away from a cluster: what it wrote, and what it has on the nodes",
		Long: `Uninstall takes back what the operators have written into users' objects, ends agents and
proxies, which leave their nodes as they were before, and deletes the installation's
objects. CustomResourceDefinitions stay: users' objects would go with them. Requests are
no longer routed, and policies no longer hold, from the moment when the agents end.`,
		Args: noArgs,
	}
	i := installationFlags(c, 5*time.Minute)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := i.context(c)
		defer cancel()
		in, err := i.installer(c, "helm uninstall %s -n %s takes it away")
		if err != nil {
			return err
		}
		e := manifestEdit{namespace: i.namespace}
		objects, _, err := e.manifests()
		if err != nil {
			return err
		}
		there, err := in.Any(ctx, objects)
		if err != nil {
			return err
		}
		if err := in.Remove(ctx, objects, func(ctx context.Context) error { return i.cleanup(ctx, c) }); err != nil {
			return fmt.Errorf("%w\nnot all is taken away: run it again to go on", err)
		}
		if !there {
			_, err = fmt.Fprintf(c.OutOrStdout(), "there was no installation in namespace %s\n", i.namespace)
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "Fairlead is gone; the nodes are as they were")
		return err
	}
	return c
}

// manifestEdit is what flags change of the manifests.
type manifestEdit struct {
	namespace, registry, tag, pullPolicy string
	agent, proxy, operator               []string // further arguments
}

var (
	imageLine  = regexp.MustCompile(`(?m)^(\s*(?:- )?image: )(\S+)/([a-z]+):(\S+)$`)
	policyLine = regexp.MustCompile(`(?m)^(\s*imagePullPolicy: )\S+$`)
)

// manifests are what is applied, as objects and as text.
func (e *manifestEdit) manifests() ([]*unstructured.Unstructured, []byte, error) {
	text := bytes.ReplaceAll(deploy.Manifests, []byte(defaultNamespace), []byte(e.namespace))
	text = bytes.ReplaceAll(text, []byte("managed-by: kubectl"), []byte("managed-by: "+install.Manager))
	text = imageLine.ReplaceAllFunc(text, func(line []byte) []byte {
		m := imageLine.FindSubmatch(line)
		registry, tag := string(m[2]), string(m[4])
		if e.registry != "" {
			registry = e.registry
		}
		if e.tag != "" {
			tag = e.tag
		}
		return fmt.Appendf(nil, "%s%s/%s:%s", m[1], registry, m[3], tag)
	})
	if e.pullPolicy != "" {
		if !slices.Contains([]string{"Always", "IfNotPresent", "Never"}, e.pullPolicy) {
			return nil, nil, usageError("--image-pull-policy %s: want Always, IfNotPresent or Never", e.pullPolicy)
		}
		text = policyLine.ReplaceAll(text, []byte("${1}"+e.pullPolicy))
	}
	objects, err := install.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	for of, args := range map[string][]string{"fairlead-agent": e.agent, "fairlead-proxy": e.proxy, "fairlead-operator": e.operator} {
		if err := addArgs(objects, of, args); err != nil {
			return nil, nil, err
		}
	}
	var out bytes.Buffer
	for _, o := range objects {
		out.WriteString("---\n")
		if err := format("yaml").print(&out, o.Object, nil); err != nil {
			return nil, nil, err
		}
	}
	return objects, out.Bytes(), nil
}

// addArgs adds arguments to the first container of the pods of an object.
func addArgs(objects []*unstructured.Unstructured, name string, args []string) error {
	if len(args) == 0 {
		return nil
	}
	for _, o := range objects {
		containers, found, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if o.GetName() != name || !found || err != nil {
			continue
		}
		first, ok := containers[0].(map[string]any)
		if !ok {
			continue
		}
		has, _, err := unstructured.NestedStringSlice(first, "args")
		if err != nil {
			return fmt.Errorf("arguments of %s: %w", name, err)
		}
		if err := unstructured.SetNestedStringSlice(first, append(has, args...), "args"); err != nil {
			return fmt.Errorf("arguments of %s: %w", name, err)
		}
		return unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers")
	}
	return fmt.Errorf("the manifests have no %s: give arguments by the chart's values", name)
}

// passedFlags adds the flags of another command, whose values are checked as they would be
// there, and gives those that were named, as arguments for it.
func passedFlags(c *cobra.Command, add func(*cobra.Command, *pipeline.Options)) func() ([]string, error) {
	var o pipeline.Options
	theirs := &cobra.Command{}
	add(theirs, &o)
	values := map[string]*string{}
	theirs.Flags().VisitAll(func(f *pflag.Flag) {
		values[f.Name] = c.Flags().String(f.Name, "", f.Usage)
		if f.NoOptDefVal != "" {
			c.Flags().Lookup(f.Name).NoOptDefVal = f.NoOptDefVal
		}
	})
	return func() ([]string, error) {
		var out []string
		var failed error
		c.Flags().Visit(func(f *pflag.Flag) {
			v, ok := values[f.Name]
			if !ok {
				return
			}
			if err := theirs.Flags().Set(f.Name, *v); err != nil && failed == nil {
				failed = usageError("--%s %s: %v", f.Name, *v, err)
			}
			out = append(out, "--"+f.Name+"="+*v)
		})
		if failed != nil {
			return nil, failed
		}
		if _, err := pipeline.Planes(o); err != nil {
			return nil, usageError("%v", err)
		}
		return out, nil
	}
}

// cleanup takes back what operators have written.
func (i *installation) cleanup(ctx context.Context, c *cobra.Command) error {
	o := &operatorOptions{}
	o.Namespace = i.namespace
	if err := o.reach(c, i.server); err != nil {
		return err
	}
	o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})) // the rest is for a log
	removed, err := operator.Cleanup(ctx, o.Options)
	if err == nil && removed.Other != "" {
		fmt.Fprintf(c.ErrOrStderr(), "statuses and Events are left to the installation in namespace %s\n", removed.Other)
	} else if err == nil {
		fmt.Fprintf(c.ErrOrStderr(), "taken back: %d statuses, %d Events\n", removed.Statuses, removed.Events)
	}
	return err
}
