// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Values that nobody knows, or that cannot be meant, are refused with their names, or with what
// to do.
func TestValues(t *testing.T) {
	for set, want := range map[string]string{
		`{"operators": 2}`:                                                   "operators",
		`{"agent": {"uplink": "eth0"}}`:                                      "uplink",
		`{"clusterDomain": "a..b"}`:                                          "/clusterDomain",
		`{"trustDomain": "-a"}`:                                              "/trustDomain",
		`{"image": {"registry": "a//b"}}`:                                    "/image/registry",
		`{"image": {"tag": "a b"}}`:                                          "/image/tag",
		`{"image": {"digests": {"proxy": "sha256:1234"}}}`:                   "/image/digests/proxy",
		`{"image": {"pullSecrets": ["a\n    b: c"]}}`:                        "/image/pullSecrets/0",
		`{"mesh": {"istioVersion": "latest"}}`:                               "must be one of '', '1.22'",
		`{"mesh": {"istioVersion": "1.99"}}`:                                 "'1.31'",
		`{"mesh": {"linkerdDefaultInboundPolicy": "nothing"}}`:               "/mesh/linkerdDefaultInboundPolicy",
		`{"mesh": {"linkerdClusterNetworks": ["10.0.0.0/8", "10.0.0/8"]}}`:   `"10.0.0/8" is no range of addresses: write it as`,
		`{"mesh": {"linkerdClusterNetworks": ["256.0.0.0/8"]}}`:              `"256.0.0.0/8" is no range`,
		`{"mesh": {"linkerdClusterNetworks": ["10.0.0.0/33"]}}`:              `"10.0.0.0/33" is no range`,
		`{"mesh": {"linkerdClusterNetworks": ["fd00:/8"]}}`:                  `"fd00:/8" is no range`,
		`{"mesh": {"linkerdClusterNetworks": ["fd00::/129"]}}`:               `"fd00::/129" is no range`,
		`{"agent": {"uplinks": ["eth0:1"]}}`:                                 "/agent/uplinks/0",
		`{"agent": {"cgroup": "/sys/fs/cgroup/../x"}}`:                       "/agent/cgroup",
		`{"agent": {"whenProxyAbsent": "open"}}`:                             "/agent/whenProxyAbsent",
		`{"agent": {"seLinuxOptions": {"types": "spc_t"}}}`:                  "types",
		`{"agent": {"leaseRenew": "1ms"}}`:                                   "/agent/leaseRenew",
		`{"agent": {"leaseRenew": "61s"}}`:                                   "/agent/leaseRenew",
		`{"agent": {"maxUnavailable": 0}}`:                                   "/agent/maxUnavailable",
		`{"agent": {"cni": {"confDir": "/etc/x\n        - --y"}}}`:           "/agent/cni/confDir",
		`{"agent": {"cni": {"confDir": "/etc"}}}`:                            "/agent/cni/confDir",
		`{"agent": {"cni": {"binDir": "/opt/cni/../bin"}}}`:                  "/agent/cni/binDir",
		`{"agent": {"cni": {"binDir": "/run/fairlead"}}}`:                    "agent.cni.binDir=/run/fairlead is used for something else",
		`{"agent": {"cni": {"confDir": "/var/run/fairlead/x"}}}`:             "is used for something else",
		`{"agent": {"cni": {"binDir": "/sys/fs/bpf"}}}`:                      "is used for something else",
		`{"agent": {"cni": {"confDir": "/opt/cni/bin"}}}`:                    "agent.cni.confDir and binDir are both /opt/cni/bin: name",
		`{"agent": {"podLabels": {"app.kubernetes.io/component": "proxy"}}}`: "agent.podLabels: app.kubernetes.io/component is the chart's own",
		`{"labels": {"app.kubernetes.io/managed-by": "me"}}`:                 "labels: app.kubernetes.io/managed-by is the chart's own",
		`{"labels": {"a b": "c"}}`:                                           `"a b" is no name of a label`,
		`{"labels": {"team": "a b"}}`:                                        "/labels/team",
		`{"proxy": {"concurrency": -1}}`:                                     "/proxy/concurrency",
		`{"proxy": {"drainTime": "10"}}`:                                     "/proxy/drainTime",
		`{"proxy": {"drainTime": "0s"}}`:                                     "/proxy/drainTime",
		`{"proxy": {"drainTime": "45s"}}`:                                    "set it to 55 or more",
		`{"proxy": {"drainTime": "2m"}}`:                                     "set it to 130 or more",
		`{"proxy": {"terminationGracePeriodSeconds": 10000000}}`:             "/proxy/terminationGracePeriodSeconds",
		`{"metrics": {"port": 0}}`:                                           "/metrics/port",
		`{"clusterDomain": null}`:                                            "missing property 'clusterDomain'",
		`{"image": {"tag": null}}`:                                           "missing property 'tag'",
		`{"mesh": {"defaultMode": null}}`:                                    "missing property 'defaultMode'",
		`{"agent": null}`:                                                    "missing property 'agent'",
		`{"agent": {"leaseRenew": null}}`:                                    "missing property 'leaseRenew'",
		`{"agent": {"cni": null}}`:                                           "missing property 'cni'",
		`{"proxy": {"drainTime": null}}`:                                     "missing property 'drainTime'",
		`{"operator": {"replicas": null}}`:                                   "missing property 'replicas'",
		`{"metrics": {"port": null}}`:                                        "missing property 'port'",
	} {
		if out, err := render(t, set); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: want %q: %v: %s", set, want, err, out)
		}
	}
	if out, err := render(t, "{}", "--namespace", "kube-node-lease"); err == nil || !strings.Contains(out, "install in another namespace") {
		t.Errorf("in the namespace of the kubelets' Leases: %v: %s", err, out)
	}
}

// render gives what the chart makes of values in JSON.
func render(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.json")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return main.tryHelm(t.Context(), append([]string{"template", release, chart, "--values", file}, args...)...)
}

// Values stand where they are meant to, and as they were written.
func TestValuesAreRendered(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0f", 32)
	for values, want := range map[string][]string{
		`{"agent": {"uplinks": ["eth0", "vx#1"], "cgroup": "/sys/fs/cgroup/unified", "maxUnavailable": "10%"}}`: {
			"- \"--uplink=eth0\"\n        - \"--uplink=vx#1\"\n", "- \"--cgroup=/sys/fs/cgroup/unified\"\n", `{maxUnavailable: "10%"}`},
		`{"image": {"registry": "r.example:5000/x", "tag": "v1", "pullSecrets": ["mine"], "digests": {"proxy": "` + digest + `"}}}`: {
			"image: r.example:5000/x/fairlead:v1\n", "image: r.example:5000/x/proxy@" + digest + "\n", "- name: \"mine\"\n"},
		`{"mesh": {"istioOutboundTrafficPolicy": "REGISTRY_ONLY", "linkerdClusterNetworks": ["10.0.0.0/8", "fd00::/8", "::/0", "1:2:3:4:5:6:7:8/128"]}}`: {
			"- \"--istio-outbound-traffic-policy=REGISTRY_ONLY\"\n", "- \"--linkerd-cluster-networks=10.0.0.0/8,fd00::/8,::/0,1:2:3:4:5:6:7:8/128\"\n"},
		`{"labels": {"team": "a", "on": "true"}, "agent": {"podLabels": {"team": "b"}}}`: {
			"    team: a\n", "        app.kubernetes.io/component: agent\n        \"on\": \"true\"\n        team: b\n    spec:"},
		`{"metrics": {"prometheusRule": true}}`:        {"kind: PrometheusRule\n", "  groups:\n  - name: fairlead\n", "    - alert: FairleadAgentDown\n"},
		`{"metrics": {"enabled": true, "port": 9999}}`: {"- --metrics=:9999\n", "containerPort: 9999", "prometheus.io/port: \"9999\"\n"},
		`{"proxy": {"drainTime": "1m", "terminationGracePeriodSeconds": 70}}`: {
			"- \"--drain-time=1m\"\n", "terminationGracePeriodSeconds: 70\n"},
		`{"agent": {"cni": {"confDir": "/etc/kubernetes/cni/net.d", "binDir": "/var/lib/cni/bin", "exempt": null}}}`: {
			"- \"--cni-conf-dir=/etc/kubernetes/cni/net.d\"\n", `hostPath: {path: "/var/lib/cni/bin", type`, "- \"--cni-exempt=1234\"\n"},
		`{"agent": {"seLinuxOptions": {"type": "spc_t", "level": "s0"}}}`: {
			"        seLinuxOptions:\n          level: s0\n          type: spc_t\n        # The usual profile", "        seLinuxOptions:\n          level: s0\n          type: spc_t\n      containers:\n      - name: proxy\n"},
		`{"image": {"pullSecrets": null, "digests": null}, "agent": {"resources": null, "nodeSelector": null, "tolerations": null, "uplinks": null, "podLabels": null}, "labels": null}`: {
			"namespace: \"1234\"\n"},
	} {
		out, err := render(t, values, "--namespace", "1234")
		if err != nil {
			t.Errorf("%s: %v: %s", values, err, out)
			continue
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: rendered without %q", values, w)
			}
		}
	}
}

// The Job that takes back what operators have written goes where they may be: with every taint
// tolerated it could be on a dead node, and without their selector on one of another system.
func TestCleanupGoesWhereOperatorsDo(t *testing.T) {
	part := func(values, file, key string) string {
		t.Helper()
		out, err := render(t, values, "--show-only", "templates/"+file)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, rest, _ := strings.Cut(out, "\n      "+key+":\n")
		var lines []string
		for line := range strings.Lines(rest) {
			if !strings.HasPrefix(line, "        ") {
				break
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	}
	const values = `{"operator": {"nodeSelector": {"kubernetes.io/arch": "arm64"}, "tolerations": [{"key": "infra", "operator": "Exists"}],
		"affinity": {"nodeAffinity": {}}}}`
	for _, one := range []struct{ values, key, want string }{
		{"{}", "nodeSelector", "kubernetes.io/os: linux"},
		{"{}", "tolerations", ""},
		{values, "nodeSelector", "kubernetes.io/arch: arm64"},
		{values, "tolerations", "key: infra"},
		{values, "affinity", "nodeAffinity"},
		{`{"agent": {"startupTaint": "a.example/b"}}`, "tolerations", "key: a.example/b"},
	} {
		job, operator := part(one.values, "cleanup.yaml", one.key), part(one.values, "operator.yaml", one.key)
		if job != operator || !strings.Contains(job, one.want) {
			t.Errorf("%s: %s of the Job is %q, of the operators %q, want %q", one.values, one.key, job, operator, one.want)
		}
	}
}

// What is turned off is not asked for.
func TestValuesTakePrivileges(t *testing.T) {
	for set, gone := range map[string][]string{
		"operator.installCRDs=false": {"traffictargets.access.smi-spec.io", "resources: [customresourcedefinitions]\n  verbs: [create]"},
		"agent.cni.enabled=false":    {"name: cni-conf", "name: cni-bin", `path: "/etc/cni/net.d"`, `path: "/opt/cni/bin"`},
	} {
		with, err := main.tryHelm(t.Context(), "template", release, chart)
		if err != nil {
			t.Fatalf("%v: %s", err, with)
		}
		without, err := main.tryHelm(t.Context(), "template", release, chart, "--set", set)
		if err != nil {
			t.Fatalf("%s: %v: %s", set, err, without)
		}
		for _, text := range gone {
			if !strings.Contains(with, text) || strings.Contains(without, text) {
				t.Errorf("%s: %q is there by default: %t, with it: %t", set, text, strings.Contains(with, text), strings.Contains(without, text))
			}
		}
	}
}
