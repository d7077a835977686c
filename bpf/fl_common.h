/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Maps and helpers that every program shares. */
#ifndef FL_COMMON_H
#define FL_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>
/* Without it clang merges context reads of two branches into one that the verifier
 * rejects ("modified ctx ptr").
 */
#pragma clang attribute push(__attribute__((preserve_static_offset)), apply_to = record)
#include <linux/bpf.h>
#pragma clang attribute pop
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "fl_types.h"

/* Sizes are set by the loader before the maps are made. */
#define FL_MAP(name, kind, k, v, n, f)              \
	struct {                                    \
		__uint(type, kind);                 \
		__uint(max_entries, n);             \
		__type(key, k);                     \
		__type(value, v);                   \
		__uint(map_flags, f);               \
		__uint(pinning, LIBBPF_PIN_BY_NAME); \
	} name SEC(".maps")

FL_MAP(fl_services_v2, BPF_MAP_TYPE_HASH, struct fl_svc_key, struct fl_svc, 65536, BPF_F_NO_PREALLOC);
FL_MAP(fl_ranges_v1, BPF_MAP_TYPE_LPM_TRIE, struct fl_range_key, __u32, 16384, BPF_F_NO_PREALLOC);
FL_MAP(fl_addresses_v1, BPF_MAP_TYPE_HASH, struct fl_addr, struct fl_address, 131072, BPF_F_NO_PREALLOC);
FL_MAP(fl_prefixes_v2, BPF_MAP_TYPE_LPM_TRIE, struct fl_prefix_key, struct fl_address, 16384, BPF_F_NO_PREALLOC);
FL_MAP(fl_pods_v3, BPF_MAP_TYPE_HASH, struct fl_addr, struct fl_pod, 4096, BPF_F_NO_PREALLOC);
FL_MAP(fl_captured_v1, BPF_MAP_TYPE_HASH, __u64, __u32, 4096, BPF_F_NO_PREALLOC);
FL_MAP(fl_counters_v1, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, FL_REASONS, 0);

#define FL_EVENTS_SIZE (1 << 20)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FL_EVENTS_SIZE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} fl_events_v1 SEC(".maps");

/*
 * To wake the reader costs the packet more than all the rest. It looks by itself every
 * 20 ms, and is woken before that only where events are so many that they could get lost.
 */
static __always_inline void submit(struct fl_event *e)
{
	bool many = bpf_ringbuf_query(&fl_events_v1, BPF_RB_AVAIL_DATA) > FL_EVENTS_SIZE / 4;

	bpf_ringbuf_submit(e, many ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

static __always_inline void count(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&fl_counters_v1, &reason);

	if (n)
		(*n)++;
}

static __always_inline bool same_addr(const struct fl_addr *a, const struct fl_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline void map_v4(struct fl_addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline void unspecified(bool v6, struct fl_addr *a)
{
	map_v4(a, 0);
	if (v6)
		a->w[2] = 0;
}

static __always_inline bool is_v4(const struct fl_addr *a)
{
	return !a->w[0] && !a->w[1] && a->w[2] == bpf_htonl(0xffff);
}

/* Whether an address is a pod's or a node's, as far as that can be known. */
static __always_inline bool is_somebodys(const struct fl_addr *addr)
{
	struct fl_prefix_key key = { .bits = 128, .addr = *addr };
	struct fl_address *in;

	if (bpf_map_lookup_elem(&fl_addresses_v1, addr))
		return true;
	in = bpf_map_lookup_elem(&fl_prefixes_v2, &key);
	return in && (in->flags & FL_ADDR_UNASSIGNED);
}

/*
 * The flags of the service that captured clients get at an address and port, by itself, by
 * the range that it is in, or because it is nobody's; false if there is none.
 */
static __always_inline bool is_served(const struct fl_svc_key *at, __u32 *flags)
{
	struct fl_range_key range = { .bits = 160, .port = at->port, .proto = at->proto, .addr = at->addr };
	struct fl_svc_key any = *at;
	struct fl_svc *svc = bpf_map_lookup_elem(&fl_services_v2, at);
	__u32 *in;

	if (svc) {
		*flags = svc->flags;
		return true;
	}
	in = bpf_map_lookup_elem(&fl_ranges_v1, &range);
	if (!in) {
		unspecified(!is_v4(&at->addr), &any.addr);
		svc = bpf_map_lookup_elem(&fl_services_v2, &any);
		if (!svc)
			return false;
	}
	if (is_somebodys(&at->addr))
		return false;
	*flags = in ? *in : svc->flags;
	return true;
}

static __always_inline bool is_loopback(const struct fl_addr *a)
{
	if (is_v4(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1);
}

#endif
