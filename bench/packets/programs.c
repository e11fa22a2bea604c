/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What stands at both ends of the path that is measured, and the least that can stand in between. */
#include <marchproxy/bpf_map.h>
#include <uapi/linux/bpf.h>

static void *(*const find)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;

enum { ETHERNET = 14, TEMPLATE_BYTES = 56, FRAME_BYTES = 60, IP_CHECKSUM = 24, SOURCE = 26, SOURCE_PORT = 34, PORT = 36 };
enum { FAR = 40503 }; /* has no divisor but 1 with any number of prefixes that is 2s and 5s: each has its turn */

/* What to send; bench/packets/traffic.py packs it. Addresses and ports are in the host's byte order. */
struct plan {
    __u64 template[TEMPLATE_BYTES / 8];
    __u32 sum;         /* of all that the transport checksum covers, without the ports and the source address */
    __u32 checksum_at; /* its place in the frame */
    __u32 flows;
    __u32 services;
    __u32 first_source_port;
    __u32 first_port;
    __u32 interface;
    __u32 pace;        /* one run in so many sends a packet */
    __u32 ip_sum;      /* of the IP header, without the source address */
    __u32 first_source;
    __u32 prefixes;    /* of 24 bits: flows come from so many, one after the other from far apart */
    __u32 zero;
};

/* One CPU's. */
struct count {
    __u64 packets;
    __u32 flow; /* of the next packet */
    __u32 runs; /* since the last packet */
};

static __attribute__((always_inline)) inline __u32 fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

/* Sends the next packet of the plan. The kernel gives frames back as the last receiver left them, addresses and all
 * (Documentation/bpf/bpf_prog_run.rst), so all that anybody may have changed is written anew. */
int generate(struct xdp_md *context)
{
    __u32 first = 0;
    struct plan *plan = find(BPF_MAP(0), &first);
    struct count *count = find(BPF_MAP(1), &first);
    __u8 *data = (__u8 *)(unsigned long)context->data, *end = (__u8 *)(unsigned long)context->data_end;
    if (!plan || !count || data + FRAME_BYTES > end)
        return XDP_ABORTED;
    count->runs++;
    if (count->runs < plan->pace)
        return XDP_DROP;
    count->runs = 0;
    count->packets++;
    __u32 flow = count->flow;
    count->flow = flow + 1 < plan->flows ? flow + 1 : 0;
    for (int each = 0; each < TEMPLATE_BYTES / 8; each++)
        ((__u64 *)data)[each] = plan->template[each];
    __u32 source = plan->first_source + (flow * FAR % plan->prefixes << 8);
    __u32 source_port = plan->first_source_port + flow, port = plan->first_port + flow % plan->services;
    __u32 halves = (source >> 16) + (source & 0xffff), at = plan->checksum_at;
    __u32 sum = fold(plan->sum + halves + source_port + port);
    *(__u16 *)(data + IP_CHECKSUM) = __builtin_bswap16(~fold(plan->ip_sum + halves));
    *(__u32 *)(data + SOURCE) = __builtin_bswap32(source);
    *(__u16 *)(data + SOURCE_PORT) = __builtin_bswap16(source_port);
    *(__u16 *)(data + PORT) = __builtin_bswap16(port);
    if (at > TEMPLATE_BYTES - 2 || data + at + 2 > end)
        return XDP_ABORTED;
    *(__u16 *)(data + at) = sum == 0xffff ? 0xffff : __builtin_bswap16(~sum); /* 0 would say that there is none: RFC 768 */
    return bpf_redirect(plan->interface, 0);
}

/* Counts IPv4 packets, and drops all. */
int count_and_drop(struct xdp_md *context)
{
    __u32 first = 0;
    struct count *count = find(BPF_MAP(0), &first);
    __u8 *data = (__u8 *)(unsigned long)context->data, *end = (__u8 *)(unsigned long)context->data_end;
    if (count && data + ETHERNET <= end && *(__u16 *)(data + ETHERNET - 2) == __builtin_bswap16(0x0800))
        count->packets++;
    return XDP_DROP;
}

/* The least that drops and counts; looks at nothing. */
int drop(struct xdp_md *context)
{
    __u32 first = 0;
    struct count *count = find(BPF_MAP(0), &first);
    (void)context;
    if (count)
        count->packets++;
    return XDP_DROP;
}

/* Rewrites nothing and asks for no route. */
int redirect(struct xdp_md *context)
{
    __u32 first = 0;
    __u32 *interface = find(BPF_MAP(0), &first);
    return interface ? bpf_redirect(*interface, 0) : XDP_ABORTED;
}
