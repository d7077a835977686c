//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The packet programs.
 *
 *	from_pod  ingress of the host's end of a pod's veth: what a pod sends
 *	from_net  ingress of an uplink: what comes for the node's pods
 *	to_pod	  egress of the host's end of a pod's veth: everything a pod receives
 *	from_node ingress of loopback: what to_pod turns back
 *
 * Only the ingress programs redirect to the proxy, so the proxy's own packets
 * meet none: no loop, no exemption. What a process of the node sends meets none
 * either. Where the proxy has to have it, to_pod turns it back through loopback. Policy is judged in to_pod, on every packet
 * and whatever its source, by the policy of now.
 *
 * Whoever opens a connection decides its path with the SYN; a SYN rewrites what
 * an earlier connection of the same tuple left behind.
 */
#include "fl_packet.h"

#define TCX_NEXT -1
#define TCX_DROP 2

#define TCP_TIME_WAIT 6
#define TCP_LISTEN    10

#define VLAN_ID 0x0fff /* of a tag */

#define AF_INET	 2
#define AF_INET6 10

/*
 * Marks, in the nibble 0xf00. Packets that the host is to take for its own carry
 * FL_MARK_TO_PROXY. The proxy's upstream sockets carry FL_MARK_FROM_PROXY. Setting one
 * takes CAP_NET_ADMIN or CAP_NET_RAW over the node's network, and whoever has that could
 * as well write frames to a pod's device.
 */
#define FL_MARK_MASK	   0xf00
#define FL_MARK_TO_PROXY   0x200
#define FL_MARK_FROM_PROXY 0x300
#define FL_MARK_TURNED	   0x400 /* by to_pod, for from_node */

#define LOOPBACK_IFINDEX 1

/* A datagram is an answer for this long after the pod's last one to the same place. */
#define FL_DATAGRAM_NS (120 * 1000000000ULL)

/* Source ports that pods may not open connections from, in host order. */
#define FL_PORT_CHECKED	  61000 /* the proxy judged the destination's policy */
#define FL_PORT_UNCHECKED 63264 /* it did not */

FL_MAP(fl_addresses_v1, BPF_MAP_TYPE_HASH, struct fl_addr, struct fl_address, 131072, BPF_F_NO_PREALLOC);
FL_MAP(fl_prefixes_v1, BPF_MAP_TYPE_LPM_TRIE, struct fl_prefix_key, __u64, 16384, BPF_F_NO_PREALLOC);
FL_MAP(fl_policy_v1, BPF_MAP_TYPE_HASH, struct fl_policy_key, struct fl_policy, 262144, BPF_F_NO_PREALLOC);
FL_MAP(fl_pods_v1, BPF_MAP_TYPE_HASH, struct fl_addr, struct fl_pod, 4096, BPF_F_NO_PREALLOC);
FL_MAP(fl_settings_v1, BPF_MAP_TYPE_ARRAY, __u32, struct fl_settings, 1, 0);
FL_MAP(fl_conntrack_v1, BPF_MAP_TYPE_LRU_HASH, struct fl_tuple, struct fl_conn, 262144, 0);

/* Only so that they are described to Go. */
const enum fl_reason *unused_reason __attribute__((unused));
const enum fl_action *unused_action __attribute__((unused));
const enum fl_path *unused_path __attribute__((unused));
const enum fl_side *unused_side __attribute__((unused));
const enum fl_direction *unused_direction __attribute__((unused));

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

struct verdict {
	__u64 class;
	__u64 set;
	__u64 rule;
	__u16 port;
};

static __always_inline void report(struct __sk_buff *skb, const struct fl_packet *p, __u8 reason, __u8 direction,
				   const struct verdict *v)
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
	if (v) {
		e->class = v->class;
		e->set = v->set;
		e->rule = v->rule;
		e->port = v->port;
	}
	bpf_ringbuf_submit(e, 0);
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
	__u64 *class;

	if (a) {
		*flags = a->flags;
		return a->class;
	}
	*flags = 0;
	class = bpf_map_lookup_elem(&fl_prefixes_v1, &key);
	return class ? *class : 0;
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

	return p->t.proto == IPPROTO_TCP && port >= FL_PORT_CHECKED && port < FL_PORT_UNCHECKED;
}

/*
 * Hands a connection to a socket. The reference is released here. TIME_WAIT
 * sockets are assigned like others, also for a SYN: they know whether it may
 * open the tuple anew.
 */
static __always_inline int assign(struct __sk_buff *skb, const struct fl_packet *p, struct bpf_sock *sk, __u8 direction)
{
	long err = bpf_sk_assign(skb, sk, 0);

	bpf_sk_release(sk);
	if (err)
		return drop(skb, p, FL_DROP_ASSIGN, direction, NULL);
	skb->mark = (skb->mark & ~FL_MARK_MASK) | FL_MARK_TO_PROXY;
	return TCX_NEXT;
}

/* The socket that a packet of the tuple is for, or whoever listens on a port of loopback. */
static __always_inline struct bpf_sock *lookup(struct __sk_buff *skb, bool v6, const struct fl_tuple *of, bool listener,
					       __u16 port)
{
	struct bpf_sock_tuple t = {};

	if (v6) {
		__builtin_memcpy(t.ipv6.saddr, &of->saddr, 16);
		t.ipv6.sport = of->sport;
		if (listener) {
			t.ipv6.daddr[3] = bpf_htonl(1);
			t.ipv6.dport = bpf_htons(port);
		} else {
			__builtin_memcpy(t.ipv6.daddr, &of->daddr, 16);
			t.ipv6.dport = of->dport;
		}
		return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	t.ipv4.saddr = of->saddr.w[3];
	t.ipv4.sport = of->sport;
	t.ipv4.daddr = listener ? bpf_htonl(INADDR_LOOPBACK) : of->daddr.w[3];
	t.ipv4.dport = listener ? bpf_htons(port) : of->dport;
	return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
}

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

/*
 * Whether a SYN must not go to the socket in TIME_WAIT that has its tuple. Such a
 * socket passes it on to whoever listens at its address, also a process of the node
 * at any address; for what is redirected that is nobody's to take.
 */
static __always_inline bool would_stray(struct __sk_buff *skb, const struct fl_packet *p)
{
	struct fl_conn *c = recall(&p->t);
	struct fl_tuple t = p->t;
	struct bpf_sock *sk;
	bool found;

	if (!c || c->path != FL_PROXIED)
		return false;
	t.sport = 0; /* of no connection */
	sk = lookup(skb, p->v6, &t, false, 0);
	if (!sk)
		return false;
	found = sk->state == TCP_LISTEN;
	bpf_sk_release(sk);
	return found;
}

/* Hands the packet to the socket of the proxy, or of the node, that has this connection. */
static __always_inline bool to_socket(struct __sk_buff *skb, const struct fl_packet *p, __u8 direction, int *ret)
{
	struct bpf_sock *sk = lookup(skb, p->v6, &p->t, false, 0);

	if (!sk)
		return false;
	if (sk->state == TCP_LISTEN) {
		bpf_sk_release(sk);
		return false;
	}
	if (sk->state == TCP_TIME_WAIT && is_open(p) && would_stray(skb, p)) {
		bpf_sk_release(sk);
		*ret = drop(skb, p, FL_DROP_ASSIGN, direction, NULL);
		return true;
	}
	count(FL_OK_SOCKET);
	*ret = assign(skb, p, sk, direction);
	return true;
}

/* Hands the packet to whoever listens on the proxy port, or on its standby. Nobody: dropped. */
static __always_inline int to_proxy(struct __sk_buff *skb, const struct fl_packet *p, __u16 port, __u8 direction,
				    const struct verdict *v)
{
	__u32 zero = 0;
	struct fl_settings *s = bpf_map_lookup_elem(&fl_settings_v1, &zero);
	struct bpf_sock *sk = NULL;

	if (port)
		sk = lookup(skb, p->v6, &p->t, true, port);
	if (!sk && port && s && s->standby)
		sk = lookup(skb, p->v6, &p->t, true, port + s->standby);
	if (!sk)
		return drop(skb, p, FL_DROP_NO_PROXY, direction, v);
	if (sk->state != TCP_LISTEN) {
		bpf_sk_release(sk);
		return drop(skb, p, FL_DROP_NO_PROXY, direction, v);
	}
	return assign(skb, p, sk, direction);
}

/* Redirects a new connection. */
static __always_inline int open_to_proxy(struct __sk_buff *skb, const struct fl_packet *p, __u8 reason, __u8 direction,
					 const struct verdict *v)
{
	int ret;

	remember(&p->t, FL_PROXIED, v->port);
	ret = to_proxy(skb, p, v->port, direction, v);
	if (ret == TCX_NEXT) {
		count(reason);
		report(skb, p, reason, direction, v);
	}
	return ret;
}

/*
 * The inbound port, if a new connection to a pod of this node must pass it: its
 * policy needs the request, and no proxy that we believe has seen it. believed
 * says whether a checked source port may be.
 */
static __always_inline bool wants_inbound(const struct fl_packet *p, const struct fl_pod *to, bool believed,
					  struct verdict *v)
{
	__u32 zero = 0, flags, action;
	struct fl_settings *s;

	if (!to->set)
		return false;
	v->class = classify(&p->t.saddr, &flags);
	v->set = to->set;
	action = judge(v, p->t.dport, IPPROTO_TCP);
	if (action != FL_CHECK && action != FL_REFUSE)
		return false;
	if (action == FL_CHECK && believed && (flags & FL_ADDR_MANAGED) && is_checked(p))
		return false;
	s = bpf_map_lookup_elem(&fl_settings_v1, &zero);
	v->port = s ? s->inbound_port : 0;
	return true;
}

/* The port that a captured pod's request to this service goes to, 0 if to none. */
static __always_inline __u16 outbound_port(const struct fl_packet *p, const struct fl_pod *from)
{
	struct fl_svc_key key = { .addr = p->t.daddr, .port = p->t.dport, .proto = IPPROTO_TCP };
	struct fl_svc *svc;

	if (!from->http_port)
		return 0;
	svc = bpf_map_lookup_elem(&fl_services_v1, &key);
	return svc && (svc->flags & FL_SVC_PROXY_HTTP) ? from->http_port : 0;
}

static __always_inline int opened_by_pod(struct __sk_buff *skb, struct fl_packet *p, const struct fl_pod *from)
{
	struct verdict v = {};
	struct fl_pod *to;

	if (bpf_ntohs(p->t.sport) >= FL_PORT_CHECKED)
		return drop(skb, p, FL_DROP_RESERVED_PORT, FL_FROM_POD, NULL);
	v.port = outbound_port(p, from);
	if (v.port)
		return open_to_proxy(skb, p, FL_OK_OUTBOUND, FL_FROM_POD, &v);
	to = bpf_map_lookup_elem(&fl_pods_v1, &p->t.daddr);
	if (to && wants_inbound(p, to, false, &v))
		return open_to_proxy(skb, p, FL_OK_INBOUND, FL_FROM_POD, &v);
	remember(&p->t, FL_DIRECT, 0);
	count(FL_OK_DIRECT);
	report(skb, p, FL_OK_DIRECT, FL_FROM_POD, &v);
	return TCX_NEXT;
}

/* The entry of a flow that was let into the sender of the packet. */
static __always_inline struct fl_conn *recall_served(const struct fl_packet *p)
{
	struct fl_tuple back;

	reverse(&p->t, &back);
	back.side = FL_SERVED;
	return recall(&back);
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
		return to_proxy(skb, p, c->port, FL_FROM_POD, NULL);
	return TCX_NEXT;
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

static __always_inline bool is_loopback(const struct fl_addr *a)
{
	if (is_v4(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1);
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
	pod = bpf_map_lookup_elem(&fl_pods_v1, &p.t.saddr);
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

/*
 * An ICMP error about what the proxy sent in a pod's name is the proxy's: without it
 * the proxy would not learn the path's MTU.
 */
static __always_inline int error_from_net(struct __sk_buff *skb, const struct fl_packet *p)
{
	struct fl_tuple back;
	struct bpf_sock *sk;
	bool live;

	if (p->quoted.proto != IPPROTO_TCP || !same_addr(&p->quoted.saddr, &p->t.daddr))
		return TCX_NEXT;
	reverse(&p->quoted, &back);
	sk = lookup(skb, p->v6, &back, false, 0);
	if (!sk)
		return TCX_NEXT;
	live = sk->state != TCP_LISTEN;
	bpf_sk_release(sk);
	if (live) {
		count(FL_OK_SOCKET);
		skb->mark = (skb->mark & ~FL_MARK_MASK) | FL_MARK_TO_PROXY;
	}
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
	if (same_addr(&p.t.saddr, &self) || bpf_map_lookup_elem(&fl_pods_v1, &p.t.saddr))
		return drop(skb, &p, FL_DROP_SPOOFED, FL_FROM_NET, NULL);
	if (is_loopback(&p.t.daddr)) /* where the proxy listens; the kernel may be told to take it in */
		return drop(skb, &p, FL_DROP_LOOPBACK, FL_FROM_NET, NULL);
	pod = bpf_map_lookup_elem(&fl_pods_v1, &p.t.daddr);
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
			return to_proxy(skb, &p, c->port, FL_FROM_NET, NULL);
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
		if (action == FL_ALLOW || action == FL_CHECK) {
			count(FL_OK_ALLOWED);
			return TCX_NEXT;
		}
	}
	return drop(skb, p, FL_DROP_POLICY, FL_TO_POD, &v);
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
	bool local = !skb->ingress_ifindex;

	v->class = classify(&p->t.saddr, flags);
	v->set = pod->set;
	*ok = FL_OK_ALLOWED;
	if (!pod->set)
		return 0;
	if (local && (*flags & FL_ADDR_NODE) && is_probe(pod, p)) {
		*ok = FL_OK_PROBE;
		return 0;
	}
	switch (judge_packet(v, p)) {
	case FL_ALLOW:
		return 0;
	case FL_CHECK:
		*ok = FL_OK_CHECKED;
		if (is_checked(p) &&
		    (local ? (skb->mark & FL_MARK_MASK) == FL_MARK_FROM_PROXY : (*flags & FL_ADDR_MANAGED) != 0))
			return 0;
		return FL_DROP_UNCHECKED;
	}
	return FL_DROP_POLICY;
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

/* Whether a socket of the node, which took the place of the pod's, has this connection. */
static __always_inline bool has_socket(struct __sk_buff *skb, const struct fl_packet *p)
{
	struct bpf_sock *sk = lookup(skb, p->v6, &p->t, false, 0);
	bool live;

	if (!sk)
		return false;
	live = sk->state != TCP_LISTEN;
	bpf_sk_release(sk);
	return live;
}

/*
 * Whether what a process of the node sends is for the proxy. Either the proxy has
 * the other end in the pod's name: it dialled a server of the node itself, or was
 * given the connection. Or the packet opens a connection that the proxy has to see.
 * reason says why it may not go in as it is, 0 if it may.
 */
static __always_inline bool is_for_proxy(struct __sk_buff *skb, const struct fl_packet *p, const struct fl_pod *pod,
					 __u32 flags, __u8 reason)
{
	struct verdict v = {};

	if (skb->ingress_ifindex || p->t.proto != IPPROTO_TCP)
		return false;
	if (is_open(p))
		return reason && wants_inbound(p, pod, false, &v);
	return (reason || (flags & FL_ADDR_NODE)) && has_socket(skb, p);
}

/* Sends the packet into the node by loopback, whose link-layer address is zero. */
static __always_inline int turn_back(struct __sk_buff *skb)
{
	const __u8 zero[6] = {};

	if (bpf_skb_store_bytes(skb, 0, zero, sizeof(zero), 0))
		return TCX_DROP;
	skb->mark = (skb->mark & ~FL_MARK_MASK) | FL_MARK_TURNED;
	return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
}

/*
 * What to_pod turned back. Its source is the node's own: the host takes that in by
 * loopback alone, and if accept_local is set there.
 */
SEC("tcx/ingress")
int fl_from_node(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	struct verdict v = {};
	struct fl_pod *pod;
	int ret;

	if ((skb->mark & FL_MARK_MASK) != FL_MARK_TURNED)
		return TCX_NEXT;
	parse(skb, &p);
	if (p.kind != FL_IP || p.fragment || p.t.proto != IPPROTO_TCP)
		return TCX_NEXT;
	pod = bpf_map_lookup_elem(&fl_pods_v1, &p.t.daddr);
	if (!pod)
		return TCX_NEXT;
	if (to_socket(skb, &p, FL_TO_POD, &ret))
		return ret;
	if (is_open(&p) && wants_inbound(&p, pod, false, &v))
		return open_to_proxy(skb, &p, FL_OK_INBOUND, FL_TO_POD, &v);
	return drop(skb, &p, FL_DROP_UNCHECKED, FL_TO_POD, &v);
}

SEC("tcx/egress")
int fl_to_pod(struct __sk_buff *skb)
{
	struct fl_packet p = {};
	struct verdict v = {};
	struct fl_addr self;
	struct fl_pod *pod;
	__u8 reason, ok;
	__u32 flags;

	parse(skb, &p);
	if (p.kind == FL_OTHER || p.kind == FL_NEIGHBOUR)
		return TCX_NEXT;
	if (p.kind == FL_NESTED)
		return drop(skb, &p, FL_DROP_EXTENSION, FL_TO_POD, NULL);
	if (p.kind == FL_BROKEN)
		return drop(skb, &p, p.reason, FL_TO_POD, NULL);
	pod = bpf_map_lookup_elem(&fl_pods_v1, &p.t.daddr);
	if (!pod || pod->ifindex != skb->ifindex)
		return drop(skb, &p, FL_DROP_UNKNOWN_POD, FL_TO_POD, NULL);
	if (p.kind == FL_ICMP_ERROR)
		return icmp_error_to_pod(skb, &p, pod);
	if (p.fragment) {
		/* It has no ports, and might overwrite what the first fragment was judged by. */
		if (pod->set)
			return drop(skb, &p, FL_DROP_FRAGMENT, FL_TO_POD, NULL);
		return TCX_NEXT;
	}
	if (is_reply(&p)) {
		count(FL_OK_REPLY);
	} else {
		reason = admit(skb, &p, pod, &v, &ok, &flags);
		if (is_for_proxy(skb, &p, pod, flags, reason))
			return turn_back(skb);
		if (reason)
			return refuse(skb, &p, reason, &v);
		count(ok);
		if (is_new(&p))
			report(skb, &p, ok, FL_TO_POD, &v);
	}
	if (same_addr(&p.t.saddr, &p.t.daddr)) {
		self_addr(p.v6, &self);
		if (!rewrite_addr(skb, &p, true, &self))
			return drop(skb, &p, FL_DROP_SPOOFED, FL_TO_POD, NULL);
	}
	return TCX_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
