/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Flows: the path that a connection took when it was opened, and which packets answer
 * one. Policy is judged packet by packet, not by flow; a flow only lets its answers in.
 */
#ifndef FL_FLOW_H
#define FL_FLOW_H

#include "fl_packet.h"
#include "fl_policy.h"

/* A datagram is an answer for this long after the pod's last one to the same place. */
#define FL_DATAGRAM_NS (120 * 1000000000ULL)

FL_MAP(fl_conntrack_v1, BPF_MAP_TYPE_LRU_HASH, struct fl_tuple, struct fl_conn, 262144, 0);

static __always_inline void remember(const struct fl_tuple *t, __u16 path, __u16 port)
{
	struct fl_conn c = { .seen = bpf_ktime_get_ns(), .path = path, .port = port };

	if (bpf_map_update_elem(&fl_conntrack_v1, t, &c, BPF_ANY))
		count(FL_MAP_FULL);
}

static __always_inline struct fl_conn *recall(const struct fl_tuple *t)
{
	return bpf_map_lookup_elem(&fl_conntrack_v1, t);
}

/* The entry of a flow that was let into the sender of the packet. */
static __always_inline struct fl_conn *recall_served(const struct fl_packet *p)
{
	struct fl_tuple back;

	reverse(&p->t, &back);
	back.side = FL_SERVED;
	return recall(&back);
}

static __always_inline bool is_fresh(const struct fl_conn *c)
{
	return bpf_ktime_get_ns() < c->seen + FL_DATAGRAM_NS; /* seen may have moved beyond our now */
}

/*
 * Remembers a flow without handshake, so that its replies are let in. What answers
 * another's flow opens none: it would let in whatever the other side sends next,
 * also when policy no longer does.
 */
static __always_inline void datagram_from_pod(struct __sk_buff *skb, const struct fl_packet *p)
{
	struct fl_conn *c;

	if (is_icmp(p) && p->icmp != (p->v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO))
		return;
	c = recall(&p->t);
	if (c && is_fresh(c)) {
		c->seen = bpf_ktime_get_ns();
		return;
	}
	if (recall_served(p))
		return;
	remember(&p->t, FL_DIRECT, 0);
	count(FL_OK_DIRECT);
	report(skb, p, FL_OK_DIRECT, FL_FROM_POD, NULL);
}

/*
 * Whether the packet answers a flow that the pod opened. A SYN opens one, whatever
 * was there before.
 */
static __always_inline bool is_reply(const struct fl_packet *p)
{
	struct fl_tuple back;
	struct fl_conn *c;

	if (p->t.proto == IPPROTO_TCP && is_open(p))
		return false;
	if (is_icmp(p) && p->icmp != (p->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY))
		return false;
	reverse(&p->t, &back);
	c = recall(&back);
	return c && (p->t.proto == IPPROTO_TCP || is_fresh(c));
}

/*
 * Whether the packet, which is let in, is the first of its flow. A flow is
 * remembered if the pod's answers have to be known as such: those without a
 * handshake, and those from ports that nobody may open a connection from.
 */
static __always_inline bool is_new(const struct fl_packet *p)
{
	struct fl_tuple t = p->t;
	bool tcp = t.proto == IPPROTO_TCP;

	if (tcp && !is_open(p))
		return false;
	if (tcp) { /* not the answer to an earlier connection the other way, with the same ports */
		reverse(&p->t, &t);
		bpf_map_delete_elem(&fl_conntrack_v1, &t);
		t = p->t;
	}
	t.side = FL_SERVED;
	if (tcp ? bpf_ntohs(t.dport) < FL_PORT_CHECKED : !!recall(&t))
		return tcp;
	remember(&t, FL_DIRECT, 0);
	return true;
}

#endif
