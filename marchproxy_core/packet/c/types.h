/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the packet engine and user space share: keys, values, verdicts, reasons.
 *
 * Python reads this file too (marchproxy_core/packet/layout.py, by cffi), so it holds plain declarations only.
 * Addresses and ports are in network byte order. A change of any layout is a change of MP_SCHEMA: tables of one
 * schema are never opened by a program of another. */

enum mp_version {
    MP_SCHEMA = 2
};

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct mp_address {
    uint32_t word[4];
};

/* Which end of a flow a packet comes from. */
enum mp_side {
    MP_FROM_CLIENT,
    MP_FROM_BACKEND
};

/* Where the engine is run; one bit each in the masks called hooks. */
enum mp_hook {
    MP_HOOK_XDP,
    MP_HOOK_TC
};

/* The tables, by number: a program names them so, and the loader knows what is meant (packet/tables.py). */
enum mp_table {
    MP_KEYS,      /* mp_flow_key to mp_flow_ref */
    MP_FLOWS,     /* array of mp_flow */
    MP_FREE,      /* queue of places in it that are free */
    MP_SERVICES,  /* mp_service_key to mp_service */
    MP_PICKS,     /* arrays of mp_picks */
    MP_BACKENDS,  /* array of mp_backend */
    MP_SOURCES,   /* array of mp_address */
    MP_LOADS,     /* array of mp_load, by a service's number */
    MP_COUNTERS,  /* array of mp_counters by twice a service's number plus the hook, one for each CPU */
    MP_SETTINGS,  /* array of one mp_settings */
    MP_PREFIXES,  /* mp_prefix_key to mp_prefix, by the longest that fits */
    MP_PACES,     /* a client's address to mp_pace; the ones used least go when it is full */
    MP_SAMPLES,   /* queue of mp_sample */
    MP_HINTS,     /* array of mp_hints */
    MP_TABLES
};

/* What becomes of a packet. */
enum mp_verdict {
    MP_PASS,    /* as it came, to the next tier */
    MP_FORWARD, /* rewritten, to the next hop */
    MP_REPLY,   /* replaced by an ICMP error, back to where it came from */
    MP_DROP
};

/* Why. Order and names are shared with marchproxy_core/packet/reasons.py, which says what each means. */
enum mp_reason {
    MP_FORWARDED,
    MP_NOT_IP,
    MP_NOT_OURS,
    MP_TAGGED,
    MP_FRAGMENT,
    MP_UNKNOWN_EXTENSION,
    MP_MALFORMED,
    MP_NO_FLOW,
    MP_OTHER_TIER,
    MP_LOCAL_DESTINATION,
    MP_NO_BACKEND,
    MP_NO_ROUTE,
    MP_NO_NEIGHBOUR,
    MP_NO_SOURCE_PORT,
    MP_FLOW_TABLE_FULL,
    MP_FLOW_ENDING,
    MP_BLOCKED,
    MP_PACE,
    MP_TOO_MANY_OPENING,
    MP_MAX_CONNECTIONS,
    MP_GLOBAL_MAX_CONNECTIONS,
    MP_CONNECTION_RATE,
    MP_GLOBAL_CONNECTION_RATE,
    MP_TTL_EXPIRED,
    MP_TOO_BIG,
    MP_ERROR_RATE,
    MP_FAULT,
    MP_REASONS
};

/* A packet's ends as it arrives; every flow has two of these, one for each side. */
struct mp_flow_key {
    struct mp_address source;
    struct mp_address destination;
    uint16_t source_port;
    uint16_t destination_port;
    uint8_t protocol;
    uint8_t zero[3];
};

/* What a key leads to: a place in the array of flows, and the side that sends with this key. */
struct mp_flow_ref {
    uint32_t flow;
    uint32_t side;
};

/* Bits of mp_flow.seen: what has come from one side. Each side has its own byte, since its packets are another CPU's. */
enum mp_seen {
    MP_SEEN = 1, /* anything */
    MP_SEEN_FIN = 2,
    MP_SEEN_RESET = 4,
    MP_SEEN_ACK = 8 /* of a TCP client: that he hears the backend, so his address is his own */
};

/* Guesses at where a key leads, by what the key is hashed to: twice the flow's place, plus the side. The flow itself says
 * whether one is right, so any may be wrong, and none is ever taken back. */
struct mp_hints {
    uint32_t hint[16];
};

/* A next hop as the kernel last told it. */
struct mp_known_hop {
    uint16_t interface;  /* 0: none; one with a higher number is asked for each time */
    uint16_t stamp;      /* tick and generation when it was told: with either the kernel is asked anew */
    uint16_t mtu;
    uint8_t source[6];
    uint8_t destination[6];
};

/* One flow: the only value, for both of its keys. Two cache lines: who speaks to whom, which a key is compared with, and all
 * the rest. Client and listen are the ends of a packet from the client as it arrives, backend and source those of an answer. */
struct mp_flow {
    struct mp_address client;
    struct mp_address listen;
    struct mp_address backend;
    struct mp_address source;
    uint16_t client_port;
    uint16_t listen_port;
    uint16_t backend_port;
    uint16_t source_port;
    uint32_t expires;       /* tick after which user space ends it; see mp_settings */
    uint32_t service;       /* its number */
    uint16_t address_sum;   /* what the new addresses of a client's packet add to a checksum, RFC 1624; back it is ~ that */
    uint16_t port_sum;
    uint16_t backend_id;
    uint8_t seen[2];        /* by side */
    uint8_t hooks;          /* those that may forward it; 0 until all of it is written and its keys are there */
    uint8_t ended;          /* written by user space: its keys are going, and the engine takes it for no flow */
    uint8_t protocol;       /* 0: the place is free. Written by the engine when it takes it, cleared by user space */
    uint8_t counted;        /* written by user space, but for 0 at the opening: it has counted the flow's end */
    struct mp_known_hop hop[2]; /* by side of the packet that goes there */
};

struct mp_service_key {
    struct mp_address address;
    uint16_t port;
    uint8_t protocol;
    uint8_t zero;
};

/* Bits of mp_service.flags. */
enum mp_service_flag {
    MP_BY_ADDRESS = 1 /* a client's address alone picks its backend, as Balance.MAGLEV asks */
};

struct mp_service {
    uint32_t number;    /* place in loads and counters; from 1 on: 0 stands for no service */
    uint32_t picks;     /* place of its table of picks, one for each version of IP */
    uint32_t slots;     /* in that table; 0: no backend */
    uint8_t hooks;      /* those that may open flows for it */
    uint8_t flags;
    uint8_t zero[2];
    uint64_t max_active; /* open flows; 0: no limit */
    uint64_t interval;  /* ns between new flows; 0: no limit */
    uint64_t burst;     /* ns by which new flows may be ahead of their time */
};

/* Four slots of a table of picks: places in the array of backends. */
struct mp_picks {
    uint16_t backend[4];
};

struct mp_backend {
    struct mp_address address;
    uint16_t port;
    uint16_t sources;      /* how many source addresses it may be reached from */
    uint32_t first_source; /* place of the first in the array of sources */
};

/* One service's flows, over all hooks and CPUs: opened and due are the engine's, ended is user space's. Number 0 is over all
 * services. */
struct mp_load {
    uint64_t opened;
    uint64_t ended;
    uint64_t due;    /* ns of the monotonic clock at which the next new flow would be on time */
    uint64_t next_error; /* of number 0: from when on the next ICMP error may be sent */
    uint64_t answered; /* flows whose client has answered the backend; TCP only, as are the next */
    uint64_t lapsed;   /* flows that ended without; user space's */
};

/* One service's packets at one hook, on one CPU. */
struct mp_counters {
    uint64_t packets[2];          /* forwarded, by side */
    uint64_t bytes[2];            /* of IP packets, as they came */
    uint64_t opened;              /* flows */
    uint64_t next_sample;         /* ns from when on the next drop may be told */
    uint64_t reasons[MP_REASONS]; /* all packets, by what became of them */
};

/* What stands at the front door for the addresses of a prefix. */
enum mp_door {
    MP_ALLOW = 1, /* not held to the pace either */
    MP_BLOCK = 2
};

/* Of all services, or of one: then it is asked when a flow begins. */
struct mp_prefix_key {
    uint32_t bits;    /* 32 for the service, and as many as the prefix has of the address: 96 more for IPv4 */
    uint32_t service; /* its number, 0 for all */
    struct mp_address address;
};

struct mp_prefix {
    uint32_t door;
};

/* When the next packet of a client would be on time, in ns of the monotonic clock. */
struct mp_pace {
    uint64_t due;
};

/* A packet that was dropped, as an example. */
struct mp_sample {
    struct mp_address source;
    struct mp_address destination;
    uint16_t source_port;
    uint16_t destination_port;
    uint8_t protocol;
    uint8_t hook;
    uint16_t reason;
    uint32_t service;
};

/* Bits of mp_settings.doors: what is asked of packets at all. */
enum mp_doors {
    MP_HAS_PREFIXES = 1,         /* of all services */
    MP_HAS_SERVICE_PREFIXES = 2,
    MP_DROP_MALFORMED = 4
};

/* A tick is 2^30 ns of the monotonic clock, about 1.07 s. */
struct mp_settings {
    uint16_t first_port; /* source ports towards backends, host byte order, both inclusive */
    uint16_t last_port;
    uint32_t seed;
    uint32_t opening_ticks;     /* a TCP flow whose client has not answered the backend */
    uint32_t established_ticks;
    uint32_t closing_ticks;     /* both sides have sent FIN, or one RST */
    uint32_t live_hooks;        /* hooks with a program that is attached */
    uint32_t generation;        /* of the network: another one when something changed */
    uint32_t hints;             /* how many there are */
    uint64_t max_active;        /* over all services, as in mp_service */
    uint64_t interval;
    uint64_t burst;
    uint64_t error_interval;    /* ns between ICMP errors */
    uint64_t sample_interval;   /* ns between samples of drops, on each CPU */
    uint64_t pace_interval;     /* ns between packets of one client, on average; 0: no limit */
    uint64_t pace_burst;        /* ns by which they may be ahead of their time */
    uint64_t max_opening;       /* TCP flows of one service whose clients have not answered yet; 0: no limit */
    uint32_t doors;
    uint32_t zero;
};
