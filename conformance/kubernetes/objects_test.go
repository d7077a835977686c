// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reader reads the cluster as a service account with a role that testdata/reader.yaml has.
type reader struct{ binary, kubeconfig string }

func newReader(t *testing.T, c cluster) reader {
	t.Helper()
	c.up(t)
	c.kubectl(t, "apply", "-f", "testdata/reader.yaml")
	t.Cleanup(func() {
		if _, err := c.try(context.Background(), "", "delete", "-f", "testdata/reader.yaml", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	c.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
	eventually(t, 20*time.Second, "apply objects", func() error {
		_, err := c.try(t.Context(), "", "apply", "-f", "testdata/reader-objects.yaml")
		return err
	})
	r := reader{filepath.Join(c.folder(), "build/fairlead"), filepath.Join(t.TempDir(), "kubeconfig")}
	build := exec.CommandContext(t.Context(), "nice", "go", "build", "-o", r.binary, "./cmd/fairlead")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	if err := os.WriteFile(r.kubeconfig, []byte(c.kubectl(t, "config", "view", "--raw", "--flatten")), 0o600); err != nil {
		t.Fatal(err)
	}
	user := c.kubectl(t, "config", "view", "-o", "jsonpath={.contexts[0].context.user}")
	token := c.kubectl(t, "create", "token", "-n", "reader", "reader")
	c.kubectl(t, "config", "unset", "users."+user, "--kubeconfig", r.kubeconfig)
	c.kubectl(t, "config", "set-credentials", user, "--token", token, "--kubeconfig", r.kubeconfig)
	return r
}

// translate runs fairlead translate; the outcomes are by "Kind namespace/name".
func (r reader) translate(t *testing.T, stdin string, args ...string) (outcomes map[string]string, said, errs string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), r.binary, append([]string{"translate", "-o", "json"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var report struct {
		Objects []struct{ Kind, Namespace, Name, Outcome string }
	}
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("read report: %v\n%s", err, out.String())
		}
	}
	outcomes = map[string]string{}
	for _, o := range report.Objects {
		outcomes[o.Kind+" "+o.Namespace+"/"+o.Name] = o.Outcome
	}
	return outcomes, out.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// Objects of an API server, read with the least privileges, become what the same objects
// become as files; and what may not be read is named.
func TestObjects(t *testing.T) {
	r := newReader(t, main)
	served, _, errs, code := r.translate(t, "", "--kubeconfig", r.kubeconfig)
	// There is a broken one. That it may not ask for an installation's settings it says.
	if code != 1 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "judged by the settings that flags say") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	text := main.kubectl(t, "get", "nodes,namespaces,pods,services,endpointslices,virtualservices,authorizationpolicies", "-A", "-o", "yaml")
	files, _, _, _ := r.translate(t, text, "-f", "-")
	for o, want := range files {
		if served[o] != want {
			t.Errorf("%s: %q from the API server, %q from a file", o, served[o], want)
		}
	}
	if len(served) != len(files) || served["VirtualService reader/broken"] != "refused" || served["VirtualService reader/web"] != "translated" {
		t.Errorf("%d objects from the API server, %d from a file: %v", len(served), len(files), served)
	}

	main.kubectl(t, "patch", "clusterrole", "fairlead-reader", "--type", "json", "-p", `[{"op": "remove", "path": "/rules/4"}]`)
	eventually(t, 20*time.Second, "a forbidden kind is named", func() error {
		served, said, errs, _ := r.translate(t, "", "--kubeconfig", r.kubeconfig)
		if served["VirtualService reader/web"] != "" || served["AuthorizationPolicy reader/deny"] == "" || !strings.Contains(said, "VirtualService.networking.istio.io: the API server does not let it be read (403)") {
			return errors.New(said + errs)
		}
		return nil
	})
	main.kubectl(t, "patch", "clusterrole", "fairlead-reader", "--type", "json", "-p", `[{"op": "remove", "path": "/rules/4"}]`)
	eventually(t, 20*time.Second, "nothing is read without what restricts", func() error {
		_, said, errs, code := r.translate(t, "", "--kubeconfig", r.kubeconfig)
		if code != 1 || said != "" || !strings.Contains(errs, "AuthorizationPolicy.security.istio.io: may not be read (403)") {
			return errors.New(said + errs)
		}
		return nil
	})
}
