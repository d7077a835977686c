// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net"
	"net/netip"
	"sync"

	"github.com/miekg/dns"
)

// Resolver is the DNS server of the proxies, at 127.0.0.1:53.
type Resolver struct {
	mu     sync.Mutex
	lookup func(name string) (netip.Addr, bool)
	srv    *dns.Server
}

// NewResolver listens.
func NewResolver() (*Resolver, error) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:53")
	if err != nil {
		return nil, err
	}
	r := &Resolver{}
	r.srv = &dns.Server{PacketConn: c, Handler: r}
	go r.srv.ActivateAndServe()
	return r, nil
}

// Set says what names mean.
func (r *Resolver) Set(lookup func(name string) (netip.Addr, bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookup = lookup
}

// Close ends it.
func (r *Resolver) Close() { r.srv.Shutdown() }

// ServeDNS answers questions for addresses of IPv4; there are no others.
func (r *Resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r.mu.Lock()
	lookup := r.lookup
	r.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	for _, x := range q.Question {
		if lookup == nil {
			break
		}
		a, ok := lookup(x.Name)
		if !ok {
			m.Rcode = dns.RcodeNameError
			continue
		}
		if x.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: x.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: a.AsSlice()})
		}
	}
	w.WriteMsg(m)
}
