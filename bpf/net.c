//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The packet programs.
 *
 *	from_pod  ingress of the host's end of a pod's veth: what a pod sends
 *	from_net  ingress of an uplink: what comes for the node's pods
 *	to_pod	  egress of the host's end of a pod's veth: everything a pod receives
 *	from_node ingress of loopback: what to_pod turns back
 *	from_bridge ingress of a bridge of pods: what from_pod has for the proxy
 *	to_net	  egress of an uplink: what the proxy answers to what the node forwarded
 *	getsockopt  cgroup: where the proxy is told that such a connection was going
 *
 * Only the ingress programs redirect to the proxy, so the proxy's own packets
 * meet none: no loop, no exemption. What a process of the node sends meets none
 * either. Where the proxy has to have it, to_pod turns it back through loopback.
 * Policy is judged in to_pod, on every packet and whatever its source, by the
 * policy of now.
 *
 * Whoever opens a connection decides its path with the SYN; a SYN rewrites what
 * an earlier connection of the same tuple left behind.
 */
#include "fl_flow.h"
#include "fl_packet.h"
#include "fl_policy.h"
#include "fl_redirect.h"

#define VLAN_ID 0x0fff /* of a tag */

#define AF_INET	 2
#define AF_INET6 10

/* Only so that they are described to Go. */
const enum fl_reason *unused_reason __attribute__((unused));
const enum fl_action *unused_action __attribute__((unused));
const enum fl_path *unused_path __attribute__((unused));
const enum fl_side *unused_side __attribute__((unused));
const enum fl_direction *unused_direction __attribute__((unused));
const enum fl_mode *unused_mode __attribute__((unused));
const enum fl_bank *unused_bank __attribute__((unused));
const enum fl_own *unused_own __attribute__((unused));

/* 169.254.42.1 and fd00:42::1 stand for a pod in packets that it sent to itself through the proxy. */
static __always_inline void self_addr(bool v6, struct fl_addr *a)
{
	if (v6) {
		a->w[0] = bpf_htonl(0xfd000042);
		a->w[1] = 0;
		a->w[2] = 0;
		a->w[3] = bpf_htonl(1);
	} else {
		map_v4(a, bpf_htonl(0xa9fe2a01));
	}
}

static __always_inline int opened_by_pod(struct __sk_buff *skb, struct fl_packet *p, const struct fl_pod *from)
{
	struct verdict v = {};
	struct fl_pod *to;

	if (bpf_ntohs(p->t.sport) >= FL_PORT_CHECKED)
		return drop(skb, p, FL_DROP_RESERVED_PORT, FL_FROM_POD, NULL);
	v.port = outbound_port(p, from);
	if (v.port && !(from->flags & FL_POD_DIRECT))
		return open_to_proxy(skb, p, FL_OK_OUTBOUND, FL_FROM_POD, &v);
	to = bpf_map_lookup_elem(&fl_pods_v3, &p->t.daddr);
	if (to && wants_inbound(p, to, false, &v))
		return open_to_proxy(skb, p, FL_OK_INBOUND, FL_FROM_POD, &v);
	remember(&p->t, FL_DIRECT, 0);
	count(FL_OK_DIRECT);
	tell(skb, p, v.port ? FL_OK_OUTBOUND : FL_OK_DIRECT, FL_FROM_POD, &v, v.port ? FL_EVENT_OBSERVED : 0);
	return TCX_NEXT;
}

static __always_inline int tcp_from_pod(struct __sk_buff *skb, struct fl_packet *p, const struct fl_pod *from)
{
	struct fl_conn *c;
	int ret;

	if (to_socket(skb, p, FL_FROM_POD, &ret))
		return ret;
	if (is_open(p))
		return opened_by_pod(skb, p, from);
	/* A proxy's connection may have the same tuple: only one that the pod serves is its own. */
	if (bpf_ntohs(p->t.sport) >= FL_PORT_CHECKED && !recall_served(p))
		return drop(skb, p, FL_DROP_RESERVED_PORT, FL_FROM_POD, NULL);
	c = recall(&p->t);
	if (c && c->path == FL_PROXIED) /* its socket is gone: the listener answers RST */
		return to_proxy(skb, p, c->port, FL_FROM_POD);
	return TCX_NEXT;
}

/* A pod is no router: the node must not learn routes from it. */
static __always_inline bool is_routing(const struct fl_packet *p)
{
	if (p->v6)
		return p->kind == FL_NEIGHBOUR && (p->icmp == NDISC_ROUTER_ADVERT || p->icmp == NDISC_REDIRECT);
	return p->kind == FL_IP && is_icmp(p) && p->icmp == ICMP_REDIRECT;
}

/* Packets in packets: IP in IP, GRE, and by their usual ports VXLAN and Geneve. */
static __always_inline bool is_tunnel(const struct fl_packet *p)
{
	switch (p->t.proto) {
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
	case IPPROTO_GRE:
		return true;
	case IPPROTO_UDP:
		return p->t.dport == bpf_htons(4789) || p->t.dport == bpf_htons(8472) || p->t.dport == bpf_htons(6081);
	}
	return false;
}

/* Whether it is for a node: by what we know of its address, or because it would not be forwarded. */
static __always_inline bool is_for_node(struct __sk_buff *skb, const struct fl_packet *p)
{
	struct bpf_fib_lookup fib = { .family = p->v6 ? AF_INET6 : AF_INET, .ifindex = skb->ifindex };
	__u32 flags;
	long ret;

	classify(&p->t.daddr, &flags);
	if (flags & FL_ADDR_NODE)
		return true;
	if (p->v6) {
		__builtin_memcpy(fib.ipv6_src, &p->t.saddr, 16);
		__builtin_memcpy(fib.ipv6_dst, &p->t.daddr, 16);
	} else {
		fib.ipv4_src = p->t.saddr.w[3];
		fib.ipv4_dst = p->t.daddr.w[3];
	}
	ret = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	return ret == BPF_FIB_LKUP_RET_NOT_FWDED || ret == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

SEC("tcx/ingress")
int fl_from_pod(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	struct fl_addr self;
	struct fl_pod *pod;

	if (take_answer(skb))
		return TCX_NEXT;
	parse(skb, &p);
	if (p.kind == FL_OTHER)
		return TCX_NEXT;
	if (p.kind == FL_NESTED) /* of VLAN 0 in VLAN 0 the kernel takes off both, and takes in what no one has seen */
		return drop(skb, &p, FL_DROP_EXTENSION, FL_FROM_POD, NULL);
	if (is_routing(&p))
		return drop(skb, &p, FL_DROP_SPOOFED, FL_FROM_POD, NULL);
	if (p.kind == FL_NEIGHBOUR && is_link_local(&p.t.saddr))
		return TCX_NEXT;
	if (p.kind == FL_BROKEN)
		return drop(skb, &p, p.reason, FL_FROM_POD, NULL);
	pod = bpf_map_lookup_elem(&fl_pods_v3, &p.t.saddr);
	if (!pod || pod->ifindex != skb->ifindex)
		return drop(skb, &p, FL_DROP_SPOOFED, FL_FROM_POD, NULL);
	if (is_loopback(&p.t.daddr))
		return drop(skb, &p, FL_DROP_LOOPBACK, FL_FROM_POD, NULL);
	if (p.kind != FL_IP || p.fragment) /* judged where it is received */
		return TCX_NEXT;
	if (is_tunnel(&p) && is_for_node(skb, &p)) /* whose source would be believed, once unpacked */
		return drop(skb, &p, FL_DROP_SPOOFED, FL_FROM_POD, NULL);
	self_addr(p.v6, &self);
	if (same_addr(&p.t.daddr, &self)) {
		self = p.t.saddr;
		if (!rewrite_addr(skb, &p, false, &self))
			return drop(skb, &p, FL_DROP_SPOOFED, FL_FROM_POD, NULL);
	}
	if (p.t.proto == IPPROTO_TCP)
		return tcp_from_pod(skb, &p, pod);
	datagram_from_pod(skb, &p);
	return TCX_NEXT;
}

SEC("tcx/ingress")
int fl_from_net(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	struct verdict v = {};
	struct fl_addr self;
	struct fl_pod *pod;
	struct fl_conn *c;
	int ret;

	parse(skb, &p);
	if (p.kind == FL_OTHER || p.kind == FL_NEIGHBOUR)
		return TCX_NEXT;
	if (p.kind == FL_NESTED) { /* as in from_pod; real VLANs in VLANs are none of our business */
		if (skb->vlan_present && !(skb->vlan_tci & VLAN_ID))
			return drop(skb, &p, FL_DROP_EXTENSION, FL_FROM_NET, NULL);
		return TCX_NEXT;
	}
	self_addr(p.v6, &self);
	if (same_addr(&p.t.saddr, &self) || bpf_map_lookup_elem(&fl_pods_v3, &p.t.saddr))
		return drop(skb, &p, FL_DROP_SPOOFED, FL_FROM_NET, NULL);
	if (is_loopback(&p.t.daddr)) /* where the proxy listens; the kernel may be told to take it in */
		return drop(skb, &p, FL_DROP_LOOPBACK, FL_FROM_NET, NULL);
	pod = bpf_map_lookup_elem(&fl_pods_v3, &p.t.daddr);
	if (!pod) /* the node's own, or somebody else's */
		return TCX_NEXT;
	if (p.kind == FL_BROKEN)
		return drop(skb, &p, p.reason, FL_FROM_NET, NULL);
	if (p.kind == FL_ICMP_ERROR)
		return error_from_net(skb, &p);
	if (p.fragment || p.t.proto != IPPROTO_TCP)
		return TCX_NEXT;
	if (to_socket(skb, &p, FL_FROM_NET, &ret))
		return ret;
	if (!is_open(&p)) {
		c = recall(&p.t);
		if (c && c->path == FL_PROXIED)
			return to_proxy(skb, &p, c->port, FL_FROM_NET);
		return TCX_NEXT;
	}
	if (!wants_inbound(&p, pod, true, &v)) {
		c = recall(&p.t);
		if (c && c->path == FL_PROXIED) /* an earlier life of the tuple */
			bpf_map_delete_elem(&fl_conntrack_v1, &p.t);
		return TCX_NEXT;
	}
	return open_to_proxy(skb, &p, FL_OK_INBOUND, FL_FROM_NET, &v);
}

/*
 * An ICMP error is let in if it is about a packet that the pod sent: of a flow that
 * it opened, or to somebody who may reach it at that port.
 */
static __always_inline int icmp_error_to_pod(struct __sk_buff *skb, const struct fl_packet *p, const struct fl_pod *pod)
{
	struct verdict v = { .set = pod->set };
	bool ports = p->quoted.proto == IPPROTO_TCP || p->quoted.proto == IPPROTO_UDP;
	__u32 flags, action;

	if (!pod->set)
		return TCX_NEXT;
	if (same_addr(&p->quoted.saddr, &p->t.daddr)) {
		if (recall(&p->quoted)) {
			count(FL_OK_REPLY);
			return TCX_NEXT;
		}
		v.class = classify(&p->quoted.daddr, &flags);
		action = judge(&v, ports ? p->quoted.sport : 0, ports ? p->quoted.proto : 0);
		if (action == FL_ALLOW || action == FL_CHECK || action == FL_INBOUND) {
			count(FL_OK_ALLOWED);
			return TCX_NEXT;
		}
	}
	if (pod->flags & FL_POD_OBSERVED) {
		count(FL_OK_OBSERVED);
		tell(skb, p, FL_DROP_POLICY, FL_TO_POD, &v, FL_EVENT_OBSERVED);
		return TCX_NEXT;
	}
	return drop(skb, p, FL_DROP_POLICY, FL_TO_POD, &v);
}

/*
 * Refuses. The sender of a TCP packet is told by a RST that enters the node as if
 * the pod had sent it, and so finds its way to whoever opened the connection, the
 * proxy included. A packet of many segments is dropped without an answer.
 */
static __always_inline int refuse(struct __sk_buff *skb, struct fl_packet *p, __u8 reason, const struct verdict *v)
{
	drop(skb, p, reason, FL_TO_POD, v);
	if (p->t.proto != IPPROTO_TCP || (p->tcp & TCP_RST) || skb->gso_segs > 1 || same_addr(&p->t.saddr, &p->t.daddr))
		return TCX_DROP;
	if (!make_reset(skb, p))
		return TCX_DROP;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

/*
 * Whether a connection is opened from an address of a node's pods that nobody has told of
 * yet. A pod that has just started is known on its own node alone; it may be let in as soon
 * as word of it is here. A RST would fail its first request, where without an answer it
 * asks again after a second.
 */
static __always_inline bool is_newcomer(const struct fl_packet *p, __u32 flags)
{
	return (flags & FL_ADDR_UNASSIGNED) && p->t.proto == IPPROTO_TCP && is_open(p);
}

/*
 * What to_pod turned back. Its source is the node's own: the host takes that in by
 * loopback alone, and if accept_local is set there. And what the proxy answers under a
 * pod's address to the node itself, which had forwarded what it answers under its own.
 */
SEC("tcx/ingress")
int fl_from_node(struct __sk_buff *skb)
{
	__u32 mark = skb->mark & FL_MARK_MASK, ifindex;
	struct fl_packet p = {};
	struct verdict v = {};
	struct fl_pod *pod;
	int ret;

	if (mark && mark != FL_MARK_TURNED && mark != FL_MARK_FORWARDED)
		return TCX_NEXT;
	parse(skb, &p);
	if (!mark)
		return is_answer(skb, &p, &ifindex) ? send_answer(skb, ifindex) : TCX_NEXT;
	if (p.kind != FL_IP || p.fragment || p.t.proto != IPPROTO_TCP)
		return TCX_NEXT;
	pod = bpf_map_lookup_elem(&fl_pods_v3, &p.t.daddr);
	if (!pod)
		return TCX_NEXT;
	if (to_socket(skb, &p, FL_TO_POD, &ret))
		return ret;
	if (is_open(&p) && (wants_inbound(&p, pod, false, &v) || is_for_inbound(&p))) {
		v.port = inbound_port(pod);
		return open_by(skb, &p, mark == FL_MARK_FORWARDED ? FL_TURNED : FL_PROXIED, FL_OK_INBOUND, FL_TO_POD, &v);
	}
	return drop(skb, &p, FL_DROP_UNCHECKED, FL_TO_POD, &v);
}

/*
 * What from_pod has for the proxy where pods are ports of a bridge: by its mark, which no
 * pod can set. The socket was found there, and is again.
 */
SEC("tcx/ingress")
int fl_from_bridge(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	struct bpf_sock *sk;
	struct fl_conn *c;

	if (take_answer(skb) || (skb->mark & FL_MARK_MASK) != FL_MARK_TO_PROXY)
		return TCX_NEXT;
	parse(skb, &p);
	if (p.kind != FL_IP || p.fragment || p.t.proto != IPPROTO_TCP)
		return TCX_NEXT;
	sk = lookup(skb, p.v6, &p.t, false, 0);
	if (sk && sk->state != TCP_LISTEN)
		return assign(skb, &p, sk, FL_FROM_POD);
	if (sk)
		bpf_sk_release(sk);
	c = recall(&p.t);
	if (c && c->path == FL_PROXIED)
		return to_proxy(skb, &p, c->port, FL_FROM_POD);
	return drop(skb, &p, FL_DROP_NO_PROXY, FL_FROM_POD, NULL);
}

SEC("tcx/egress")
int fl_to_net(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	__u32 ifindex;

	if (skb->ingress_ifindex) /* forwarded */
		return TCX_NEXT;
	parse(skb, &p);
	return is_answer(skb, &p, &ifindex) ? send_answer(skb, ifindex) : TCX_NEXT;
}

SEC("tcx/egress")
int fl_to_pod(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	struct verdict v = {};
	struct fl_addr self;
	struct fl_pod *pod;
	__u32 flags, ifindex;
	__u8 reason, ok;

	parse(skb, &p);
	if (p.kind == FL_OTHER || p.kind == FL_NEIGHBOUR)
		return TCX_NEXT;
	if (p.kind == FL_NESTED)
		return drop(skb, &p, FL_DROP_EXTENSION, FL_TO_POD, NULL);
	if (p.kind == FL_BROKEN)
		return drop(skb, &p, p.reason, FL_TO_POD, NULL);
	pod = bpf_map_lookup_elem(&fl_pods_v3, &p.t.daddr);
	if (!pod || pod->ifindex != skb->ifindex)
		return drop(skb, &p, FL_DROP_UNKNOWN_POD, FL_TO_POD, NULL);
	if (p.kind == FL_ICMP_ERROR)
		return icmp_error_to_pod(skb, &p, pod);
	if (p.fragment) {
		/* It has no ports, and might overwrite what the first fragment was judged by. */
		if (pod->set && (pod->flags & FL_POD_OBSERVED)) {
			count(FL_OK_OBSERVED);
			if (is_new(&p))
				tell(skb, &p, FL_DROP_FRAGMENT, FL_TO_POD, NULL, FL_EVENT_OBSERVED);
		} else if (pod->set) {
			return drop(skb, &p, FL_DROP_FRAGMENT, FL_TO_POD, NULL);
		}
		return TCX_NEXT;
	}
	if (is_own_answer(skb, &p))
		return turn_back(skb, FL_MARK_TURNED);
	if (is_reply(&p)) {
		if (is_answer(skb, &p, &ifindex))
			return send_answer(skb, ifindex);
		count(FL_OK_REPLY);
	} else {
		reason = admit(skb, &p, pod, &v, &ok, &flags);
		if (is_for_proxy(skb, &p, pod, flags, reason))
			return turn_back(skb, FL_MARK_TURNED);
		if (is_forwarded_for_proxy(skb, &p, pod, reason))
			return turn_back(skb, FL_MARK_FORWARDED);
		if (reason && !is_observed(pod, &p, reason)) {
			if (is_newcomer(&p, flags))
				return drop(skb, &p, reason, FL_TO_POD, &v);
			return refuse(skb, &p, reason, &v);
		}
		if (p.t.proto == IPPROTO_TCP && is_open(&p) && is_from_proxy(skb)) /* an earlier life of the tuple */
			bpf_map_delete_elem(&fl_conntrack_v1, &p.t);
		count(reason ? FL_OK_OBSERVED : ok);
		if (is_new(&p))
			tell_judged(skb, &p, reason, ok, &v);
	}
	if (same_addr(&p.t.saddr, &p.t.daddr)) {
		self_addr(p.v6, &self);
		if (!rewrite_addr(skb, &p, true, &self))
			return drop(skb, &p, FL_DROP_SPOOFED, FL_TO_POD, NULL);
	}
	return TCX_NEXT;
}

#define SO_ORIGINAL_DST 80 /* of SOL_IP and of SOL_IPV6 alike */
#define SOL_IP		0
#define SOL_IPV6	41

#define LARGEST_OPTION 4096 /* what is longer, the kernel shows in part; 0 leaves it as it is */

struct original4 {
	__u16 family;
	__be16 port;
	__be32 addr;
	__u8 zero[8];
};

struct original6 {
	__u16 family;
	__be16 port;
	__be32 flow;
	__be32 addr[4];
	__u32 scope;
};

/*
 * The proxy asks where a connection was going. Of one that the node had translated before
 * it came to the proxy, connection tracking would name what the client had dialled, a node
 * port for example; it is for the pod, and that is the socket's own address.
 */
SEC("cgroup/getsockopt")
int fl_getsockopt(struct bpf_sockopt *ctx)
{
	bool v6 = ctx->level == SOL_IPV6;
	struct bpf_sock *sk = ctx->sk;
	struct fl_tuple t = {};
	struct original4 *four;
	struct original6 *six;
	struct fl_conn *c;

	if (ctx->optlen > LARGEST_OPTION)
		ctx->optlen = 0;
	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && !v6) || !sk || sk->protocol != IPPROTO_TCP)
		return 1;
	t.proto = IPPROTO_TCP;
	t.sport = sk->dst_port;
	t.dport = bpf_htons(sk->src_port);
	if (v6) {
		t.saddr.w[0] = sk->dst_ip6[0];
		t.saddr.w[1] = sk->dst_ip6[1];
		t.saddr.w[2] = sk->dst_ip6[2];
		t.saddr.w[3] = sk->dst_ip6[3];
		t.daddr.w[0] = sk->src_ip6[0];
		t.daddr.w[1] = sk->src_ip6[1];
		t.daddr.w[2] = sk->src_ip6[2];
		t.daddr.w[3] = sk->src_ip6[3];
	} else {
		map_v4(&t.saddr, sk->dst_ip4);
		map_v4(&t.daddr, sk->src_ip4);
	}
	c = recall(&t);
	if (!c || c->path != FL_TURNED)
		return 1;
	if (v6) {
		six = ctx->optval;
		if ((void *)(six + 1) > ctx->optval_end)
			return 1;
		__builtin_memset(six, 0, sizeof(*six));
		six->family = AF_INET6;
		six->port = t.dport;
		__builtin_memcpy(six->addr, &t.daddr, sizeof(six->addr));
		ctx->optlen = sizeof(*six);
	} else {
		four = ctx->optval;
		if ((void *)(four + 1) > ctx->optval_end)
			return 1;
		__builtin_memset(four, 0, sizeof(*four));
		four->family = AF_INET;
		four->port = t.dport;
		four->addr = t.daddr.w[3];
		ctx->optlen = sizeof(*four);
	}
	ctx->retval = 0;
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
