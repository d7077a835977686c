// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	security "istio.io/api/security/v1beta1"
	clientsecurity "istio.io/client-go/pkg/apis/security/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// peerAuthentications are the policies of the mesh by what they are for. As in Istio a
// workload has one of each kind, the oldest; what the narrower does not say the wider says.
type peerAuthentications struct {
	mesh       *objects.Object            // nil if there is none
	namespaces map[string]*objects.Object // by namespace
	selecting  []*objects.Object          // those for some workloads of their namespace; oldest first
}

func (t *Translator) peerAuthentications(r translators.Reader) peerAuthentications {
	out := peerAuthentications{namespaces: map[string]*objects.Object{}}
	root := t.mesh(r).root
	for _, o := range r.List(peerAuthenticationKind, "") {
		spec := peerAuthenticationSpec(o)
		selects := len(spec.GetSelector().GetMatchLabels()) > 0
		switch {
		case selects && o.Namespace != root:
			out.selecting = append(out.selecting, o)
		case selects: // Istio ignores it
		case lostSelector(o): // it takes no other's place
		case o.Namespace == root && out.mesh == nil:
			out.mesh = o
		case o.Namespace != root && out.namespaces[o.Namespace] == nil:
			out.namespaces[o.Namespace] = o
		}
	}
	return out
}

func peerAuthenticationSpec(o *objects.Object) *security.PeerAuthentication {
	if v, ok := o.Value.(*clientsecurity.PeerAuthentication); ok && v != nil {
		return &v.Spec
	}
	return nil
}

type mtlsMode = security.PeerAuthentication_MutualTLS_Mode

const (
	modeUnset  = security.PeerAuthentication_MutualTLS_UNSET
	modeStrict = security.PeerAuthentication_MutualTLS_STRICT
)

// modeOf is what an object asks for by itself. What one without a valid version asks for
// is not known: the most that it could.
func modeOf(o *objects.Object) mtlsMode {
	switch {
	case o == nil:
		return modeUnset
	case o.Invalid:
		return modeStrict
	}
	return peerAuthenticationSpec(o).GetMtls().GetMode()
}

// mode is what an object comes to for what it is for, with what it inherits.
func (p *peerAuthentications) mode(o *objects.Object) mtlsMode {
	for _, wider := range []*objects.Object{o, p.namespaces[o.Namespace], p.mesh} {
		if m := modeOf(wider); m != modeUnset {
			return m
		}
	}
	return modeUnset
}

// except are the workloads that an object would be for if there were no others: those of
// narrower ones, and of older ones of its kind.
func (p *peerAuthentications) except(o *objects.Object) []model.Target {
	var out []model.Target
	for _, s := range p.selecting {
		if s == o {
			break
		}
		if o == p.mesh || s.Namespace == o.Namespace {
			out = append(out, model.Target{Namespace: s.Namespace, Labels: peerAuthenticationSpec(s).GetSelector().GetMatchLabels()})
		}
	}
	if o == p.mesh {
		for _, ns := range slices.Sorted(maps.Keys(p.namespaces)) {
			if modeOf(p.namespaces[ns]) != modeUnset {
				out = append(out, model.Target{Namespace: ns})
			}
		}
	}
	return model.SortContent(out)
}

// lostSelector reports whether an object that could not be decoded may have selected
// workloads, of which nothing is known: it may be for any of its namespace.
func lostSelector(o *objects.Object) bool {
	if !o.Invalid || peerAuthenticationSpec(o).GetSelector() != nil {
		return false
	}
	if o.Place.Lines == nil {
		return true
	}
	return slices.ContainsFunc(slices.Collect(maps.Keys(o.Place.Lines)), func(field string) bool { return strings.HasPrefix(field, "spec.selector") })
}

// older is the object that comes before one for all that it is for, nil if there is none.
func (p *peerAuthentications) older(o *objects.Object) *objects.Object {
	if lostSelector(o) {
		return nil
	}
	labels := peerAuthenticationSpec(o).GetSelector().GetMatchLabels()
	if len(labels) == 0 {
		for _, first := range []*objects.Object{p.mesh, p.namespaces[o.Namespace]} {
			if first != nil && first.Namespace == o.Namespace && first != o {
				return first
			}
		}
		return nil
	}
	for _, s := range p.selecting {
		if s == o {
			return nil
		}
		// Whoever carries all of these labels carries those.
		if s.Namespace == o.Namespace && contains(labels, peerAuthenticationSpec(s).GetSelector().GetMatchLabels()) {
			return s
		}
	}
	return nil
}

// peerAuthentication turns a demand for mutual TLS into one for members of the mesh.
func (t *Translator) peerAuthentication(r translators.Reader, n *notes) *model.Authorization {
	s := peerAuthenticationSpec(n.o)
	if s == nil {
		return nil
	}
	selects := len(s.GetSelector().GetMatchLabels()) > 0
	if selects && n.o.Namespace == t.mesh(r).root {
		n.surprising("spec.selector", "no-effect", "Istio ignores selectors in the root namespace, and the policy with them; so is it here", "")
		return nil
	}
	all := t.peerAuthentications(r)
	if by := all.older(n.o); by != nil {
		n.surprising("spec", "older-policy", fmt.Sprintf("PeerAuthentication %s is for the same workloads and is older: Istio heeds that one alone; so is it here", by.Key()), "put them together into one")
		return nil
	}
	if n.o.Invalid {
		n.refused("spec", "invalid-object", model.Narrows, "no valid version is known: peers that are no members of the mesh are denied", "repair it")
	} else if s.GetMtls().GetMode() == modeStrict {
		n.approximated("spec.mtls.mode", "identity-by-address", model.Degrades,
			"there is no mutual TLS yet: peers that are no members of the mesh are denied; members are known by their addresses, and nothing is encrypted", "")
	}
	if !selects && modeOf(n.o) == modeUnset {
		portModes(n, s, selects, false)
		return nil // the mesh's is for its workloads
	}
	strict := all.mode(n.o) == modeStrict
	except, only := portModes(n, s, selects, strict)
	if !strict && len(only) == 0 {
		return nil
	}
	op := model.Operation{Ports: only}
	if strict {
		op = model.Operation{NotPorts: except}
	}
	target := target(t.mesh(r).root, n.o, s.GetSelector())
	if !lostSelector(n.o) {
		target.Except = all.except(n.o)
	}
	a := &model.Authorization{Deny: true, Target: target, Rules: strangers(op)}
	t.judgeRoot(r, n, a)
	t.judgeCapture(r, n, a)
	return a
}

// strangers matches peers that are no members of the mesh, by TCP: mutual TLS is about
// nothing else. Who does not speak it is answered nothing.
func strangers(op model.Operation) []model.AuthRule {
	op.Protocol = model.TCP
	return []model.AuthRule{{From: []model.Peer{{NotIdentities: []model.StringMatch{anyIdentity}}}, To: []model.Operation{op}, Closes: true}}
}

// portModes lists the ports that differ from the mode of the whole: those that ask
// for less than STRICT, and those that ask for it.
func portModes(n *notes, s *security.PeerAuthentication, selects, strict bool) (except, only []uint16) {
	for _, port := range slices.Sorted(maps.Keys(s.GetPortLevelMtls())) {
		field := entry("spec.portLevelMtls", fmt.Sprint(port))
		if !selects {
			n.surprising(field, "no-effect", "Istio heeds the modes of ports only where a policy selects workloads; so is it here", "add a selector")
			continue
		}
		if port == 0 || port > math.MaxUint16 {
			n.refused(field, "invalid-value", model.Narrows, "not a port: the entry has no effect", "")
			continue
		}
		switch mode := s.GetPortLevelMtls()[port].GetMode(); {
		case mode == modeUnset:
		case mode != modeStrict:
			except = append(except, uint16(port))
		case !strict:
			only = append(only, uint16(port))
			n.approximated(field, "identity-by-address", model.Degrades, "there is no mutual TLS yet: peers that are no members of the mesh are denied", "")
		}
	}
	return except, only
}
