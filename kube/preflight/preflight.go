// SPDX-License-Identifier: Apache-2.0

// Package preflight looks at a cluster, before Fairlead is installed there, for what would
// not work and why. It reads and writes nothing. What only a node itself can tell, its
// kernel's features and other owners' programs, the agent looks at before it begins, and
// again and again; where one is installed, what it has found is told from its node's Lease.
package preflight

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"fairlead.io/fairlead/kube"
)

// Level says how bad a finding is.
type Level string

// Levels of findings.
const (
	Fine    Level = "fine"
	Warning Level = "warning" // it works, but something does not
	Problem Level = "problem" // it does not work
)

// Finding is what was found.
type Finding struct {
	Name   string `json:"name"`
	Level  Level  `json:"level"`
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"`
}

// looker looks at a cluster. What may not be read is told and costs nothing else.
type looker struct {
	ctx       context.Context
	cfg       *rest.Config
	namespace string
	here      bool // agents run in the namespace already
	out       []Finding
}

// Look looks at a cluster where Fairlead is to be installed in a namespace. It fails only
// if the cluster does not answer.
func Look(ctx context.Context, cfg *rest.Config, namespace string) ([]Finding, error) {
	l := &looker{ctx: ctx, cfg: cfg, namespace: namespace}
	var nodes corev1.NodeList
	if err := l.list(corev1.SchemeGroupVersion, "nodes", "", &nodes); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	l.nodes(nodes.Items)
	l.runtimes(nodes.Items)
	l.proxyMode()
	var sets appsv1.DaemonSetList
	if l.may("the cluster's DaemonSets", l.list(appsv1.SchemeGroupVersion, "daemonsets", "", &sets)) {
		l.networks(sets.Items)
		l.installed(sets.Items)
		l.refused(sets.Items)
	}
	l.nodesThemselves()
	var pods corev1.PodList
	if l.may("the cluster's pods", l.list(corev1.SchemeGroupVersion, "pods", "", &pods)) {
		l.sidecars(pods.Items)
		l.sourcePorts(pods.Items)
	}
	l.admission()
	l.permissions()
	return l.out, nil
}

func (l *looker) say(name string, level Level, detail, advice string) {
	l.out = append(l.out, Finding{name, level, detail, advice})
}

// nodesThemselves passes on what the agents have found on their nodes, where there are some.
func (l *looker) nodesThemselves() {
	var leases coordinationv1.LeaseList
	err := l.list(coordinationv1.SchemeGroupVersion, "leases", l.namespace+"/", &leases)
	if apierrors.IsNotFound(err) || !l.may("the agents' Leases", err) {
		return
	}
	for _, lease := range leases.Items {
		text := lease.Annotations[kube.PreflightKey]
		if text == "" {
			continue
		}
		var found []Finding
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			l.say("node "+lease.Name, Warning, "what its agent has found cannot be read: "+err.Error(), "look with the command of the agent's version")
			continue
		}
		for _, f := range found {
			l.say("node "+lease.Name+": "+f.Name, f.Level, f.Detail, f.Advice)
		}
	}
}

// may tells of what could not be read.
func (l *looker) may(what string, err error) bool {
	if err != nil {
		l.say(what, Warning, "not looked at: "+err.Error(), "look as somebody who may list them")
	}
	return err == nil
}

// list reads objects, or with a name one.
func (l *looker) list(gv schema.GroupVersion, resource, name string, into runtime.Object) error {
	c, err := kube.RESTClient(l.cfg, gv)
	if err != nil {
		return err
	}
	r := c.Get()
	if ns, one, ok := strings.Cut(name, "/"); ok {
		r, name = r.Namespace(ns), one
	}
	r = r.Resource(resource)
	if name != "" {
		r = r.Name(name)
	}
	// From the server's cache: a look need not cost the cluster a quorum read.
	return r.VersionedParams(&metav1.GetOptions{ResourceVersion: "0"}, scheme.ParameterCodec).Do(l.ctx).Into(into)
}

// least is the oldest kernel that has everything, unless it was built without.
const leastMajor, leastMinor = 6, 6

func (l *looker) nodes(nodes []corev1.Node) {
	old, other := []string{}, []string{}
	families := map[string]bool{}
	for _, n := range nodes {
		i := n.Status.NodeInfo
		switch {
		case i.OperatingSystem != "" && i.OperatingSystem != "linux":
			other = append(other, fmt.Sprintf("%s (%s)", n.Name, i.OperatingSystem))
		case i.Architecture != "" && i.Architecture != "amd64" && i.Architecture != "arm64":
			other = append(other, fmt.Sprintf("%s (%s)", n.Name, i.Architecture))
		case older(i.KernelVersion):
			old = append(old, fmt.Sprintf("%s (%s)", n.Name, i.KernelVersion))
		}
		for _, cidr := range n.Spec.PodCIDRs {
			families[map[bool]string{true: "IPv6", false: "IPv4"}[strings.Contains(cidr, ":")]] = true
		}
	}
	detail := fmt.Sprintf("%d", len(nodes))
	if len(families) > 0 {
		detail += ", pods have " + strings.Join(slices.Sorted(maps.Keys(families)), " and ")
	}
	l.say("nodes", Fine, detail, "")
	if len(other) > 0 {
		l.say("nodes", Warning, "of another kind: "+some(other), "Fairlead runs on Linux, on amd64 and arm64: pods of these nodes are not governed, and routed by nobody")
	}
	if len(old) > 0 {
		l.say("kernels", Problem, "older than Linux 6.6: "+some(old), "Fairlead needs TCX, which came with it: update these nodes, or keep Fairlead off them by nodeSelector")
	} else {
		l.say("kernels", Fine, "Linux 6.6 or newer; the agent looks at each feature before it begins", "")
	}
}

// runtimes looks at what starts the nodes' pods. Only containerd was tried. How a pod's
// processes are found does not depend on it: by the cgroups that kubelet makes.
func (l *looker) runtimes(nodes []corev1.Node) {
	of := map[string][]string{} // nodes by the runtime that they have
	for _, n := range nodes {
		i := n.Status.NodeInfo
		name, _, ok := strings.Cut(i.ContainerRuntimeVersion, "://")
		switch {
		case !ok || i.OperatingSystem != "" && i.OperatingSystem != "linux":
			continue
		case name == "containerd" && strings.Contains(i.KubeletVersion, "+k3s"):
			name = "k3s"
		}
		of[name] = append(of[name], n.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		where := "on " + some(of[name])
		switch name {
		case "containerd":
			l.say("container runtime", Fine, "containerd "+where, "")
		case "k3s":
			l.say("container runtime", Warning, "K3s "+where+": its containerd has its CNI configurations and plugins in folders of its own",
				"set agent.cni.confDir and agent.cni.binDir to conf_dir and bin_dir in /var/lib/rancher/k3s/agent/etc/containerd/config.toml; else pods start before their policy is in the kernel")
		case "cri-o":
			l.say("container runtime", Warning, "CRI-O "+where+", which Fairlead was not tried with",
				"set agent.cni.confDir and agent.cni.binDir to its network_dir and to one of its plugin_dirs; it ends pods by the CNI configuration that they were made with, so before an uninstall drain these nodes, or their pods stay Terminating")
		default:
			l.say("container runtime", Warning, name+" "+where+", which Fairlead was not tried with",
				"set agent.cni.confDir and agent.cni.binDir to the folders where it looks for CNI configurations and plugins")
		}
	}
}

func older(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	minor, _, _ = strings.Cut(minor, "-")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil {
		return false // not said: the agent finds out
	}
	return a < leastMajor || a == leastMajor && b < leastMinor
}

func (l *looker) proxyMode() {
	var m corev1.ConfigMap
	err := l.list(corev1.SchemeGroupVersion, "configmaps", "kube-system/kube-proxy", &m)
	if apierrors.IsNotFound(err) {
		return // none, or one that is set up in another way: its DaemonSet tells
	}
	if !l.may("kube-proxy's mode", err) {
		return
	}
	for _, text := range m.Data {
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "mode:"); ok && strings.Trim(v, ` "`) == "ipvs" {
				l.say("kube-proxy", Warning, "its mode is ipvs, beside which Fairlead was not tried", "use iptables or nftables")
				return
			}
		}
	}
	l.say("kube-proxy", Fine, "beside Fairlead in iptables and nftables mode", "")
}

// known networks, by a part of the name of their DaemonSet's containers' images or their
// own name.
var known = []struct {
	part         string
	level        Level
	what, advice string
}{
	{"cilium", Warning, "Cilium", "turn its socket load balancing off for pods (socketLB.hostNamespaceOnly=true), else services of captured pods are translated before Fairlead routes them; Fairlead's programs run beside its own"},
	{"calico-node", Warning, "Calico", "its iptables and nftables modes go on; its eBPF mode balances services itself: turn that off (linuxDataplane: Iptables)"},
	{"flannel", Warning, "Flannel", "with VXLAN, packets of other nodes' pods come by flannel.1: see to it that status names it as uplink"},
	{"antrea", Warning, "Antrea", "pods hang on Open vSwitch, where no route leads to a pod's interface: pods stay pending with that reason"},
	{"weave", Warning, "Weave", "pods hang on a bridge, and other nodes' pods come by its overlay: see to it that status names it as uplink"},
	{"ovn", Warning, "OVN-Kubernetes", "pods hang on Open vSwitch, where no route leads to a pod's interface: pods stay pending with that reason"},
	{"aws-node", Fine, "Amazon VPC CNI", ""},
	{"kindnet", Fine, "kindnet", ""},
	{"kube-router", Warning, "kube-router", "its own service proxy balances by IPVS, beside which Fairlead was not tried: use kube-proxy"},
	{"istio-cni", Warning, "Istio's CNI plugin", "pods that it redirects to a sidecar or to ambient mode are left alone, and interoperate in plaintext where they permit"},
	{"ztunnel", Warning, "Istio's ambient mode", "pods that it redirects are left alone, and interoperate in plaintext where they permit"},
	{"linkerd-cni", Warning, "Linkerd's CNI plugin", "pods with its proxy are left alone, and interoperate in plaintext where they permit"},
}

func (l *looker) networks(sets []appsv1.DaemonSet) {
	for _, k := range known {
		for _, s := range sets {
			if strings.Contains(s.Name, k.part) {
				l.say(k.what, k.level, fmt.Sprintf("is there: DaemonSet %s/%s", s.Namespace, s.Name), k.advice)
				break
			}
		}
	}
}

// installed looks for another Fairlead.
func (l *looker) installed(sets []appsv1.DaemonSet) {
	for _, s := range sets {
		if s.Labels["app.kubernetes.io/name"] != "fairlead" {
			continue
		}
		l.here = l.here || s.Namespace == l.namespace && s.Status.NumberReady > 0
		if s.Namespace != l.namespace {
			l.say("another installation", Problem, fmt.Sprintf("DaemonSet %s/%s", s.Namespace, s.Name),
				"two would write to the same kernel's hooks: uninstall that one first, or upgrade it in its namespace")
			return
		}
	}
}

// refused tells why pods of this installation are not made: admission lets a DaemonSet in, and
// then refuses its pods, one by one.
func (l *looker) refused(sets []appsv1.DaemonSet) {
	for _, s := range sets {
		if s.Namespace != l.namespace || s.Labels["app.kubernetes.io/name"] != "fairlead" || s.Status.CurrentNumberScheduled >= s.Status.DesiredNumberScheduled {
			continue
		}
		var events corev1.EventList
		if !l.may("Events of namespace "+l.namespace, l.list(corev1.SchemeGroupVersion, "events", l.namespace+"/", &events)) {
			return
		}
		var last *corev1.Event
		for i := range events.Items {
			e := &events.Items[i]
			if e.Reason == "FailedCreate" && e.InvolvedObject.Kind == "DaemonSet" && e.InvolvedObject.Name == s.Name && (last == nil || last.LastTimestamp.Before(&e.LastTimestamp)) {
				last = e
			}
		}
		if last == nil {
			continue
		}
		advice := "agents and proxies need the node's network and kernel: have who refuses it let them into namespace " + l.namespace
		if strings.Contains(last.Message, "PodSecurity") {
			advice = l.label()
		}
		l.say("pods of "+s.Name, Problem, fmt.Sprintf("are there on %d of %d nodes: %s", s.Status.CurrentNumberScheduled, s.Status.DesiredNumberScheduled, last.Message), advice)
	}
}

const enforce = "pod-security.kubernetes.io/enforce"

// label is how the namespace is to be labelled.
func (l *looker) label() string {
	return fmt.Sprintf("agents need the node's network and kernel: kubectl label namespace %s %s=privileged --overwrite", l.namespace, enforce)
}

// sidecars counts pods that another mesh still serves, by namespace.
func (l *looker) sidecars(pods []corev1.Pod) {
	by := map[string]int{}
	for i := range pods {
		p := &pods[i]
		has := p.Annotations["ambient.istio.io/redirection"] == "enabled"
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			has = has || c.Name == "istio-proxy" || c.Name == "linkerd-proxy"
		}
		if has {
			by[p.Namespace]++
		}
	}
	if len(by) == 0 {
		l.say("sidecars", Fine, "no pod has one", "")
		return
	}
	var all []string
	for _, ns := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%s (%d)", ns, by[ns]))
	}
	l.say("sidecars", Warning, "pods with a sidecar, or in ambient mode: "+some(all),
		"they are left alone, policy holds for them; take a namespace out of its mesh and restart its pods to have them routed here")
}

// sourcePorts looks for pods that take source ports which are the proxy's: they are told by
// them, and no pod may open a connection from one.
func (l *looker) sourcePorts(pods []corev1.Pod) {
	const firstOfProxy = 61000 // see bpf/fl_policy.h
	var found []string
	for i := range pods {
		p := &pods[i]
		if p.Spec.HostNetwork || p.Spec.SecurityContext == nil {
			continue
		}
		for _, s := range p.Spec.SecurityContext.Sysctls {
			f := strings.Fields(s.Value)
			if strings.ReplaceAll(s.Name, "/", ".") != "net.ipv4.ip_local_port_range" || len(f) != 2 {
				continue
			}
			if last, err := strconv.Atoi(f[1]); err == nil && last >= firstOfProxy {
				found = append(found, p.Namespace+"/"+p.Name)
			}
		}
	}
	if len(found) > 0 {
		l.say("source ports", Warning, fmt.Sprintf("the range of pods reaches into those of the proxy, %d-65535: %s", firstOfProxy, some(found)),
			fmt.Sprintf("what they open from one of these is dropped (reserved port): let their sysctl net.ipv4.ip_local_port_range end at %d", firstOfProxy-1))
	}
}

// admission looks whether pods with the host's network are let in.
func (l *looker) admission() {
	var ns corev1.Namespace
	err := l.list(corev1.SchemeGroupVersion, "namespaces", l.namespace, &ns)
	if apierrors.IsNotFound(err) {
		return // install makes it as it has to be
	}
	if !l.may("namespace "+l.namespace, err) {
		return
	}
	advice := l.label()
	switch v := ns.Labels[enforce]; v {
	case "privileged":
	case "":
		if l.here {
			return // they were let in
		}
		l.say("pod security", Warning, fmt.Sprintf("namespace %s is there without the label %s: what the cluster enforces by default may keep agents and proxies out", l.namespace, enforce),
			advice+"; fairlead install does so by itself, Helm does not")
	default:
		l.say("pod security", Problem, fmt.Sprintf("namespace %s enforces %q", l.namespace, v), advice)
	}
}

// permissions looks whether who asks may install.
func (l *looker) permissions() {
	c, err := kube.RESTClient(l.cfg, authorizationv1.SchemeGroupVersion)
	if !l.may("permissions", err) {
		return
	}
	var lacks []string
	for _, a := range []authorizationv1.ResourceAttributes{
		{Group: "apps", Resource: "daemonsets", Verb: "create", Namespace: l.namespace},
		{Group: "apps", Resource: "deployments", Verb: "create", Namespace: l.namespace},
		{Group: "", Resource: "serviceaccounts", Verb: "create", Namespace: l.namespace},
		{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Verb: "create"},
		{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Verb: "escalate"},
		{Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings", Verb: "create"},
	} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &a}}
		var answer authorizationv1.SelfSubjectAccessReview
		if !l.may("permissions", c.Post().Resource("selfsubjectaccessreviews").Body(review).Do(l.ctx).Into(&answer)) {
			return
		}
		if !answer.Status.Allowed {
			lacks = append(lacks, a.Verb+" "+a.Resource)
		}
	}
	if len(lacks) > 0 {
		l.say("permissions", Problem, "you may not "+strings.Join(lacks, ", "), "install as an administrator of the cluster")
		return
	}
	l.say("permissions", Fine, "you may install", "")
}

// some names some of many.
func some(names []string) string {
	const most = 5
	slices.Sort(names)
	if n := len(names) - most; n > 1 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}

// Worst is the level of the worst of them.
func Worst(all []Finding) Level {
	levels := []Level{Fine, Warning, Problem}
	return slices.MaxFunc(append([]Finding{{Level: Fine}}, all...), func(a, b Finding) int {
		return cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level))
	}).Level
}
