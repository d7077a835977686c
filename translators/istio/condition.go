// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"strings"

	security "istio.io/api/security/v1beta1"

	"fairlead.io/fairlead/model"
)

// Attributes that a condition may look at.
const (
	attrSourceIP             = "source.ip"
	attrRemoteIP             = "remote.ip"
	attrSourceNamespace      = "source.namespace"
	attrSourcePrincipal      = "source.principal"
	attrSourceServiceAccount = "source.serviceAccount"
	attrSourceTrustDomain    = "source.trustDomain"
	attrDestinationIP        = "destination.ip"
	attrDestinationPort      = "destination.port"
	attrSNI                  = "connection.sni"
	attrRequestPrincipal     = "request.auth.principal"
	attrRequestAudiences     = "request.auth.audiences"
	attrRequestPresenter     = "request.auth.presenter"
	prefixHeader             = "request.headers"
	prefixClaims             = "request.auth.claims"
	prefixExperimental       = "experimental.envoy.filters."
)

// condition translates one entry of "when". ok is false if it never holds; a nil
// condition is taken to hold.
func (c *ruleTranslation) condition(field string, w *security.Condition) (cond *model.Condition, ok bool) {
	text := func(kind model.ConditionKind, read func(string) model.StringMatch) (*model.Condition, bool) {
		return &model.Condition{Kind: kind, Values: each(w.GetValues(), read), NotValues: each(w.GetNotValues(), read)}, true
	}
	// expanded are texts of which some stand for others too.
	expanded := func(others func([]string) []string, read func(string) model.StringMatch) (*model.Condition, bool) {
		c.identityByAddress(field + ".key")
		return &model.Condition{Kind: model.OnIdentity, Values: each(others(w.GetValues()), read), NotValues: each(others(w.GetNotValues()), read)}, true
	}
	addresses := func(kind model.ConditionKind) (*model.Condition, bool) {
		return &model.Condition{Kind: kind, Prefixes: prefixes(w.GetValues()), NotPrefixes: prefixes(w.GetNotValues())}, true
	}
	identity := func(read func(string) model.StringMatch) (*model.Condition, bool) {
		c.identityByAddress(field + ".key")
		return text(model.OnIdentity, read)
	}
	switch key := w.GetKey(); {
	case key == attrSourceIP:
		return addresses(model.OnSourceIP)
	case key == attrRemoteIP:
		c.remote(field+".key", true)
		if c.relayed {
			return nil, true
		}
		return addresses(model.OnSourceIP)
	case key == attrSourceNamespace:
		return identity(namespace)
	case key == attrSourcePrincipal:
		return expanded(c.domains.principals, c.principal)
	case key == attrSourceServiceAccount:
		return identity(c.serviceAccount)
	case key == attrSourceTrustDomain:
		return expanded(c.domains.expand, c.trustDomain)
	case key == attrDestinationIP && c.at != nil:
		return nil, c.unknowable(field+".key", "address-of-waypoint", "a waypoint sees the address that the client has dialled, which is not seen at the pods")
	case key == attrDestinationIP:
		return addresses(model.OnDestinationIP)
	case key == attrDestinationPort:
		op, known, possible := c.at.atPods(model.Operation{Ports: ports(w.GetValues()), NotPorts: ports(w.GetNotValues())})
		if !known {
			return nil, c.unknowable(field+".key", "ports-of-waypoint", "ports are those of the service at a waypoint, and which of the pods' that are cannot be said")
		}
		return &model.Condition{Kind: model.OnDestinationPort, Ports: op.Ports, NotPorts: op.NotPorts}, possible
	case key == attrSNI:
		return nil, c.unknowable(field+".key", "unsupported-server-name", "there is no TLS between proxies yet, in which a server would be named")
	case strings.HasPrefix(key, prefixHeader):
		cond, ok = text(model.OnHeader, wildcard)
		cond.Name = strings.ToLower(bracketed(key, prefixHeader))
		return cond, ok
	case strings.HasPrefix(key, prefixExperimental):
		return nil, c.unknowable(field+".key", "unsupported-metadata", "Envoy's metadata is not read")
	}
	return nil, c.token(field+".key", true)
}

// bracketed is the x of prefix[x], or "".
func bracketed(key, prefix string) string {
	rest, ok := strings.CutPrefix(key, prefix+"[")
	if !ok {
		return ""
	}
	name, ok := strings.CutSuffix(rest, "]")
	if !ok || strings.ContainsAny(name, "[]") {
		return ""
	}
	return name
}
