/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Policy: the class of whoever sent a packet, what the policy of the pod says of it,
 * and the counters and events that tell of the verdict.
 *
 * Some verdicts hold only for what comes from a proxy. Its packets are known by their
 * marks and source ports, which are here for that reason.
 */
#ifndef FL_POLICY_H
#define FL_POLICY_H

#include "fl_packet.h"

#define TCX_NEXT -1
#define TCX_DROP 2

/*
 * Marks, in the nibble 0xf00. Packets that the host is to take for its own carry
 * FL_MARK_TO_PROXY. The proxy's upstream sockets carry FL_MARK_FROM_PROXY, or
 * FL_MARK_FROM_INBOUND where its inbound listener judged the request. Setting one
 * takes CAP_NET_ADMIN or CAP_NET_RAW over the node's network, and whoever has that could
 * as well write frames to a pod's device.
 */
#define FL_MARK_MASK	     0xf00
#define FL_MARK_TO_PROXY     0x200
#define FL_MARK_FROM_PROXY   0x300
#define FL_MARK_TURNED	     0x400 /* by to_pod, for from_node */
#define FL_MARK_FROM_INBOUND 0x500
#define FL_MARK_FORWARDED    0x600 /* by to_pod, for from_node: of what the node forwards */
#define FL_MARK_ANSWER	     0x700 /* an answer to that, for the interface that the pod is behind */

/* Source ports that pods may not open connections from, in host order. */
#define FL_PORT_CHECKED	    61000 /* the proxy judged the destination's policy */
#define FL_PORT_FOR_INBOUND 62400 /* the destination's inbound listener is to, whatever its policy is */
#define FL_PORT_UNCHECKED   63264 /* it did not */

FL_MAP(fl_policy_v1, BPF_MAP_TYPE_HASH, struct fl_policy_key, struct fl_policy, 262144, BPF_F_NO_PREALLOC);

struct verdict {
	__u64 class;
	__u64 set;
	__u64 rule;
	__u16 port;
};

static __always_inline void tell(struct __sk_buff *skb, const struct fl_packet *p, __u8 reason, __u8 direction,
				 const struct verdict *v, __u32 flags)
{
	struct fl_event *e = bpf_ringbuf_reserve(&fl_events_v1, sizeof(*e), 0);

	if (!e) {
		count(FL_EVENT_LOST);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->tuple = p->t;
	e->ifindex = skb->ifindex;
	e->reason = reason;
	e->direction = direction;
	e->flags = flags;
	if (v) {
		e->class = v->class;
		e->set = v->set;
		e->rule = v->rule;
		e->port = v->port;
	}
	submit(e);
}

static __always_inline void report(struct __sk_buff *skb, const struct fl_packet *p, __u8 reason, __u8 direction,
				   const struct verdict *v)
{
	tell(skb, p, reason, direction, v, 0);
}

/*
 * Tells why a packet goes in: ok, or though there is a reason why not, because the pod is
 * observed. What the proxy has not seen would have been redirected to it.
 */
static __always_inline void tell_judged(struct __sk_buff *skb, const struct fl_packet *p, __u8 reason, __u8 ok,
					const struct verdict *v)
{
	__u32 flags = reason ? FL_EVENT_OBSERVED : 0;

	if (!reason)
		reason = ok;
	if (reason == FL_DROP_UNCHECKED && p->t.proto == IPPROTO_TCP)
		reason = FL_OK_INBOUND;
	tell(skb, p, reason, FL_TO_POD, v, flags);
}

static __always_inline int drop(struct __sk_buff *skb, const struct fl_packet *p, __u8 reason, __u8 direction,
				const struct verdict *v)
{
	count(reason);
	report(skb, p, reason, direction, v);
	return TCX_DROP;
}

/* The class of an address and what else is known of it. */
static __always_inline __u64 classify(const struct fl_addr *addr, __u32 *flags)
{
	struct fl_address *a = bpf_map_lookup_elem(&fl_addresses_v1, addr);
	struct fl_prefix_key key = { .bits = 128, .addr = *addr };

	if (!a)
		a = bpf_map_lookup_elem(&fl_prefixes_v2, &key);
	*flags = a ? a->flags : 0;
	return a ? a->class : 0;
}

/* What the set says of a class at a port. Nothing there: denied. */
static __always_inline __u32 judge(struct verdict *v, __be16 port, __u8 proto)
{
	struct fl_policy_key key = { .set = v->set, .class = v->class, .port = port, .proto = proto };
	struct fl_policy *p;

	p = bpf_map_lookup_elem(&fl_policy_v1, &key);
	if (!p) {
		key.class = FL_ANY_CLASS;
		p = bpf_map_lookup_elem(&fl_policy_v1, &key);
	}
	if (!p) {
		key.class = v->class;
		key.port = 0;
		key.proto = 0;
		p = bpf_map_lookup_elem(&fl_policy_v1, &key);
	}
	if (!p) {
		key.class = FL_ANY_CLASS;
		p = bpf_map_lookup_elem(&fl_policy_v1, &key);
	}
	if (!p)
		return FL_DENY;
	v->rule = p->rule;
	return p->action;
}

/* ICMP has no port that policy knows: it is judged as any other port. */
static __always_inline __u32 judge_packet(struct verdict *v, const struct fl_packet *p)
{
	if (p->t.proto == IPPROTO_TCP || p->t.proto == IPPROTO_UDP)
		return judge(v, p->t.dport, p->t.proto);
	return judge(v, 0, 0);
}

static __always_inline bool is_checked(const struct fl_packet *p)
{
	__u16 port = bpf_ntohs(p->t.sport);

	return p->t.proto == IPPROTO_TCP && port >= FL_PORT_CHECKED && port < FL_PORT_FOR_INBOUND;
}

static __always_inline bool is_for_inbound(const struct fl_packet *p)
{
	__u16 port = bpf_ntohs(p->t.sport);

	return p->t.proto == IPPROTO_TCP && port >= FL_PORT_FOR_INBOUND && port < FL_PORT_UNCHECKED;
}

static __always_inline bool is_from_inbound(const struct __sk_buff *skb)
{
	return !skb->ingress_ifindex && (skb->mark & FL_MARK_MASK) == FL_MARK_FROM_INBOUND;
}

/*
 * Whether the source port of what came from another node says what it judged. Of a node
 * that is behind that holds for what it has open, and for no further connection.
 */
static __always_inline bool is_believed(const struct fl_packet *p, __u32 flags)
{
	return (flags & FL_ADDR_MANAGED) && !((flags & FL_ADDR_BEHIND) && is_open(p));
}

/*
 * Whether a proxy that is believed judged what the packet carries. Where it has to be
 * this node's inbound listener (FL_INBOUND), a connection that another one has open
 * goes on: its proxy did not know yet, and opens no further one.
 */
static __always_inline bool is_judged(const struct __sk_buff *skb, const struct fl_packet *p, __u32 flags, __u32 action)
{
	if (!is_checked(p))
		return false;
	if (is_from_inbound(skb))
		return true;
	if (action == FL_INBOUND && is_open(p))
		return false;
	return skb->ingress_ifindex ? is_believed(p, flags) : (skb->mark & FL_MARK_MASK) == FL_MARK_FROM_PROXY;
}

/*
 * Whether a packet goes in though there is a reason why not. What cannot be judged any more,
 * because the proxy has not seen it begin, may end while the pod settles.
 */
static __always_inline bool is_observed(const struct fl_pod *pod, const struct fl_packet *p, __u8 reason)
{
	if (pod->flags & FL_POD_OBSERVED)
		return true;
	return (pod->flags & FL_POD_SETTLING) && reason == FL_DROP_UNCHECKED && p->t.proto == IPPROTO_TCP && !is_open(p);
}

static __always_inline bool is_probe(const struct fl_pod *pod, const struct fl_packet *p)
{
	int i;

	if (p->t.proto != IPPROTO_TCP)
		return false;
	for (i = 0; i < FL_PROBE_PORTS; i++) {
		if (!pod->probes[i])
			return false;
		if (pod->probes[i] == p->t.dport)
			return true;
	}
	return false;
}

/* 0 if the packet may go in, else the reason why not. *ok says why it may. */
static __always_inline __u8 admit(struct __sk_buff *skb, const struct fl_packet *p, const struct fl_pod *pod,
				  struct verdict *v, __u8 *ok, __u32 *flags)
{
	__u32 action;

	v->class = classify(&p->t.saddr, flags);
	v->set = pod->set;
	*ok = FL_OK_ALLOWED;
	if (!pod->set)
		return 0;
	if (!skb->ingress_ifindex && (*flags & FL_ADDR_NODE) && is_probe(pod, p)) {
		*ok = FL_OK_PROBE;
		return 0;
	}
	action = judge_packet(v, p);
	switch (action) {
	case FL_ALLOW:
		return 0;
	case FL_CHECK:
	case FL_INBOUND:
		*ok = FL_OK_CHECKED;
		return is_judged(skb, p, *flags, action) ? 0 : FL_DROP_UNCHECKED;
	}
	return FL_DROP_POLICY;
}

#endif
