/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Map layouts and constants, shared by all programs and, through BTF, with Go.
 * Addresses are 16 bytes, v4 as v4-mapped v6; ports are in network order unless a
 * comment says otherwise. Every struct is padded by hand. A changed layout needs a
 * new map name.
 */
#ifndef FL_TYPES_H
#define FL_TYPES_H

struct fl_addr {
	__u32 w[4];
};

/* --- services: fl_services_v2 --- */

struct fl_svc_key {
	struct fl_addr addr;
	__u16 port;
	__u8 proto; /* IPPROTO_TCP, IPPROTO_UDP */
	__u8 pad;
};

/*
 * Who balances a service: the kernel, or one of the proxy's listeners of the client.
 * FL_MODE_ANY and its like are of services at the unspecified address, which stands for
 * every address that is no pod's, no node's and no service's at that port.
 */
enum fl_mode {
	FL_MODE_KERNEL,
	FL_MODE_HTTP,
	FL_MODE_TLS,
	FL_MODE_OPAQUE,
	FL_MODE_ANY,
	FL_MODE_DETECT,
	FL_MODE_DETECT2,
	FL_MODE_DETECT3,
	FL_MODE_ANY_DETECT,
	FL_MODE_ANY_OPAQUE,
	FL_MODES,
};

#define FL_MODE_ROOM  12       /* for modes, in fl_pod */
#define FL_POD_INBOUND 11      /* of these, what is no mode: the inbound port of the pod's own proxy */
#define FL_SVC_MODE   0xf      /* bits of enum fl_mode */
#define FL_SVC_DIRECT (1 << 4) /* not balanced: who is not redirected gets to where it dials */
#define FL_SVC_ROUTED (1 << 5) /* of FL_MODE_KERNEL: captured clients have backends of their own */

struct fl_svc {
	__u32 id;	/* generation of the slots: new backends, new id */
	__u32 slots;	/* 0: no backend */
	__u32 affinity; /* seconds; 0: off */
	__u32 flags;
	__u32 routed_id; /* those of FL_SVC_ROUTED */
	__u32 routed_slots;
};

/* --- services by ranges of addresses that are no pod's, no node's and no other service's: fl_ranges_v1 (LPM) --- */

struct fl_range_key {
	__u32 bits; /* 32, of port and protocol, and those of the 16-byte address */
	__u16 port;
	__u8 proto;
	__u8 pad;
	struct fl_addr addr;
};

/* value: __u32, flags of fl_svc */

/* --- backends: fl_slots_v1 --- */

struct fl_slot_key {
	__u32 id;
	__u32 slot;
};

struct fl_backend {
	struct fl_addr addr;
	__u16 port;
	__u16 pad;
};

/* --- what a socket had dialled: fl_reverse_v1 (LRU) --- */

struct fl_rev_key {
	__u64 cookie; /* of the socket */
	struct fl_addr addr;
	__u16 port;
	__u8 proto;
	__u8 pad[5];
};

struct fl_rev {
	struct fl_addr addr;
	__u16 port;
	__u16 pad;
};

/* --- session affinity: fl_affinity_v1 (LRU) --- */

struct fl_aff_key {
	__u64 client; /* cookie of the client's network namespace */
	struct fl_svc_key svc;
	__u32 pad;
};

struct fl_aff {
	struct fl_backend backend;
	__u32 id; /* of the service when it was chosen */
	__u64 seen; /* ktime, ns */
};

/*
 * --- captured clients: fl_captured_v1, key: netns cookie ---
 * value: __u32, bit n-1 for mode n: what it dials in that mode keeps its address, and is
 * redirected
 */

#define FL_OBSERVED   (1u << 29) /* nothing of this is done; what would be is told */
#define FL_ROUTED     (1u << 30) /* routes hold for what the kernel balances, too */
#define FL_KNOWN_ONLY (1u << 31) /* it may connect to services alone, and to itself */

/* --- whose an address is: fl_addresses_v1 --- */

#define FL_ADDR_MANAGED	   (1 << 0) /* pod of a node that runs Fairlead: its proxy's ports can be believed */
#define FL_ADDR_NODE	   (1 << 1) /* a node itself */
#define FL_ADDR_UNASSIGNED (1 << 2) /* of prefixes: inside a node's pod range */
#define FL_ADDR_BEHIND	   (1 << 3) /* with MANAGED: what its proxy checks by may be old; no new connection is believed */

struct fl_address {
	__u64 class;
	__u32 flags;
	__u32 pad;
};

/* --- addresses that are not known one by one: fl_prefixes_v2 (LPM) --- */

struct fl_prefix_key {
	__u32 bits; /* of the 16-byte address */
	struct fl_addr addr;
};

/* value: struct fl_address */

/* --- policy: fl_policy_v1 --- */

#define FL_ANY_CLASS (~0ULL)

struct fl_policy_key {
	__u64 set;
	__u64 class; /* FL_ANY_CLASS: any */
	__u16 port;  /* network order; 0: any, with proto 0 */
	__u8 proto;
	__u8 pad[5];
};

enum fl_action {
	FL_ACTION_NONE,
	FL_ALLOW,
	FL_DENY,
	FL_CHECK,  /* needs the request */
	FL_REFUSE, /* denied, answered by the inbound listener */
	FL_INBOUND, /* needs the request, judged by the inbound listener of this node and nobody else */
};

struct fl_policy {
	__u64 rule;
	__u32 action;
	__u32 pad;
};

/* --- local pods: fl_pods_v3 --- */

#define FL_PROBE_PORTS 8

#define FL_POD_OBSERVED (1 << 0) /* what its policy would refuse, or have the proxy see, goes in; it is told */
#define FL_POD_SETTLING (1 << 2) /* was observed until now: what is open may go on without the proxy */
#define FL_POD_DIRECT	(1 << 1) /* what it sends goes where it dials; which of it would be redirected is told */

struct fl_pod {
	__u64 set;	/* 0: nobody governs it */
	__u64 netns;	/* cookie of its network namespace, of FL_KNOWN_ONLY; 0: not said */
	__u32 ifindex;	/* of the host's end of its veth */
	__u32 flags;
	/*
	 * Outbound proxy ports by mode, in host order, of bank 0. 0: not redirected; of
	 * FL_MODE_HTTP: not captured; of FL_MODE_KERNEL: always. At FL_POD_INBOUND is where
	 * connections to the pod go that a proxy has to judge; 0: to the settings' port.
	 */
	__u16 ports[FL_MODE_ROOM];
	__u16 probes[FL_PROBE_PORTS]; /* network order; 0 ends */
};

/* --- bridges of the node, by the index of a port that is a local pod's: fl_bridges_v1 --- */

struct fl_bridge {
	__u32 ifindex;
	__u8 mac[6];
	__u8 pad[2];
};

/* --- settings that change at run time: fl_settings_v1 (array of 1) --- */

struct fl_settings {
	__u16 inbound_port; /* host order; 0: none */
	__u16 pad[3];
};

/*
 * --- the bank in use: fl_bank_v1 (array of 1), value: __u32, 0 or 1 ---
 * Two proxies run side by side while one follows the other. The listeners of bank 1
 * have the ports of bank 0 and this many more. It is the proxy's to write, as the
 * settings are the agent's.
 */
enum fl_bank {
	FL_BANK_OFFSET = 1000,
};

/*
 * --- the banks in use of proxies that a namespace has of its own: fl_ownbanks_v1 (array) ---
 * Each has the ports of a slot, and its bank is at the slot's number.
 */
enum fl_own {
	FL_OWN_FIRST = 17100, /* port of the first slot */
	FL_OWN_PORTS = 100,   /* of a slot */
	FL_OWN_SLOTS = 9,
};

/* --- connections: fl_conntrack_v1 (LRU) --- */

/*
 * A connection between two pods of a node has two entries: the client's, made when
 * it leaves, and the server's, made when it is let in.
 */
enum fl_side {
	FL_OPENED,
	FL_SERVED,
};

struct fl_tuple {
	struct fl_addr saddr;
	struct fl_addr daddr;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 side;
	__u8 pad[2];
};

enum fl_path {
	FL_PATH_NONE,
	FL_DIRECT,  /* not redirected */
	FL_PROXIED, /* redirected */
	FL_TURNED,  /* likewise, on its way into the pod: the node had forwarded it */
};

struct fl_conn {
	__u64 seen; /* ktime, ns; by a datagram of who opened it */
	__u16 path;
	__u16 port; /* proxy port, host order, of bank 0 */
	__u32 pad;
};

/* --- connections that no proxy has taken yet, by tuple: fl_held_v1 (LRU), key: fl_tuple --- */

struct fl_held {
	__u64 since; /* ktime, ns: the first SYN */
	__be32 seq; /* of it: the same of those that are sent again, and of no other connection */
	__u32 pad;
};

/* --- counters: fl_counters_v1 (per-CPU array), and reasons of events --- */

enum fl_reason {
	FL_OK_DIRECT,
	FL_OK_OUTBOUND,	 /* redirected to the client's proxy port */
	FL_OK_INBOUND,	 /* redirected to the node's inbound port */
	FL_OK_SOCKET,	 /* belongs to a socket of the proxy or the node */
	FL_OK_REPLY,
	FL_OK_ALLOWED,	 /* by policy */
	FL_OK_CHECKED,	 /* by a proxy */
	FL_OK_PROBE,
	FL_OK_BALANCED,	 /* socket load balancing chose a backend */
	FL_DROP_POLICY,
	FL_DROP_UNCHECKED, /* needs a proxy and did not pass one */
	FL_DROP_SPOOFED,
	FL_DROP_RESERVED_PORT,
	FL_DROP_TRUNCATED,
	FL_DROP_EXTENSION,  /* headers that are not walked: IPv6 extensions, a VLAN tag in a VLAN tag */
	FL_DROP_FRAGMENT,
	FL_DROP_NO_PROXY,   /* nobody listens on the proxy port, in neither bank */
	FL_DROP_ASSIGN,	    /* the kernel refused the socket */
	FL_DROP_LOOPBACK,
	FL_MAP_FULL,	    /* a flow could not be remembered: its replies will be judged as new */
	FL_DROP_NO_BACKEND,
	FL_DROP_UNKNOWN_POD,
	FL_EVENT_LOST,
	FL_OK_OBSERVED, /* let in though policy would not; of counters alone */
	FL_DROP_PROXY_ABSENT, /* nobody listens on the proxy port, for as long as a connection is held: refused */
	FL_REASONS,
};

enum fl_direction {
	FL_FROM_POD,
	FL_FROM_NET,
	FL_TO_POD,
	FL_CONNECT,
};

#define FL_COMM 16

#define FL_EVENT_OBSERVED (1 << 0) /* did not happen: the pod is observed */

/* --- events: fl_events_v1 (ring buffer) --- */

struct fl_event {
	__u64 time; /* ktime, ns */
	__u64 class;
	__u64 set; /* for FL_CONNECT: the cookie of the client's network namespace */
	__u64 rule;
	struct fl_tuple tuple; /* for FL_CONNECT: daddr is what was dialled, saddr what was chosen */
	__u32 ifindex;
	__u16 port; /* proxy port, host order, of bank 0 */
	__u8 reason;
	__u8 direction;
	__u32 pid;
	__u32 flags;
	char comm[FL_COMM];
};

#endif
