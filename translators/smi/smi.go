// SPDX-License-Identifier: Apache-2.0

// Package smi translates the Service Mesh Interface, every released version of it.
//
//	TrafficTarget + HTTPRouteGroup, TCPRoute, UDPRoute ──► Authorization
//	TrafficSplit + HTTPRouteGroup + services           ──► Frontend
//
// The specification leaves corners open, and its implementations differ in them.
// What is chosen here, and why, is in README.md; each choice is a case in testdata.
package smi

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Plane is the translator's name.
const Plane = "smi"

// Kinds that are read.
var (
	trafficTarget  = objects.Kind{Group: "access.smi-spec.io", Kind: "TrafficTarget"}
	identityBind   = objects.Kind{Group: "access.smi-spec.io", Kind: "IdentityBinding"}
	httpRouteGroup = objects.Kind{Group: "specs.smi-spec.io", Kind: "HTTPRouteGroup"}
	tcpRoute       = objects.Kind{Group: "specs.smi-spec.io", Kind: "TCPRoute"}
	udpRoute       = objects.Kind{Group: "specs.smi-spec.io", Kind: "UDPRoute"}
	trafficSplit   = objects.Kind{Group: "split.smi-spec.io", Kind: "TrafficSplit"}
	trafficMetrics = objects.Kind{Group: "metrics.smi-spec.io", Kind: "TrafficMetrics"}
)

// Keys and index of the translator.
const (
	policyKey = "policy" // one TrafficTarget
	splitKey  = "split"  // one apex service
	byApex    = "apex"   // TrafficSplits by "namespace/service"
)

// Translator is the control plane "smi".
type Translator struct{ trustDomain, domain string }

// Options of the translator.
type Options struct {
	TrustDomain string // of the service accounts' identities; "" = cluster.local
	Domain      string // of the services' DNS names; "" = cluster.local
}

// New returns a translator.
func New(o Options) *Translator {
	return &Translator{cmp.Or(o.TrustDomain, "cluster.local"), strings.ToLower(cmp.Or(o.Domain, "cluster.local"))}
}

// Plane implements translators.Translator.
func (t *Translator) Plane() string { return Plane }

// Indexes implements translators.Translator.
func (t *Translator) Indexes() []translators.Index {
	return []translators.Index{{Kind: trafficSplit, Name: byApex, Values: func(o *objects.Object) []string {
		if apex, ok := t.localName(t.splitOf(o).service, o.Namespace); ok {
			return []string{o.Namespace + "/" + apex}
		}
		return nil
	}}}
}

// Keys implements translators.Translator.
func (t *Translator) Keys(o *objects.Object) []translators.Key {
	switch o.Kind {
	case trafficTarget:
		return []translators.Key{{Kind: policyKey, Namespace: o.Namespace, Name: o.Name}}
	case trafficSplit:
		if apex, ok := t.localName(t.splitOf(o).service, o.Namespace); ok {
			return []translators.Key{{Kind: splitKey, Namespace: o.Namespace, Name: apex}}
		}
	}
	return nil
}

// Validate implements translators.Translator.
func (t *Translator) Validate(o *objects.Object) []model.Diagnostic {
	rep := report{}
	switch o.Kind {
	case trafficTarget:
		targetOf(o).validate(o, &rep)
	case httpRouteGroup:
		validateGroup(o, &rep)
	case tcpRoute, udpRoute:
		validatePorts(o, &rep)
	case trafficSplit:
		t.splitOf(o).validate(o, &rep)
	case identityBind:
		rep.refused(o, "kind", "unsupported-kind", model.Narrows, "IdentityBinding was never released and is not read: targets that name one allow nothing",
			"name a ServiceAccount")
	case trafficMetrics:
		rep.refused(o, "kind", "unsupported-kind", model.Cosmetic, "TrafficMetrics is served by an API server's extension, not configured", "")
	}
	return rep.out
}

// Defaults implements translators.Translator. SMI knows services, not hosts: what is
// sent to a service's address is for it.
func (t *Translator) Defaults(translators.Reader) *model.Defaults {
	return &model.Defaults{Choice: model.Choice{Basis: model.ByDestination}}
}

// Translate implements translators.Translator.
func (t *Translator) Translate(r translators.Reader, k translators.Key) translators.Result {
	switch k.Kind {
	case policyKey:
		return t.policy(r, k)
	case splitKey:
		return t.split(r, k)
	}
	return translators.Result{}
}

// report collects diagnostics.
type report struct{ out []model.Diagnostic }

func (r *report) say(o *objects.Object, field, code string, effect model.Effect, outcome model.Outcome, msg, advice string) {
	r.out = append(r.out, model.Diagnostic{Source: o.Source(Plane, field), Code: code, Effect: effect, Outcome: outcome,
		Message: msg, Advice: advice})
}

func (r *report) refused(o *objects.Object, field, code string, effect model.Effect, msg, advice string) {
	r.say(o, field, code, effect, model.Refused, msg, advice)
}

// localName shortens a service's name, which may be written as in DNS, to its name
// in the namespace; false if it is of another namespace or no name at all.
func (t *Translator) localName(name, namespace string) (string, bool) {
	short, rest, long := strings.Cut(name, ".")
	if short == "" {
		return "", false
	}
	if !long {
		return short, true
	}
	full := namespace + ".svc." + t.domain
	switch rest {
	case namespace, namespace + ".svc", full, full + ".":
		return short, true
	}
	return "", false
}

func validPort(n int) bool { return n >= 1 && n <= math.MaxUint16 }

// unsupportedReference reports a reference to a kind that cannot be meant.
func unsupportedReference(o *objects.Object, field, kind, want string, effect model.Effect, rep *report) {
	rep.refused(o, field, "unsupported-kind", effect, fmt.Sprintf("%q is not supported here", kind), "use "+want)
}

// reference is what TrafficSplit's matches hold in every version.
type reference = corev1.TypedLocalObjectReference
