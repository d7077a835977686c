/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the packet programs read of a packet, and how they change one. */
#ifndef FL_PACKET_H
#define FL_PACKET_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "fl_common.h"

#define FL_EXTENSIONS 6 /* IPv6 extension headers that are walked */

/* <linux/icmp.h> needs headers of a C library. */
#define ICMP_ECHOREPLY	   0
#define ICMP_DEST_UNREACH  3
#define ICMP_REDIRECT	   5
#define ICMP_ECHO	   8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

#define ICMPV6_LAST_ERROR   4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY   129
#define ICMPV6_MGM_QUERY    130
#define ICMPV6_MGM_DONE	    132
#define NDISC_ROUTER_SOLICIT 133
#define NDISC_ROUTER_ADVERT  134
#define NDISC_REDIRECT	     137
#define ICMPV6_MLD2_REPORT  143

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IP_OFFSET 0x1fff
#define IP_MORE	  0x2000

enum fl_kind {
	FL_OTHER,	/* no IP: not ours to judge */
	FL_NESTED,	/* a VLAN tag behind the one that the kernel took off */
	FL_IP,		/* judged by tuple */
	FL_NEIGHBOUR,	/* IPv6 neighbour discovery and group membership: stays on the link */
	FL_ICMP_ERROR,	/* about another packet, whose tuple is quoted */
	FL_BROKEN,	/* reason says why */
};

struct fl_packet {
	struct fl_tuple t;
	struct fl_tuple quoted;
	__u32 l3; /* offsets from the start of the frame */
	__u32 l4;
	__u8 kind;
	__u8 reason;
	__u8 tcp;  /* flags */
	__u8 icmp; /* type */
	__u8 hops; /* that are left, IPv6 */
	bool v6;
	bool fragment; /* not the first: no ports */
};

static __always_inline bool is_open(const struct fl_packet *p)
{
	return (p->tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* ICMP of the packet's own family; in the other one it is a protocol like any. */
static __always_inline bool is_icmp(const struct fl_packet *p)
{
	return p->t.proto == (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* A pod speaks neighbour discovery from its link-local address, or from none yet. */
static __always_inline bool is_link_local(const struct fl_addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) || (!a->w[0] && !a->w[1] && !a->w[2] && !a->w[3]);
}

static __always_inline void broken(struct fl_packet *p, __u8 reason)
{
	p->kind = FL_BROKEN;
	p->reason = reason;
}

/*
 * The ports at off, an echo's number as both ports, and TCP's flags. quoted: a
 * packet inside an ICMP error, of which eight bytes are enough.
 */
static __always_inline bool parse_ports(struct __sk_buff *skb, struct fl_packet *p, struct fl_tuple *t, __u32 off,
					bool quoted)
{
	struct {
		__be16 sport, dport;
		__be32 seq, ack;
		__u8 offset, flags;
		__be16 window, check, urgent;
	} tcp;
	struct {
		__u8 type, code;
		__be16 check, id, seq;
	} echo;
	__be16 ports[2];

	switch (t->proto) {
	case IPPROTO_TCP:
		if (!quoted) {
			if (bpf_skb_load_bytes(skb, off, &tcp, sizeof(tcp)) || tcp.offset < 5 << 4)
				return false;
			p->tcp = tcp.flags;
			t->sport = tcp.sport;
			t->dport = tcp.dport;
			return true;
		}
		/* fallthrough */
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)))
			return false;
		t->sport = ports[0];
		t->dport = ports[1];
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (t->proto != (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
			return true;
		if (bpf_skb_load_bytes(skb, off, &echo, sizeof(echo)))
			return false;
		if (!quoted)
			p->icmp = echo.type;
		t->sport = echo.id;
		t->dport = echo.id;
		return true;
	}
	return true;
}

static __always_inline bool parse_v4(struct __sk_buff *skb, struct fl_packet *p, __u32 off, struct fl_tuple *t)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	map_v4(&t->saddr, ip.saddr);
	map_v4(&t->daddr, ip.daddr);
	t->proto = ip.protocol;
	p->fragment = ip.frag_off & bpf_htons(IP_OFFSET);
	p->l4 = off + ip.ihl * 4;
	return true;
}

static __always_inline bool parse_v6(struct __sk_buff *skb, struct fl_packet *p, __u32 off, struct fl_tuple *t)
{
	struct ipv6hdr ip;
	struct {
		__u8 next, len;
		__be16 frag;
	} ext;
	__u8 next;
	int i;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(&t->saddr, &ip.saddr, 16);
	__builtin_memcpy(&t->daddr, &ip.daddr, 16);
	if (is_v4(&t->saddr) || is_v4(&t->daddr)) { /* would be taken for the v4 address that it maps */
		broken(p, FL_DROP_SPOOFED);
		return false;
	}
	p->hops = ip.hop_limit;
	next = ip.nexthdr;
	off += sizeof(ip);
	p->fragment = false;
	for (i = 0; i < FL_EXTENSIONS; i++) {
		if (next != 0 && next != 43 && next != 44 && next != 60)
			break;
		if (bpf_skb_load_bytes(skb, off, &ext, sizeof(ext)))
			return false;
		if (next == 44) {
			p->fragment = ext.frag & bpf_htons(0xfff8);
			off += 8;
		} else {
			off += (ext.len + 1) * 8;
		}
		next = ext.next;
		if (p->fragment) {
			t->proto = next;
			p->l4 = off;
			return true;
		}
	}
	if (next == 0 || next == 43 || next == 44 || next == 60 || next == 51 || next == 135 || next == 139 || next == 140) {
		broken(p, FL_DROP_EXTENSION);
		return false;
	}
	t->proto = next;
	p->l4 = off;
	return true;
}

/* Reads the packet that an ICMP error is about. */
static __always_inline void parse_quoted(struct __sk_buff *skb, struct fl_packet *p)
{
	bool ok;

	p->kind = FL_ICMP_ERROR;
	ok = p->v6 ? parse_v6(skb, p, p->l4 + 8, &p->quoted) : parse_v4(skb, p, p->l4 + 8, &p->quoted);
	if (!ok || p->fragment || !parse_ports(skb, p, &p->quoted, p->l4, true))
		broken(p, FL_DROP_TRUNCATED);
	p->fragment = false;
}

/*
 * Messages of one link only, which is not judged: node and pods need it to find each
 * other. A router has lowered the hop limit of those from elsewhere. Group membership
 * begins at 1, so there it is the source, which no router forwards.
 */
static __always_inline bool is_neighbour(const struct fl_packet *p)
{
	if (p->icmp >= NDISC_ROUTER_SOLICIT && p->icmp <= NDISC_REDIRECT)
		return p->hops == 255;
	if ((p->icmp >= ICMPV6_MGM_QUERY && p->icmp <= ICMPV6_MGM_DONE) || p->icmp == ICMPV6_MLD2_REPORT)
		return is_link_local(&p->t.saddr);
	return false;
}

static __always_inline bool is_icmp_error(const struct fl_packet *p)
{
	if (p->v6)
		return p->icmp >= 1 && p->icmp <= ICMPV6_LAST_ERROR;
	return p->icmp == ICMP_DEST_UNREACH || p->icmp == ICMP_TIME_EXCEEDED || p->icmp == ICMP_PARAMETERPROB;
}

/*
 * Reads the headers. Afterwards kind says what it is; an address that stands in
 * the tuple was read even where the packet is broken behind it.
 */
static __always_inline void parse(struct __sk_buff *skb, struct fl_packet *p)
{
	bool ok;

	p->l3 = ETH_HLEN;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		ok = parse_v4(skb, p, ETH_HLEN, &p->t);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		p->v6 = true;
		ok = parse_v6(skb, p, ETH_HLEN, &p->t);
	} else {
		p->kind = FL_OTHER;
		if (skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD))
			p->kind = FL_NESTED;
		return;
	}
	if (!ok) {
		if (p->kind != FL_BROKEN)
			broken(p, FL_DROP_TRUNCATED);
		return;
	}
	p->kind = FL_IP;
	if (p->fragment)
		return;
	if (!parse_ports(skb, p, &p->t, p->l4, false)) {
		broken(p, FL_DROP_TRUNCATED);
		return;
	}
	if (!is_icmp(p))
		return;
	if (is_icmp_error(p)) {
		p->t.sport = 0;
		p->t.dport = 0;
		parse_quoted(skb, p);
	} else if (p->v6 && is_neighbour(p)) {
		p->kind = FL_NEIGHBOUR;
	}
}

static __always_inline void reverse(const struct fl_tuple *in, struct fl_tuple *out)
{
	__builtin_memset(out, 0, sizeof(*out));
	out->saddr = in->daddr;
	out->daddr = in->saddr;
	out->sport = in->dport;
	out->dport = in->sport;
	out->proto = in->proto;
}

static __always_inline int checksum_offset(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return offsetof(struct udphdr, check);
	}
	return -1;
}

/* Replaces the source (or destination) address of a TCP or UDP packet. */
static __always_inline bool rewrite_addr(struct __sk_buff *skb, struct fl_packet *p, bool source, struct fl_addr *to)
{
	struct fl_addr *from = source ? &p->t.saddr : &p->t.daddr;
	int check = checksum_offset(p->t.proto);
	__u64 flags = BPF_F_PSEUDO_HDR;
	__s64 diff;
	__u32 off;

	if (check < 0)
		return false;
	if (p->t.proto == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	if (p->v6) {
		off = p->l3 + (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
		diff = bpf_csum_diff((__be32 *)from, 16, (__be32 *)to, 16, 0);
		if (diff < 0 || bpf_l4_csum_replace(skb, p->l4 + check, 0, diff, flags) ||
		    bpf_skb_store_bytes(skb, off, to, 16, 0))
			return false;
	} else {
		off = p->l3 + (source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
		if (bpf_l4_csum_replace(skb, p->l4 + check, from->w[3], to->w[3], flags | 4) ||
		    bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), from->w[3], to->w[3], 4) ||
		    bpf_skb_store_bytes(skb, off, &to->w[3], 4, 0))
			return false;
	}
	*from = *to;
	return true;
}

/*
 * Turns a TCP packet into the RST that its receiver would have answered with. The
 * length stays: options and data of a RST are allowed, and neither checksum nor
 * offload state need to be known. Swapped addresses and ports leave every
 * checksum as it is; sequence numbers and flags are replaced with care for it.
 */
static __always_inline bool make_reset(struct __sk_buff *skb, struct fl_packet *p)
{
	struct {
		__be16 sport, dport;
		__be32 seq, ack;
		__be16 flags;
	} was, now = {};
	__u32 check = p->l4 + offsetof(struct tcphdr, check);
	__u8 mac[12], swapped[12];

	if (bpf_skb_load_bytes(skb, p->l4, &was, 14) || bpf_skb_load_bytes(skb, 0, mac, 12))
		return false;
	now.sport = was.dport;
	now.dport = was.sport;
	now.flags = was.flags & bpf_htons(0xf000);
	if (was.flags & bpf_htons(TCP_ACK)) {
		now.seq = was.ack;
		now.flags |= bpf_htons(TCP_RST);
	} else {
		now.ack = bpf_htonl(bpf_ntohl(was.seq) + 1);
		now.flags |= bpf_htons(TCP_RST | TCP_ACK);
	}
	if (bpf_l4_csum_replace(skb, check, was.seq, now.seq, 4) ||
	    bpf_l4_csum_replace(skb, check, was.ack, now.ack, 4) ||
	    bpf_l4_csum_replace(skb, check, was.flags, now.flags, 2) ||
	    bpf_skb_store_bytes(skb, p->l4, &now, 14, 0))
		return false;
	if (p->v6) {
		if (bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, saddr), &p->t.daddr, 16, 0) ||
		    bpf_skb_store_bytes(skb, p->l3 + offsetof(struct ipv6hdr, daddr), &p->t.saddr, 16, 0))
			return false;
	} else {
		if (bpf_skb_store_bytes(skb, p->l3 + offsetof(struct iphdr, saddr), &p->t.daddr.w[3], 4, 0) ||
		    bpf_skb_store_bytes(skb, p->l3 + offsetof(struct iphdr, daddr), &p->t.saddr.w[3], 4, 0))
			return false;
	}
	__builtin_memcpy(swapped, mac + 6, 6);
	__builtin_memcpy(swapped + 6, mac, 6);
	return !bpf_skb_store_bytes(skb, 0, swapped, 12, 0);
}

#endif
