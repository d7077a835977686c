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
#define ICMP_DEST_UNREACH  3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IP_OFFSET 0x1fff
#define IP_MORE	  0x2000

enum fl_kind {
	FL_OTHER,	/* no IP: not ours to judge */
	FL_IP,		/* judged by tuple */
	FL_NEIGHBOUR,	/* IPv6 neighbour discovery and group membership: stays on the link */
	FL_ICMP_ERROR,	/* about another packet: tuple is that packet's */
	FL_BROKEN,	/* reason says why */
};

struct fl_packet {
	struct fl_tuple t;
	struct fl_addr from; /* who sent an ICMP error */
	__u32 l3;	     /* offsets from the start of the frame */
	__u32 l4;
	__u8 kind;
	__u8 reason;
	__u8 tcp; /* flags */
	bool v6;
	bool fragment; /* not the first: no ports */
};

static __always_inline bool is_open(const struct fl_packet *p)
{
	return (p->tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN;
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
static __always_inline bool parse_ports(struct __sk_buff *skb, struct fl_packet *p, __u32 off, bool quoted)
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

	switch (p->t.proto) {
	case IPPROTO_TCP:
		if (!quoted) {
			if (bpf_skb_load_bytes(skb, off, &tcp, sizeof(tcp)) || tcp.offset < 5 << 4)
				return false;
			p->tcp = tcp.flags;
			p->t.sport = tcp.sport;
			p->t.dport = tcp.dport;
			return true;
		}
		/* fallthrough */
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)))
			return false;
		p->t.sport = ports[0];
		p->t.dport = ports[1];
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, off, &echo, sizeof(echo)))
			return false;
		p->t.sport = echo.id;
		p->t.dport = echo.id;
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
			i = FL_EXTENSIONS;
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

/* Reads the packet that an ICMP error is about into the tuple. */
static __always_inline void parse_quoted(struct __sk_buff *skb, struct fl_packet *p)
{
	struct fl_tuple inner = {};
	bool ok;

	p->from = p->t.saddr;
	ok = p->v6 ? parse_v6(skb, p, p->l4 + 8, &inner) : parse_v4(skb, p, p->l4 + 8, &inner);
	p->t = inner;
	if (!ok || p->fragment || !parse_ports(skb, p, p->l4, true)) {
		broken(p, FL_DROP_TRUNCATED);
		return;
	}
	p->kind = FL_ICMP_ERROR;
}

/*
 * Reads the headers. Afterwards kind says what it is; an address that stands in
 * the tuple was read even where the packet is broken behind it.
 */
static __always_inline void parse(struct __sk_buff *skb, struct fl_packet *p)
{
	__u8 type;
	bool ok;

	p->l3 = ETH_HLEN;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		ok = parse_v4(skb, p, ETH_HLEN, &p->t);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		p->v6 = true;
		ok = parse_v6(skb, p, ETH_HLEN, &p->t);
	} else {
		p->kind = FL_OTHER;
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
	if (p->t.proto == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1)) {
			broken(p, FL_DROP_TRUNCATED);
			return;
		}
		if ((type >= 130 && type <= 137) || type == 143) {
			p->kind = FL_NEIGHBOUR;
			return;
		}
		if (type >= 1 && type <= 4) {
			parse_quoted(skb, p);
			return;
		}
	} else if (p->t.proto == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1)) {
			broken(p, FL_DROP_TRUNCATED);
			return;
		}
		if (type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB) {
			parse_quoted(skb, p);
			return;
		}
	}
	if (!parse_ports(skb, p, p->l4, false))
		broken(p, FL_DROP_TRUNCATED);
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
