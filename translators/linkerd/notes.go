// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// prefixes of Linkerd's annotations that say how its proxies deal with traffic.
var prefixes = []string{"config.linkerd.io/", "config.alpha.linkerd.io/", "balancer.alpha.linkerd.io/", "balancer.linkerd.io/", "retry.linkerd.io/", "timeout.linkerd.io/"}

// running are annotations about how a proxy is run, which say nothing of traffic. One
// that ends with "*" stands for all that begin like it.
var running = []string{
	"config.linkerd.io/access-log", "config.linkerd.io/admin-port", "config.linkerd.io/close-wait-timeout", "config.linkerd.io/control-port",
	"config.linkerd.io/debug-*", "config.linkerd.io/enable-debug-sidecar", "config.linkerd.io/image-pull-policy", "config.linkerd.io/init-*",
	"config.linkerd.io/pod-inbound-ports", "config.linkerd.io/proxy-additional-env", "config.linkerd.io/proxy-admin-shutdown",
	"config.linkerd.io/proxy-await", "config.linkerd.io/proxy-cpu-*", "config.linkerd.io/proxy-enable-native-sidecar", "config.linkerd.io/proxy-ephemeral-storage-*",
	"config.linkerd.io/proxy-gid", "config.linkerd.io/proxy-image", "config.linkerd.io/proxy-log-*", "config.linkerd.io/proxy-memory-*",
	"config.linkerd.io/proxy-metrics-hostname-labels", "config.linkerd.io/proxy-inbound-discovery-cache-unused-timeout", "config.linkerd.io/proxy-outbound-discovery-cache-unused-timeout", "config.linkerd.io/proxy-uid", "config.linkerd.io/proxy-version", "config.linkerd.io/proxy-wait-*",
	"config.linkerd.io/shutdown-grace-period", "config.alpha.linkerd.io/proxy-wait-before-exit-seconds", "config.linkerd.io/trace-collector*",
}

// losses are annotations that are not done, with what becomes of traffic.
var losses = map[string]string{
	"config.linkerd.io/skip-subnets":                                   "addresses are routed and guarded as others are, also those that Linkerd's proxies are to leave alone",
	"config.linkerd.io/enable-external-profiles":                       "profiles are for services of the cluster alone",
	"config.linkerd.io/enable-gateway":                                 "clusters are not tied together",
	"config.linkerd.io/proxy-outbound-connect-timeout":                 "connections to endpoints have the proxy's own time",
	"config.linkerd.io/proxy-inbound-connect-timeout":                  "there is no proxy in the pod that would connect to it",
	"config.linkerd.io/proxy-disable-outbound-protocol-detect-timeout": "the first bytes of a connection are waited for 10 seconds",
	"config.linkerd.io/proxy-disable-inbound-protocol-detect-timeout":  "the first bytes of a connection are waited for 10 seconds",
}

// settingsKeys are annotations of pods and namespaces that are done.
var settingsKeys = []string{defaultPolicyKey, opaquePortsKey, skipInboundKey, requireTLSKey}

// noteSettings tells what becomes of the annotations of a pod or a namespace.
func noteSettings(o *objects.Object, rep *report) {
	for _, set := range []map[string]string{o.Labels, o.Annotations} {
		if set[injectKey] == "ingress" {
			rep.approximated(o, annotation(injectKey), "ingress-mode", model.Degrades,
				"requests are routed by the address that they go to, and not by the header l5d-dst-override", "have the gateway send to services' addresses")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Annotations)) {
		v, field := o.Annotations[key], annotation(key)
		switch {
		case key == defaultPolicyKey:
			if !slices.Contains(accessPolicies, accessPolicy(v)) {
				rep.refused(o, field, "invalid-annotation", model.Narrows, fmt.Sprintf("%q is not a policy: nobody is let in where no Server says so", v), "use "+policyWords())
			}
		case slices.Contains(settingsKeys, key):
			ports, err := readPorts(v)
			effect := model.Degrades
			if key == requireTLSKey {
				effect = model.Widens
			}
			if err != nil {
				rep.refused(o, field, "invalid-annotation", effect, err.Error()+"; the others are taken", "")
			}
			noteMany(o, key, ports, rep)
		case key == skipOutboundKey && o.Kind == objects.NamespaceKind:
			if _, err := readPorts(v); err != nil {
				rep.refused(o, field, "invalid-annotation", model.Degrades, err.Error()+"; the others are taken", "")
			}
		case key == skipOutboundKey:
			rep.refused(o, field, "skip-outbound", model.Degrades,
				"the pod's connections to these ports are routed as others are: clients are told apart by their namespaces", "put the annotation on the namespace, or set "+opaquePortsKey+" on the services")
		default:
			noteOther(o, key, rep)
		}
	}
}

// noteMany tells what becomes of sets of ports that are too many to be written out.
func noteMany(o *objects.Object, key string, ports portSet, rep *report) {
	_, few := ports.list()
	_, fewOthers := ports.others().list()
	const advice = "name fewer ports"
	switch {
	case few:
	case key == skipInboundKey:
		rep.approximated(o, annotation(key), "many-ports", model.Narrows, fmt.Sprintf("these are more than %d ports: of them those are left alone that a pod declares", maxPorts), advice)
	case key == requireTLSKey && !fewOthers:
		rep.approximated(o, annotation(key), "many-ports", model.Narrows, fmt.Sprintf("these are more than %d ports: clients need an identity at all others, too, that a pod does not declare", maxPorts), advice)
	}
}

// noteService tells what becomes of the annotations of a service.
func noteService(o *objects.Object, rep *report) {
	for _, key := range slices.Sorted(maps.Keys(o.Annotations)) {
		v := o.Annotations[key]
		switch {
		case key == opaquePortsKey:
			if _, err := readPorts(v); err != nil {
				rep.refused(o, annotation(key), "invalid-annotation", model.Degrades, err.Error()+"; the others are taken", "")
			}
		case strings.HasPrefix(key, accrualKey), strings.HasPrefix(key, successKey):
			if _, on := o.Annotations[accrualKey]; !on {
				rep.say(o, annotation(key), "no-effect", model.Cosmetic, model.Translated, "without "+accrualKey+" nothing is counted, as in Linkerd", "")
			}
		case slices.Contains(serviceKeys, key):
		case strings.HasPrefix(key, "balancer.alpha.linkerd.io/"):
			rep.refused(o, annotation(key), "unsupported-annotation", model.Degrades, "endpoints are chosen by the requests that they have under way: failures and Retry-After do not count", "")
		default:
			noteOther(o, key, rep)
		}
	}
}

// noteOther tells what becomes of an annotation that is not done.
func noteOther(o *objects.Object, key string, rep *report) {
	switch loss, known := losses[key]; {
	case known:
		rep.refused(o, annotation(key), "unsupported-annotation", model.Degrades, loss, "")
	case !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }):
	case slices.ContainsFunc(running, func(p string) bool {
		begin, all := strings.CutSuffix(p, "*")
		return key == p || all && strings.HasPrefix(key, begin)
	}):
	default:
		rep.refused(o, annotation(key), "unknown-annotation", model.Degrades, "the annotation is not known and has no effect here", "")
	}
}
