// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/config"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

const root = "../.."

// update writes down what comes of this run.
var update = flag.Bool("update", false, "write reports/ and the README's table anew")

var cluster = testcluster.Cluster{Name: cmp.Or(os.Getenv("CLUSTER"), "fairlead-gateway"), Root: root}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "a cluster needs root: hack/gateway.sh")
		os.Exit(1)
	}
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr)))
	code := m.Run()
	if os.Getenv("KEEP") == "" {
		if err := cluster.Down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// supported are the features that the suite tests: all that a mesh can have, and of the
// routes' those that its tests of meshes use.
func supported() []features.FeatureName {
	out := features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures).UnsortedList()
	for _, test := range tests.ConformanceTests {
		if needsOnlyMesh(test) {
			out = append(out, test.Features...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// needsOnlyMesh tells tests that nothing enters the cluster for.
func needsOnlyMesh(test suite.ConformanceTest) bool {
	return slices.Contains(test.Features, features.SupportMesh) && !slices.Contains(test.Features, features.SupportGateway)
}

// All runs share one cluster with Fairlead on it, installed by its manifests.
func TestConformance(t *testing.T) {
	cluster.Up(t)
	cluster.Load(t, image(t))
	crds := filepath.Join(strings.TrimSpace(run(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")), "config/crd/standard")
	cluster.Kubectl(t, "apply", "--server-side", "-f", crds)
	cluster.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
	cluster.Install(t)
	t.Run("suite", runSuite)
	t.Run("status", checkStatus)
}

// The suite's tests of meshes pass, as the kept report says and no worse, and their
// routes' status says that they are served.
func runSuite(t *testing.T) {
	results := map[string]string{}
	o := options(t)
	o.Hook = func(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
		switch {
		case t.Failed():
			results[test.ShortName] = "failed"
		case !t.Skipped():
			results[test.ShortName] = "passed"
		}
	}
	s, err := suite.NewConformanceTestSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	var unsaid []string
	t.Run("tests", func(t *testing.T) {
		s.Setup(t, tests.ConformanceTests)
		if err := s.Run(t, alsoStatus(tests.ConformanceTests, &unsaid)); err != nil {
			t.Fatal(err)
		}
	})
	report, err := s.Report()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests.ConformanceTests {
		if needsOnlyMesh(test) && results[test.ShortName] != "passed" {
			t.Errorf("%s: %s", test.ShortName, cmp.Or(results[test.ShortName], "not run"))
		}
	}
	for _, what := range unsaid {
		t.Error(what)
	}
	compareReport(t, report)
	compareTable(t, results)
}

// options are what users of the suite would give it as flags.
func options(t *testing.T) suite.ConformanceOptions {
	t.Helper()
	rest, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(rest, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, install := range []func() error{
		func() error { return gatewayv1.Install(c.Scheme()) },
		func() error { return apiextensionsv1.AddToScheme(c.Scheme()) },
	} {
		if err := install(); err != nil {
			t.Fatal(err)
		}
	}
	clients, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(run(t, root, "git", "describe", "--always", "--abbrev=12"))
	return suite.ConformanceOptions{
		ConfigurableOptions: suite.ConfigurableOptions{
			NamespaceLabels:      map[string]string{"fairlead.io/capture": "enabled"},
			CleanupBaseResources: true,
			CleanupTestResources: true,
			SupportedFeatures:    supported(),
			ConformanceProfiles:  []suite.ConformanceProfileName{suite.MeshHTTPConformanceProfileName, suite.MeshGRPCConformanceProfileName},
			TimeoutConfig:        config.DefaultTimeoutConfig(),
			Implementation: confv1.Implementation{Organization: "fairlead", Project: "fairlead", URL: "https://fairlead.io/fairlead",
				Version: version, Contact: []string{"https://fairlead.io/fairlead"}},
		},
		Client: c, Clientset: clients, RestConfig: rest,
		ManifestFS: []fs.FS{&conformance.Manifests},
	}
}
