/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Redirection: the sockets of the proxy and of the node, which packets are for them,
 * and how they get there.
 */
#ifndef FL_REDIRECT_H
#define FL_REDIRECT_H

#include "fl_flow.h"
#include "fl_packet.h"
#include "fl_policy.h"

#define TCP_TIME_WAIT 6
#define TCP_LISTEN    10

/*
 * How long a connection is held that no proxy takes. A client sends its SYN again a second
 * after the first, and 3 s after it: it is told then, or a little before for its clock's sake.
 */
#define FL_HOLD_NS (2900 * 1000000ULL)

#define LOOPBACK_IFINDEX 1
#define PACKET_HOST	 0

FL_MAP(fl_settings_v1, BPF_MAP_TYPE_ARRAY, __u32, struct fl_settings, 1, 0);
FL_MAP(fl_bank_v1, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);
FL_MAP(fl_ownbanks_v1, BPF_MAP_TYPE_ARRAY, __u32, __u32, FL_OWN_SLOTS, 0);
FL_MAP(fl_bridges_v1, BPF_MAP_TYPE_HASH, __u32, struct fl_bridge, 4096, BPF_F_NO_PREALLOC);
FL_MAP(fl_held_v1, BPF_MAP_TYPE_LRU_HASH, struct fl_tuple, struct fl_held, 16384, 0);

/*
 * Whether the pod's interface is a port of a bridge. The bridge would switch a frame to the
 * port of its address, past the host; what is sent to the bridge itself it hands to the
 * host. On the way it may forget a socket that is assigned (br_netfilter does): the
 * bridge's own program, from_bridge, assigns it.
 */
static __always_inline bool to_bridge(struct __sk_buff *skb, long *err)
{
	__u32 port = skb->ifindex;
	struct fl_bridge *b = bpf_map_lookup_elem(&fl_bridges_v1, &port);

	if (!b)
		return false;
	*err = bpf_skb_store_bytes(skb, 0, b->mac, sizeof(b->mac), 0);
	return true;
}

/*
 * Hands a connection to a socket. The reference is released here. TIME_WAIT
 * sockets are assigned like others, also for a SYN: they know whether it may
 * open the tuple anew.
 */
static __always_inline int assign(struct __sk_buff *skb, const struct fl_packet *p, struct bpf_sock *sk, __u8 direction)
{
	long err;

	if (direction != FL_FROM_POD || !to_bridge(skb, &err))
		err = bpf_sk_assign(skb, sk, 0);
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

	if (!c || c->path == FL_DIRECT)
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

/* How far the ports of the bank in use are above a proxy port. */
static __always_inline __u16 bank_offset(__u16 port)
{
	__u32 slot = 0, *bank;

	if (port < FL_OWN_FIRST) {
		bank = bpf_map_lookup_elem(&fl_bank_v1, &slot);
	} else {
		slot = (__u32)(port - FL_OWN_FIRST) / FL_OWN_PORTS;
		bank = bpf_map_lookup_elem(&fl_ownbanks_v1, &slot);
	}
	return bank && *bank ? FL_BANK_OFFSET : 0;
}

/* Sends the packet into the node by loopback, whose link-layer address is zero. */
static __always_inline int turn_back(struct __sk_buff *skb, __u32 mark)
{
	const __u8 zero[6] = {};

	if (bpf_skb_store_bytes(skb, 0, zero, sizeof(zero), 0))
		return TCX_DROP;
	skb->mark = (skb->mark & ~FL_MARK_MASK) | mark;
	return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
}

/*
 * Whether a connection has been held for as long as one is. One whose first SYN was pushed
 * out of the map is held anew.
 */
static __always_inline bool was_held(struct __sk_buff *skb, const struct fl_packet *p)
{
	struct fl_held *h, now = { .since = bpf_ktime_get_ns() };

	if (bpf_skb_load_bytes(skb, p->l4 + offsetof(struct tcphdr, seq), &now.seq, sizeof(now.seq)))
		return false;
	h = bpf_map_lookup_elem(&fl_held_v1, &p->t);
	if (h && h->seq == now.seq)
		return now.since > h->since + FL_HOLD_NS;
	bpf_map_update_elem(&fl_held_v1, &p->t, &now, BPF_ANY);
	return false;
}

/*
 * No proxy takes the packet: it is dropped, and a client that opens a connection tries
 * again. It is refused when that has lasted, by a RST that goes back where the SYN came from:
 * what was turned back came from the node, which has forwarded it or opened it itself.
 */
static __noinline int without_proxy(struct __sk_buff *skb, struct fl_packet *p, __u8 direction, const struct verdict *v)
{
	if ((p->tcp & TCP_RST) || !was_held(skb, p))
		return drop(skb, p, FL_DROP_NO_PROXY, direction, v);
	drop(skb, p, FL_DROP_PROXY_ABSENT, direction, v);
	if (!make_reset(skb, p))
		return TCX_DROP;
	if (direction != FL_TO_POD)
		return bpf_redirect(skb->ifindex, 0);
	return turn_back(skb, (skb->mark & FL_MARK_MASK) == FL_MARK_FORWARDED ? 0 : FL_MARK_TO_PROXY);
}

/* Who listens on the proxy port in the bank in use, or else in the other; to be released. NULL: nobody. */
static __always_inline struct bpf_sock *listener(struct __sk_buff *skb, const struct fl_packet *p, __u16 port)
{
	__u16 offset = bank_offset(port);
	struct bpf_sock *sk;

	if (!port)
		return NULL;
	sk = lookup(skb, p->v6, &p->t, true, port + offset);
	if (!sk)
		sk = lookup(skb, p->v6, &p->t, true, port + FL_BANK_OFFSET - offset);
	if (sk && sk->state != TCP_LISTEN) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

/* Hands a packet of an open connection to whoever listens: it answers RST. */
static __always_inline int to_proxy(struct __sk_buff *skb, const struct fl_packet *p, __u16 port, __u8 direction)
{
	struct bpf_sock *sk = listener(skb, p, port);

	if (!sk)
		return drop(skb, p, FL_DROP_NO_PROXY, direction, NULL);
	return assign(skb, p, sk, direction);
}

/* Redirects a new connection. */
static __always_inline int open_by(struct __sk_buff *skb, struct fl_packet *p, __u16 path, __u8 reason,
				   __u8 direction, const struct verdict *v)
{
	struct bpf_sock *sk;
	int ret;

	remember(&p->t, path, v->port);
	sk = listener(skb, p, v->port);
	if (!sk)
		return without_proxy(skb, p, direction, v);
	ret = assign(skb, p, sk, direction);
	if (ret == TCX_NEXT) {
		count(reason);
		report(skb, p, reason, direction, v);
	}
	return ret;
}

static __always_inline int open_to_proxy(struct __sk_buff *skb, struct fl_packet *p, __u8 reason, __u8 direction,
					 const struct verdict *v)
{
	return open_by(skb, p, FL_PROXIED, reason, direction, v);
}

/* Where connections to a pod go that a proxy has to judge. */
static __always_inline __u16 inbound_port(const struct fl_pod *to)
{
	__u32 zero = 0;
	struct fl_settings *s;

	if (to->ports[FL_POD_INBOUND])
		return to->ports[FL_POD_INBOUND];
	s = bpf_map_lookup_elem(&fl_settings_v1, &zero);
	return s ? s->inbound_port : 0;
}

/*
 * The inbound port, if a new connection to a pod of this node must pass it: its
 * policy needs the request, and no proxy that we believe has seen it, or none but the
 * inbound listener would do. Or a proxy says that it is for the listener: it knows of a
 * policy that may not have come here yet. To an observed pod nothing else does. believed
 * says whether the source port of a managed node's pod is its proxy's.
 */
static __always_inline bool wants_inbound(const struct fl_packet *p, const struct fl_pod *to, bool believed,
					  struct verdict *v)
{
	__u32 flags, action = FL_ALLOW;

	if (!to->set && !is_for_inbound(p))
		return false;
	v->class = classify(&p->t.saddr, &flags);
	v->set = to->set;
	believed = believed && (flags & FL_ADDR_MANAGED);
	if (to->set)
		action = judge(v, p->t.dport, IPPROTO_TCP);
	if (!(believed && is_for_inbound(p))) {
		if (action != FL_CHECK && action != FL_REFUSE && action != FL_INBOUND)
			return false;
		if (action == FL_CHECK && believed && is_believed(p, flags) && is_checked(p))
			return false;
		if (to->flags & FL_POD_OBSERVED)
			return false;
	}
	v->port = inbound_port(to);
	return true;
}

/* The proxy port that a captured pod's connection goes to, 0 if to none. */
static __always_inline __u16 outbound_port(const struct fl_packet *p, const struct fl_pod *from)
{
	struct fl_svc_key key = { .addr = p->t.daddr, .port = p->t.dport, .proto = IPPROTO_TCP };
	__u32 flags, mode;

	if (!from->ports[FL_MODE_HTTP] || !is_served(&key, &flags))
		return 0;
	mode = flags & FL_SVC_MODE;
	return mode < FL_MODE_ROOM ? from->ports[mode] : 0;
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
 * Whether the proxy answers itself: it dialled a pod of this node in the name of
 * another one, and its own inbound listener took the connection. No pod may open a
 * connection from such a port.
 */
static __always_inline bool is_own_answer(struct __sk_buff *skb, const struct fl_packet *p)
{
	return !skb->ingress_ifindex && p->t.proto == IPPROTO_TCP && !is_open(p) && bpf_ntohs(p->t.dport) >= FL_PORT_CHECKED &&
	       has_socket(skb, p);
}

static __always_inline bool is_from_proxy(const struct __sk_buff *skb)
{
	return !skb->ingress_ifindex && (skb->mark & FL_MARK_MASK) == FL_MARK_FROM_PROXY;
}

/* Whether the proxy's own inbound listener took what the proxy opened, whatever policy says by now. */
static __always_inline bool was_taken(const struct __sk_buff *skb, const struct fl_packet *p)
{
	struct fl_conn *c = is_from_proxy(skb) ? recall(&p->t) : NULL;

	return c && c->path == FL_PROXIED;
}

/*
 * Whether what a process of the node sends is for the proxy. Either the proxy has
 * the other end in the pod's name: it dialled a server of the node itself, or was
 * given the connection. Or the packet opens a connection that the proxy has to see;
 * not what its inbound listener opens, which has seen it and would only see it again.
 * reason says why it may not go in as it is, 0 if it may.
 */
static __always_inline bool is_for_proxy(struct __sk_buff *skb, const struct fl_packet *p, const struct fl_pod *pod,
					 __u32 flags, __u8 reason)
{
	struct verdict v = {};

	if (skb->ingress_ifindex || p->t.proto != IPPROTO_TCP)
		return false;
	if (is_open(p) && is_from_proxy(skb) && is_for_inbound(p))
		return true;
	if (is_open(p))
		return reason && !is_from_inbound(skb) && wants_inbound(p, pod, false, &v);
	return (reason || (flags & FL_ADDR_NODE) || was_taken(skb, p)) && has_socket(skb, p);
}

/*
 * Whether what the node forwards into the pod is for the proxy. No program saw whom it was
 * for before the node translated its address, as that of a node port, or it came by an
 * interface that has none.
 */
static __always_inline bool is_forwarded_for_proxy(struct __sk_buff *skb, const struct fl_packet *p, const struct fl_pod *pod,
						   __u8 reason)
{
	struct verdict v = {};
	struct fl_conn *c;

	if (!skb->ingress_ifindex || p->t.proto != IPPROTO_TCP)
		return false;
	if (is_open(p))
		return reason && wants_inbound(p, pod, false, &v);
	c = recall(&p->t);
	return c && c->path == FL_TURNED && has_socket(skb, p);
}

/*
 * Whether the proxy answers in the pod's name what the node had forwarded to it. The
 * answer enters the node where one of the pod itself would: there the node turns the
 * addresses back that it has translated.
 */
static __always_inline bool is_answer(struct __sk_buff *skb, const struct fl_packet *p, __u32 *ifindex)
{
	struct fl_bridge *bridge;
	struct fl_tuple back;
	struct fl_pod *pod;
	struct fl_conn *c;

	if (skb->ingress_ifindex && skb->ingress_ifindex != LOOPBACK_IFINDEX)
		return false;
	if (p->kind != FL_IP || p->fragment || p->t.proto != IPPROTO_TCP)
		return false;
	pod = bpf_map_lookup_elem(&fl_pods_v3, &p->t.saddr);
	if (!pod)
		return false;
	reverse(&p->t, &back);
	c = recall(&back);
	if (!c || c->path != FL_TURNED)
		return false;
	*ifindex = pod->ifindex;
	bridge = bpf_map_lookup_elem(&fl_bridges_v1, ifindex);
	if (bridge)
		*ifindex = bridge->ifindex;
	return true;
}

static __always_inline int send_answer(struct __sk_buff *skb, __u32 ifindex)
{
	skb->mark = (skb->mark & ~FL_MARK_MASK) | FL_MARK_ANSWER;
	return bpf_redirect(ifindex, BPF_F_INGRESS);
}

/* Whether the packet is such an answer, which has entered by now: it is the host's to have. No pod can set a mark. */
static __always_inline bool take_answer(struct __sk_buff *skb)
{
	if ((skb->mark & FL_MARK_MASK) != FL_MARK_ANSWER)
		return false;
	skb->mark &= ~FL_MARK_MASK;
	bpf_skb_change_type(skb, PACKET_HOST);
	return true;
}

#endif
