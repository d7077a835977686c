// SPDX-License-Identifier: Apache-2.0

// Package dns answers a node's pods for the names of a cluster folder: services
// by their cluster addresses, headless ones by their endpoints, and SRV for named
// ports. Every other name does not exist, and is said so at once: a lab has no
// outside.
package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// Domain of the cluster.
const Domain = "cluster.local."

// ttl of every answer: names change while a lab lives.
const ttl = 1

// Zone holds a cluster's names. It is immutable.
type Zone struct {
	records map[string][]dns.RR // by lower-case name
	exists  map[string]bool     // names that have records, or names below them
}

// NewZone reads the files of a cluster folder. What does not decode is left out:
// the agents say what is wrong with it.
func NewZone(inputs []objects.Input) *Zone {
	z := &Zone{records: map[string][]dns.RR{}, exists: map[string]bool{Domain: true}}
	batch := objects.Decode(objects.NewRegistry(kubernetes.New(kubernetes.Options{}).Types()...), inputs...)
	slicesOf := map[string][]*discoveryv1.EndpointSlice{}
	for _, o := range batch.Objects {
		if e, ok := o.Value.(*discoveryv1.EndpointSlice); ok {
			key := o.Namespace + "/" + e.Labels[discoveryv1.LabelServiceName]
			slicesOf[key] = append(slicesOf[key], e)
		}
	}
	for _, o := range batch.Objects {
		if s, ok := o.Value.(*corev1.Service); ok {
			z.service(o.Name, o.Namespace, s, slicesOf[o.Key()])
		}
	}
	return z
}

func (z *Zone) service(name, namespace string, s *corev1.Service, behind []*discoveryv1.EndpointSlice) {
	fqdn := fmt.Sprintf("%s.%s.svc.%s", name, namespace, Domain)
	z.exist(fqdn)
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		z.add(&dns.CNAME{Hdr: header(fqdn, dns.TypeCNAME), Target: dns.Fqdn(s.Spec.ExternalName)})
	case s.Spec.ClusterIP == corev1.ClusterIPNone || slices.Contains(s.Spec.ClusterIPs, corev1.ClusterIPNone):
		for _, e := range behind {
			z.headless(fqdn, e)
		}
	default:
		ips := s.Spec.ClusterIPs
		if len(ips) == 0 {
			ips = []string{s.Spec.ClusterIP}
		}
		for _, ip := range ips {
			z.address(fqdn, ip)
		}
		for _, p := range s.Spec.Ports {
			z.srv(fqdn, p.Name, p.Protocol, p.Port, fqdn)
		}
	}
}

// headless adds the ready endpoints, each also by a name of its own.
func (z *Zone) headless(fqdn string, e *discoveryv1.EndpointSlice) {
	for _, ep := range e.Endpoints {
		if ep.Conditions.Ready != nil && !*ep.Conditions.Ready {
			continue
		}
		for _, ip := range ep.Addresses {
			host := strings.NewReplacer(".", "-", ":", "-").Replace(ip)
			if ep.Hostname != nil && *ep.Hostname != "" {
				host = *ep.Hostname
			}
			host += "." + fqdn
			z.address(fqdn, ip)
			z.address(host, ip)
			for _, p := range e.Ports {
				if p.Name != nil && p.Port != nil && p.Protocol != nil {
					z.srv(fqdn, *p.Name, *p.Protocol, *p.Port, host)
				}
			}
		}
	}
}

func (z *Zone) address(name, ip string) {
	a, err := netip.ParseAddr(ip)
	switch {
	case err != nil:
	case a.Is4():
		z.add(&dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
	default:
		z.add(&dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
	}
}

func (z *Zone) srv(fqdn, port string, proto corev1.Protocol, number int32, target string) {
	if port == "" {
		return
	}
	if proto == "" {
		proto = corev1.ProtocolTCP
	}
	name := fmt.Sprintf("_%s._%s.%s", port, strings.ToLower(string(proto)), fqdn)
	z.add(&dns.SRV{Hdr: header(name, dns.TypeSRV), Priority: 0, Weight: 100, Port: uint16(number), Target: target})
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func (z *Zone) add(rr dns.RR) {
	name := strings.ToLower(rr.Header().Name)
	z.exist(name)
	if !slices.ContainsFunc(z.records[name], func(have dns.RR) bool { return dns.IsDuplicate(have, rr) }) {
		z.records[name] = append(z.records[name], rr)
	}
}

// exist makes a name and those above it known, so that they are empty and not
// unknown.
func (z *Zone) exist(name string) {
	for n := strings.ToLower(name); n != Domain && n != "" && !z.exists[n]; {
		z.exists[n] = true
		_, n, _ = strings.Cut(n, ".")
	}
}

// maxAliases is how far names that stand for names are followed.
const maxAliases = 4

// find gives a name's records of a kind, and where it stands for another name
// those of that one too, as its client cannot ask anybody else.
func (z *Zone) find(name string, kind uint16, aliases int) []dns.RR {
	var out []dns.RR
	for _, rr := range z.records[strings.ToLower(name)] {
		t := rr.Header().Rrtype
		if t != kind && kind != dns.TypeANY && t != dns.TypeCNAME {
			continue
		}
		rr = dns.Copy(rr)
		rr.Header().Name = name // as it was asked
		out = append(out, rr)
		if alias, ok := rr.(*dns.CNAME); ok && aliases > 0 && kind != dns.TypeCNAME {
			out = append(out, z.find(alias.Target, kind, aliases-1)...)
		}
	}
	return out
}

// Answer answers one question as the zone's authority.
func (z *Zone) Answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true // resolvers complain where it is not
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	name, kind := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	m.Answer = z.find(q.Question[0].Name, kind, maxAliases)
	for _, rr := range m.Answer {
		if s, ok := rr.(*dns.SRV); ok {
			m.Extra = append(m.Extra, z.records[strings.ToLower(s.Target)]...)
		}
	}
	if len(m.Answer) > 0 {
		return m
	}
	if !z.exists[name] {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{&dns.SOA{Hdr: header(Domain, dns.TypeSOA), Ns: "ns.dns." + Domain, Mbox: "hostmaster." + Domain,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 3600, Minttl: ttl}}
	return m
}
