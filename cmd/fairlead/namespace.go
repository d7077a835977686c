// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"
)

// defaultNamespace is where Fairlead is installed.
const defaultNamespace = "fairlead-system"

// namespaceFlag adds the flag that names the namespace of the installation.
func namespaceFlag(c *cobra.Command, to *string, usage string) {
	*to = defaultNamespace
	c.Flags().Var(&namespace{to}, "namespace", usage)
}

// namespace is the name of one.
type namespace struct{ name *string }

func (n *namespace) String() string { return *n.name }
func (n *namespace) Type() string   { return "string" }

// Set implements pflag.Value.
func (n *namespace) Set(s string) error {
	if len(validation.IsDNS1123Label(s)) > 0 {
		return fmt.Errorf("want the name of a namespace: lower-case letters, digits and '-', at most %d", validation.DNS1123LabelMaxLength)
	}
	*n.name = s
	return nil
}

// kubernetesOwn are the namespaces that Kubernetes makes in every cluster.
var kubernetesOwn = []string{"default", "kube-node-lease", "kube-public", "kube-system"}

// ownNamespace refuses to install where Kubernetes has its own objects: an uninstall deletes
// there, and agents have Leases by the names of the nodes, as kubelets do in kube-node-lease.
func ownNamespace(name string) error {
	if slices.Contains(kubernetesOwn, name) {
		return usageError("--namespace %s: that one is Kubernetes' own (as %s are); Fairlead needs one for itself, %s say", name, strings.Join(kubernetesOwn, ", "), defaultNamespace)
	}
	return nil
}
