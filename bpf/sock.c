//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Socket load balancing: what a process of the node dials by a service's address
 * is turned into a backend's at connect() or sendmsg(), once, and shown as the
 * service again by getpeername() and recvmsg().
 *
 * A service that the proxy balances keeps its address for clients whose traffic a
 * program on their veth will redirect; everyone else is balanced here at once. Routes are
 * for captured clients alone: where those of a service are this program's to follow, it
 * has backends for them and others for everyone else. A captured client that is observed
 * is as everyone else; of its connections is told what would have become of them.
 */
#include "fl_common.h"

#define SOCK_STREAM 1

#define ECONNREFUSED 111

FL_MAP(fl_slots_v1, BPF_MAP_TYPE_HASH, struct fl_slot_key, struct fl_backend, 262144, BPF_F_NO_PREALLOC);
FL_MAP(fl_reverse_v1, BPF_MAP_TYPE_LRU_HASH, struct fl_rev_key, struct fl_rev, 131072, 0);
FL_MAP(fl_affinity_v1, BPF_MAP_TYPE_LRU_HASH, struct fl_aff_key, struct fl_aff, 65536, 0);

/* Only so that it is described to Go. */
const struct fl_event *unused_event __attribute__((unused));

/*
 * By the socket's type: an MPTCP socket's protocol is not TCP's. It connects by another
 * socket of the kernel's, so what it dialled is not found by its cookie, and its
 * getpeername() shows the backend.
 */
static __always_inline __u8 transport(struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
}

static __always_inline void dialled(struct bpf_sock_addr *ctx, bool v6, struct fl_addr *a)
{
	if (v6) {
		a->w[0] = ctx->user_ip6[0];
		a->w[1] = ctx->user_ip6[1];
		a->w[2] = ctx->user_ip6[2];
		a->w[3] = ctx->user_ip6[3];
	} else {
		map_v4(a, ctx->user_ip4);
	}
}

static __always_inline void replace(struct bpf_sock_addr *ctx, bool v6, const struct fl_addr *a, __be16 port)
{
	if (v6) {
		ctx->user_ip6[0] = a->w[0];
		ctx->user_ip6[1] = a->w[1];
		ctx->user_ip6[2] = a->w[2];
		ctx->user_ip6[3] = a->w[3];
	} else {
		ctx->user_ip4 = a->w[3];
	}
	ctx->user_port = port;
}

static __always_inline void report(struct bpf_sock_addr *ctx, struct fl_svc_key *svc, const struct fl_backend *b,
				   __u8 reason, __u32 flags)
{
	struct fl_event *e = bpf_ringbuf_reserve(&fl_events_v1, sizeof(*e), 0);

	if (!e) {
		count(FL_EVENT_LOST);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->set = bpf_get_netns_cookie(ctx);
	e->tuple.daddr = svc->addr;
	e->tuple.dport = svc->port;
	e->tuple.proto = svc->proto;
	if (b) {
		e->tuple.saddr = b->addr;
		e->tuple.sport = b->port;
	}
	e->reason = reason;
	e->direction = FL_CONNECT;
	e->flags = flags;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	submit(e);
}

/*
 * The backend of a client that the service keeps on one, if it was chosen not too
 * long ago from the backends of now. After a change of backends everyone is
 * balanced anew: a backend of the last generation may be gone.
 */
static __always_inline bool remembered(struct fl_aff_key *key, __u32 id, __u32 affinity, struct fl_backend *out)
{
	struct fl_aff *a = bpf_map_lookup_elem(&fl_affinity_v1, key);
	__u64 now = bpf_ktime_get_ns();

	if (!a || a->id != id || now - a->seen > (__u64)affinity * 1000000000ULL)
		return false;
	a->seen = now;
	*out = a->backend;
	return true;
}

/* What is known of a captured client, 0 of others. */
static __always_inline __u32 capture_of(__u64 client)
{
	__u32 *captured = bpf_map_lookup_elem(&fl_captured_v1, &client);

	return captured ? *captured : 0;
}

/* Whether a captured client's connections to the service are redirected on their way. */
static __always_inline bool is_captured(__u32 captured, const struct fl_svc *svc)
{
	__u32 mode = svc->flags & FL_SVC_MODE;

	return mode != FL_MODE_KERNEL && (captured & (1u << (mode - 1)));
}

/* Whether a captured client gets the backends that the service has for such. */
static __always_inline bool is_routed(__u32 captured, const struct fl_svc *svc)
{
	return (svc->flags & FL_SVC_ROUTED) && (captured & FL_ROUTED);
}

/* One of the client's backends of a service; NULL if it has none. */
static __always_inline struct fl_backend *draw(const struct fl_svc *svc, bool routed, __u32 number, __u32 *id)
{
	struct fl_slot_key slot = { .id = routed ? svc->routed_id : svc->id };
	__u32 slots = routed ? svc->routed_slots : svc->slots;

	*id = slot.id;
	if (!slots)
		return NULL;
	slot.slot = number % slots;
	return bpf_map_lookup_elem(&fl_slots_v1, &slot);
}

/* Refuses as a machine does on which nobody listens: clients know what to make of that. */
static __always_inline int nobody(struct bpf_sock_addr *ctx, struct fl_svc_key *key)
{
	count(FL_DROP_NO_BACKEND);
	report(ctx, key, NULL, FL_DROP_NO_BACKEND, 0);
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

/*
 * Whether a client that may connect to services alone dials something else: neither what
 * captured clients are served at, nor itself.
 */
static __always_inline bool is_forbidden(__u64 client, __u32 captured, const struct fl_svc_key *at)
{
	struct fl_addr self;
	struct fl_pod *pod;
	__u32 flags;

	unspecified(!is_v4(&at->addr), &self); /* who dials no address means himself */
	if (!(captured & FL_KNOWN_ONLY) || at->proto != IPPROTO_TCP)
		return false;
	if (is_loopback(&at->addr) || same_addr(&at->addr, &self) || is_served(at, &flags))
		return false;
	pod = bpf_map_lookup_elem(&fl_pods_v3, &at->addr);
	return !pod || pod->netns != client;
}

/*
 * Returns 1 to go on, 0 to refuse. A datagram socket that is not
 * connected keeps its backend: the slot comes from the socket's cookie.
 */
static __always_inline int balance(struct bpf_sock_addr *ctx, bool v6, bool connect)
{
	struct fl_svc_key key = {};
	struct fl_aff_key aff = {};
	struct fl_backend chosen = {};
	struct fl_rev_key rk = {};
	struct fl_backend *b;
	struct fl_rev rev = {};
	struct fl_svc *svc;
	__u32 id, number, captured, told = 0;
	__u8 reason = FL_OK_BALANCED;
	__u64 client, cookie;
	bool routed, observed;

	dialled(ctx, v6, &key.addr);
	key.port = (__u16)ctx->user_port;
	key.proto = transport(ctx);
	svc = bpf_map_lookup_elem(&fl_services_v2, &key);
	client = bpf_get_netns_cookie(ctx);
	captured = capture_of(client);
	observed = captured & FL_OBSERVED;
	if (!svc && is_forbidden(client, captured, &key)) {
		if (!observed)
			return nobody(ctx, &key);
		report(ctx, &key, NULL, FL_DROP_NO_BACKEND, FL_EVENT_OBSERVED);
	}
	if (!svc || (svc->flags & FL_SVC_DIRECT))
		return 1;
	if (is_captured(captured, svc)) {
		if (!observed)
			return 1;
		reason = FL_OK_OUTBOUND;
		told = FL_EVENT_OBSERVED;
	}
	cookie = bpf_get_socket_cookie(ctx);
	aff.client = client;
	aff.svc = key;
	routed = is_routed(captured, svc);
	if (routed && observed) {
		routed = false;
		told = FL_EVENT_OBSERVED;
	}
	id = routed ? svc->routed_id : svc->id;
	if (!svc->affinity || !remembered(&aff, id, svc->affinity, &chosen)) {
		number = connect ? bpf_get_prandom_u32() : (__u32)((cookie * 0x9e3779b97f4a7c15ULL) >> 32);
		b = draw(svc, routed, number, &id);
		if (!b) { /* replaced under our feet: the service's new generation is there by now */
			svc = bpf_map_lookup_elem(&fl_services_v2, &key);
			if (svc)
				b = draw(svc, is_routed(captured, svc) && !observed, number, &id);
		}
		if (!b || !svc)
			return nobody(ctx, &key);
		chosen = *b;
		if (svc->affinity) {
			struct fl_aff v = { .backend = chosen, .id = id, .seen = bpf_ktime_get_ns() };

			bpf_map_update_elem(&fl_affinity_v1, &aff, &v, BPF_ANY);
		}
	}
	if (!v6 && !is_v4(&chosen.addr)) /* has no room for it */
		return nobody(ctx, &key);
	rk.cookie = cookie;
	rk.addr = chosen.addr;
	rk.port = chosen.port;
	rk.proto = key.proto;
	rev.addr = key.addr;
	rev.port = key.port;
	bpf_map_update_elem(&fl_reverse_v1, &rk, &rev, BPF_ANY);
	replace(ctx, v6, &chosen.addr, chosen.port);
	count(FL_OK_BALANCED);
	if (connect)
		report(ctx, &key, &chosen, reason, told);
	return 1;
}

/* Shows the service again where the kernel has the backend. */
static __always_inline int unbalance(struct bpf_sock_addr *ctx, bool v6)
{
	struct fl_rev_key key = {};
	struct fl_rev *rev;

	key.cookie = bpf_get_socket_cookie(ctx);
	dialled(ctx, v6, &key.addr);
	key.port = (__u16)ctx->user_port;
	key.proto = transport(ctx);
	rev = bpf_map_lookup_elem(&fl_reverse_v1, &key);
	if (rev)
		replace(ctx, v6, &rev->addr, rev->port);
	return 1;
}

SEC("cgroup/connect4")
int fl_connect4(struct bpf_sock_addr *ctx)
{
	return balance(ctx, false, true);
}

SEC("cgroup/connect6")
int fl_connect6(struct bpf_sock_addr *ctx)
{
	return balance(ctx, true, true);
}

SEC("cgroup/sendmsg4")
int fl_sendmsg4(struct bpf_sock_addr *ctx)
{
	return balance(ctx, false, false);
}

SEC("cgroup/sendmsg6")
int fl_sendmsg6(struct bpf_sock_addr *ctx)
{
	return balance(ctx, true, false);
}

SEC("cgroup/recvmsg4")
int fl_recvmsg4(struct bpf_sock_addr *ctx)
{
	return unbalance(ctx, false);
}

SEC("cgroup/recvmsg6")
int fl_recvmsg6(struct bpf_sock_addr *ctx)
{
	return unbalance(ctx, true);
}

SEC("cgroup/getpeername4")
int fl_getpeername4(struct bpf_sock_addr *ctx)
{
	return unbalance(ctx, false);
}

SEC("cgroup/getpeername6")
int fl_getpeername6(struct bpf_sock_addr *ctx)
{
	return unbalance(ctx, true);
}

char _license[] SEC("license") = "Dual BSD/GPL";
