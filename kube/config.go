// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Config is how an API server is reached, and as whom.
type Config = rest.Config

// FromKubeconfig reads how to reach an API server from a kubeconfig file, in a context of
// it; "" is the file's current one, and no path the files that kubectl reads: those of
// $KUBECONFIG, else ~/.kube/config.
func FromKubeconfig(path, context string) (*Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	if path == "" {
		rules = clientcmd.NewDefaultClientConfigLoadingRules()
		path = strings.Join(rules.Precedence, ", ")
	}
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("no cluster is named: there is none in %s; name a kubeconfig by --kubeconfig, or by the variable KUBECONFIG", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
	}
	return c, nil
}

// HasKubeconfig reports whether there is a file that kubectl would read.
func HasKubeconfig() bool {
	return slices.ContainsFunc(clientcmd.NewDefaultClientConfigLoadingRules().Precedence, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// InCluster is how a pod reaches the API server of its cluster, by its service account.
func InCluster() (*Config, error) {
	c, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("reach the API server from within a pod: %w", err)
	}
	return c, nil
}

// Prepare is a copy of a configuration as this package, and those below it, use it. The server's own
// fairness keeps clients apart, so there is no second limit here; and what is deprecated
// in an API is no news to who reads it.
func Prepare(in *rest.Config) *rest.Config {
	c := rest.CopyConfig(in)
	c.QPS = -1
	c.UserAgent = rest.DefaultKubernetesUserAgent()
	c.WarningHandler = rest.NoWarnings{}
	c.Wrap(noteThrottling)
	silence()
	return c
}

// silence takes the words from the libraries: what they would say of an API server is in
// Health, and in this package's own log.
var silence = sync.OnceFunc(func() {
	log.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
})

// RESTClient speaks to an API server about the kinds of one of Kubernetes' own groups, for
// what is asked once; what is watched is Source's.
func RESTClient(cfg *Config, gv schema.GroupVersion) (*rest.RESTClient, error) {
	c := rest.CopyConfig(cfg)
	c.APIPath, c.GroupVersion, c.NegotiatedSerializer = "/apis", &gv, scheme.Codecs.WithoutConversion()
	if gv.Group == "" {
		c.APIPath = "/api"
	}
	c.UserAgent = rest.DefaultKubernetesUserAgent()
	out, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("reach the API server %s: %w", cfg.Host, err)
	}
	return out, nil
}
