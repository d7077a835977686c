// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"
)

// workload is pods with a sidecar, or without one.
var workload = template.Must(template.New("").Parse(`apiVersion: apps/v1
kind: Deployment
metadata: {name: {{.Name}}, namespace: moving}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  minReadySeconds: 2
  selector: {matchLabels: {app: {{.Name}}}}
  template:
    metadata: {labels: {app: {{.Name}}}, annotations: {sidecar: "{{.Sidecar}}"}}
    spec:
      serviceAccountName: {{.Name}}
      terminationGracePeriodSeconds: 15
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: {{.Name}}}}}]
{{- if .Sidecar}}
      initContainers:
      - name: istio-init
        image: fairlead.local/sidecar:1
        imagePullPolicy: Never
        securityContext: {runAsUser: 0, capabilities: {add: [NET_ADMIN, NET_RAW]}}
        command: [sh, -ec]
        args:
        - |
          for t in iptables ip6tables; do
            $t -t nat -A PREROUTING -p tcp -m tcp ! --dport 15000:15099 -j REDIRECT --to-ports 15006
            $t -t nat -A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN
            $t -t nat -A OUTPUT -p tcp -o lo -j RETURN
            $t -t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 15001
          done
{{- end}}
      containers:
      - name: server
        image: fairlead.local/lab:1
        imagePullPolicy: Never
        args: [-port, 8080=http, -port, 9090=tcp]
        ports: [{containerPort: 8080}]
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: FAIRLEAD_POD, value: '{"pod": "$(POD)"}'}
        lifecycle: {preStop: {exec: {command: [sleep, "8"]}}}
        readinessProbe: {exec: {command: [call, "http://127.0.0.1:8080/"]}, periodSeconds: 2, timeoutSeconds: 3}
        resources: {requests: {cpu: 10m, memory: 16Mi}}
{{- if .Sidecar}}
      - name: istio-proxy
        image: fairlead.local/sidecar:1
        imagePullPolicy: Never
        securityContext: {runAsUser: 1337}
        command: [envoy, -c, /etc/sidecar/envoy.yaml, --concurrency, "1", --disable-hot-restart, -l, warning]
        lifecycle: {preStop: {exec: {command: [sleep, "10"]}}}
        readinessProbe: {exec: {command: [sh, -c, "nc -w 2 127.0.0.1 15006 </dev/null"]}, periodSeconds: 2, timeoutSeconds: 4}
        volumeMounts: [{name: sidecar, mountPath: /etc/sidecar}]
      volumes: [{name: sidecar, configMap: {name: sidecar}}]
{{- end}}
`))

// sidecarImage makes an image of a stock Envoy, and of iptables as Debian has it, and gives
// it to the nodes.
func (f *fleet) sidecarImage(t *testing.T) {
	t.Helper()
	envoy, err := exec.Command("../../hack/envoy.sh").Output()
	if err != nil {
		t.Fatalf("find Envoy: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(os.Getenv("HOME"), ".cache/fairlead/kubernetes-*/debian"))
	if err != nil || len(found) == 0 {
		t.Fatalf("find Debian's packages of the cluster: %v, %v", found, err)
	}
	debian := found[len(found)-1]
	lib := filepath.Join(debian, "usr/lib/x86_64-linux-gnu")
	programs := map[string]string{strings.TrimSpace(string(envoy)): "/bin/envoy", filepath.Join(debian, "usr/sbin/xtables-nft-multi"): "/bin/iptables",
		filepath.Join(debian, "bin/busybox"): "/bin/busybox"}
	args := []string{"-o", filepath.Join(t.TempDir(), "sidecar.tar"), "-name", "fairlead.local/sidecar:1", "-entrypoint", "/bin/envoy", "-env", "XTABLES_LIBDIR=/usr/lib/xtables",
		"-env", "PATH=/bin"}
	needed := map[string]string{} // libraries, where they are found
	look := func(file string) {
		cmd := exec.Command("ldd", file)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+lib)
		out, _ := cmd.Output() // of a static one there are none
		for _, m := range regexp.MustCompile(`(?m)(?:=> )?(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
			needed[filepath.Base(m[1])] = m[1]
		}
	}
	for file, to := range programs {
		args = append(args, file+"="+to)
		look(file)
	}
	for _, x := range []string{"libxt_tcp.so", "libxt_owner.so", "libxt_REDIRECT.so", "libxt_standard.so", "libipt_REDIRECT.so", "libip6t_REDIRECT.so"} {
		file := filepath.Join(lib, "xtables", x)
		if _, err := os.Stat(file); err == nil {
			args = append(args, file+"=/usr/lib/xtables/"+x)
			look(file)
		}
	}
	for name, file := range needed {
		args = append(args, file+"=/lib64/"+name)
	}
	args = append(args, "-env", "LD_LIBRARY_PATH=/lib64", "link:iptables=/bin/ip6tables")
	for _, name := range []string{"sh", "sleep", "nc"} {
		args = append(args, "link:busybox=/bin/"+name)
	}
	var options, files []string
	for i := 0; i < len(args); i++ {
		if strings.HasPrefix(args[i], "-") {
			options = append(options, args[i], args[i+1])
			i++
			continue
		}
		files = append(files, args[i])
	}
	cmd := exec.Command(filepath.Join(f.c.folder(), "build/image"), append(options, files...)...) // options come before files
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the sidecar's image: %v\n%s", err, out)
	}
	f.c.run(t, "load.sh", args[1])
}

// roll rolls a workload out with or without a sidecar.
func (f *fleet) roll(t *testing.T, name string, sidecar bool) {
	t.Helper()
	var text bytes.Buffer
	if err := workload.Execute(&text, map[string]any{"Name": name, "Sidecar": sidecar}); err != nil {
		t.Fatal(err)
	}
	f.apply(t, text.String())
	f.c.kubectl(t, "rollout", "status", "-n", "moving", "deployment/"+name, "--timeout=300s")
	eventually(t, 60*time.Second, "old pods of "+name+" are gone", func() error {
		if got := f.c.kubectl(t, "get", "pods", "-n", "moving", "-l", "app="+name, "-o", "name"); len(strings.Fields(got)) != 2 {
			return errors.New(got)
		}
		return nil
	})
}

// through asks from a pod and returns by which sidecars requests went, sorted.
func (f *fleet) through(t *testing.T, from string, args ...string) string {
	t.Helper()
	namespace, pod, _ := strings.Cut(from, "/")
	out, _ := f.c.try(t.Context(), "", append([]string{"exec", "-n", namespace, pod, "--", "call", "-timeout", "5s"}, args...)...)
	got := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var r struct {
			Status int
			Error  string
			Answer *struct{ Headers map[string][]string }
		}
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read results: %v: %s", err, out)
		}
		switch {
		case r.Answer != nil && r.Status == 200:
			got[strings.Join(r.Answer.Headers["x-through"], "+")] = true
		default:
			got[fmt.Sprint(r.Status, r.Error)] = true
		}
	}
	var all []string
	for k := range got {
		all = append(all, k)
	}
	slices.Sort(all)
	return strings.Join(all, "|")
}

func (f *fleet) podOf(t *testing.T, app string) string {
	t.Helper()
	return "moving/" + f.c.kubectl(t, "get", "pods", "-n", "moving", "-l", "app="+app, "-o", "jsonpath={.items[0].metadata.name}")
}

const movedPolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: moved, namespace: moving}
spec:
  selector: {matchLabels: {app: moved}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/mesh/sa/client, cluster.local/ns/moving/sa/caller, cluster.local/ns/plain/sa/default]}}]
    to: [{operation: {paths: [/open]}}]
`

// Pods with sidecars are left alone and spoken to in plaintext, policy holds for them all
// the same, and a namespace moves from sidecars to Fairlead and back by its rollouts.
func TestSidecars(t *testing.T) {
	f := newFleet(t, main)
	f.sidecarImage(t)
	f.deploy(t)
	f.fromAPIServer(t)
	f.c.kubectl(t, "apply", "-f", "testdata/sidecar.yaml")
	t.Cleanup(func() {
		if _, err := f.c.try(context.Background(), "", "delete", "namespace", "moving", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	f.apply(t, movedPolicy)
	f.roll(t, "moved", true)
	f.roll(t, "caller", true)
	for _, n := range []string{"node-1", "node-2"} {
		f.start(t, n)
	}
	f.believes(t, "node-1", "node-2", true)
	f.believes(t, "node-2", "node-1", true)

	// what clients go through to pods that have a sidecar, or none, to where all may
	check := func(t *testing.T, callers, moved bool) {
		t.Helper()
		in, out := map[bool]string{true: "sidecar-in"}[moved], map[bool]string{true: "sidecar-out"}[callers]
		both := strings.Trim(out+"+"+in, "+")
		caller := f.podOf(t, "caller")
		for _, family := range []string{"-4", "-6"} {
			for from, want := range map[string]string{"mesh/client-1": in, "mesh/client-2": in, "plain/outsider-1": in, "plain/outsider-2": in, caller: both} {
				eventually(t, 30*time.Second, from+" asks "+family, func() error {
					if got := f.through(t, from, family, "-repeat", "20", "http://moved.moving/open"); got != want {
						return fmt.Errorf("went through %q, want %q", got, want)
					}
					if got := f.through(t, from, family, "-repeat", "10", "http://moved.moving/shut"); got != "403" {
						return fmt.Errorf("what is forbidden: %q", got)
					}
					return nil
				})
			}
			// Who is not let in, captured or not; and what has no sidecar is reached from one.
			f.expect(t, "mesh/other-1", []string{"403"}, family, "-repeat", "10", "http://moved.moving/open")
			if got := f.through(t, caller, family, "-repeat", "20", "http://web.mesh/v1"); got != out {
				t.Errorf("from %s to mesh: through %q, want %q", caller, got, out)
			}
		}
		for _, n := range []string{"node-1", "node-2"} {
			f.settled(t, n)
		}
	}
	t.Run("with", func(t *testing.T) { check(t, true, true) })
	for _, moved := range []bool{false, true} {
		name := map[bool]string{false: "to Fairlead", true: "back"}[moved]
		t.Run(name, func(t *testing.T) {
			loads := map[string]*sending{}
			for from, args := range map[string][]string{"mesh/client-1": nil, "mesh/client-2": {"-fresh", "1"}, "plain/outsider-2": {"-fresh", "1"}} {
				loads[from] = f.send(t, from, append(args, "-rate", "30", "-connections", "4", "-url", "http://moved.moving/open")...)
				loads[from+", forbidden"] = f.send(t, from, append(args, "-rate", "10", "-forbid", "-connections", "2", "-url", "http://moved.moving/shut")...)
			}
			f.roll(t, "moved", moved)
			time.Sleep(2 * time.Second)
			for what, l := range loads {
				l.noneFailed(t, what)
			}
			check(t, true, moved)
			f.roll(t, "caller", moved)
			check(t, moved, moved)
			if !moved {
				f.roll(t, "caller", true) // and with it alone
				check(t, true, moved)
			}
		})
	}
}
