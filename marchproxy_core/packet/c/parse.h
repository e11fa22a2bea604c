/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From bytes to a flow key. Every pointer is compared with the end of the frame before it is read. */
#pragma once

#define MP_MAX_EXTENSIONS 6
#define MP_FARTHEST 0x3fff /* 6 extension headers of 2 KiB each fit */

/* Whether `size` bytes at `at` are in the frame. */
#define MP_HAS(frame, at, size) ((uint8_t *)(at) + (size) <= (frame)->end)

/* The same where it is known already: the kernel's verifier does not remember which header goes with which version. */
#define MP_HAS_STILL(frame, at) MP_HAS(frame, at, sizeof *(at))

/* What the parser found; pointers are into the frame, and good until the hook moves it. */
struct mp_view {
    struct mp_flow_key key __attribute__((aligned(8)));
    uint8_t *l3;
    uint8_t *l4;
    uint32_t bytes; /* of the IP packet */
    uint32_t version;
    uint32_t protocol;
    uint32_t tcp_flags;
};

/* Where a packet goes next. */
struct mp_hop {
    uint32_t interface; /* its index */
    uint32_t resolved;  /* whether the addresses below are known; else the hook has the kernel find them */
    uint32_t mtu;       /* of IP packets, in bytes */
    uint8_t source[6];
    uint8_t destination[6];
};

static MP_INLINE void mp_address_frame(struct mp_frame *frame, const struct mp_hop *hop)
{
    struct mp_ethernet *ethernet = (struct mp_ethernet *)frame->data;
    if (!hop->resolved || !MP_HAS(frame, ethernet, sizeof *ethernet))
        return;
    __builtin_memcpy(ethernet->destination, hop->destination, sizeof ethernet->destination);
    __builtin_memcpy(ethernet->source, hop->source, sizeof ethernet->source);
}

/* Keys are written and read in pairs of words: what was written in halves can only be read as a whole when it has got to the
 * cache, which takes longer than all else that is done with a key. */
typedef uint64_t __attribute__((may_alias)) mp_pair;

static MP_INLINE uint64_t mp_pair_of(uint32_t low, uint32_t high)
{
    return low | (uint64_t)high << 32;
}

static MP_INLINE void mp_write_addresses(struct mp_flow_key *key, const uint32_t *source, const uint32_t *destination)
{
    mp_pair *pair = (mp_pair *)key;
    pair[0] = mp_pair_of(source[0], source[1]);
    pair[1] = mp_pair_of(source[2], source[3]);
    pair[2] = mp_pair_of(destination[0], destination[1]);
    pair[3] = mp_pair_of(destination[2], destination[3]);
}

static MP_INLINE void mp_write_ipv4_addresses(struct mp_flow_key *key, uint32_t source, uint32_t destination)
{
    const uint32_t mapped = 0xffff0000; /* ::ffff: in network byte order, read by a little-endian host */
    mp_pair *pair = (mp_pair *)key;
    pair[0] = 0;
    pair[1] = mp_pair_of(mapped, source);
    pair[2] = 0;
    pair[3] = mp_pair_of(mapped, destination);
}

static MP_INLINE void mp_write_ports(struct mp_flow_key *key, uint16_t source, uint16_t destination, uint32_t protocol)
{
    ((mp_pair *)key)[4] = mp_pair_of(source | (uint32_t)destination << 16, protocol & 0xff);
}

/* Fills in version, protocol, length and addresses, and returns where the next header begins. */
static MP_INLINE enum mp_reason mp_parse_ipv4(struct mp_frame *frame, struct mp_view *view, uint8_t **next)
{
    struct mp_ipv4 *ip = (struct mp_ipv4 *)view->l3;
    if (!MP_HAS(frame, ip, sizeof *ip))
        return MP_MALFORMED;
    uint32_t header = (ip->version_ihl & 15) * 4;
    if (ip->version_ihl >> 4 != 4 || header < sizeof *ip)
        return MP_MALFORMED;
    uint32_t before = (uint32_t)(view->l3 - frame->data);
    view->bytes = MP_BE16(ip->length);
    if (view->bytes == 0) /* BIG TCP: Linux 6.3 and later leave 0 in packets above 64 KiB */
        view->bytes = frame->length - before;
    if (view->bytes < header || before + view->bytes > frame->length)
        return MP_MALFORMED;
    view->version = 4;
    view->protocol = ip->protocol;
    mp_write_ipv4_addresses(&view->key, ip->source, ip->destination);
    *next = view->l3 + header;
    if (ip->fragment & MP_BE16(0x3fff)) /* more fragments, or an offset */
        return MP_FRAGMENT;
    return MP_FORWARDED;
}

/* The same; extension headers are walked through and left as they are. */
static MP_INLINE enum mp_reason mp_parse_ipv6(struct mp_frame *frame, struct mp_view *view, uint8_t **next)
{
    struct mp_ipv6 *ip = (struct mp_ipv6 *)view->l3;
    if (!MP_HAS(frame, ip, sizeof *ip))
        return MP_MALFORMED;
    if ((view->l3[0] >> 4) != 6)
        return MP_MALFORMED;
    uint32_t before = (uint32_t)(view->l3 - frame->data);
    view->bytes = sizeof *ip + MP_BE16(ip->payload_length);
    if (ip->payload_length == 0) /* a jumbogram, RFC 2675, as GSO makes them */
        view->bytes = frame->length - before;
    if (before + view->bytes > frame->length)
        return MP_MALFORMED;
    view->version = 6;
    mp_write_addresses(&view->key, ip->source, ip->destination);
    uint8_t protocol = ip->next_header;
    uint8_t *at = view->l3 + sizeof *ip;
#pragma clang loop unroll(full)
    for (int count = 0; count < MP_MAX_EXTENSIONS; count++) {
        if (protocol == MP_FRAGMENTED)
            return MP_FRAGMENT;
        if (protocol != MP_HOP_BY_HOP && protocol != MP_ROUTING && protocol != MP_DESTINATION) {
            view->protocol = protocol;
            *next = at;
            return MP_FORWARDED;
        }
        struct mp_extension *extension = (struct mp_extension *)at;
        if (!MP_HAS(frame, extension, sizeof *extension))
            return MP_MALFORMED;
        if (protocol == MP_ROUTING && extension->left)
            return MP_UNKNOWN_EXTENSION; /* its final destination is another than the header says */
        protocol = extension->next_header;
        at += 8 + extension->length * 8;
    }
    return MP_UNKNOWN_EXTENSION;
}

/* Whether `size` bytes at `at` are in the IP packet, and not in the padding behind it. */
static MP_INLINE int mp_in_packet(struct mp_frame *frame, const struct mp_view *view, uint8_t *at, uint32_t size)
{
    return MP_HAS(frame, at, size) && (uint32_t)(at - view->l3) + size <= view->bytes;
}

static MP_INLINE enum mp_reason mp_parse_ports(struct mp_frame *frame, struct mp_view *view)
{
    struct mp_ports *ports = (struct mp_ports *)view->l4;
    if (view->protocol == MP_TCP) {
        struct mp_tcp *tcp = (struct mp_tcp *)view->l4;
        if (!mp_in_packet(frame, view, view->l4, sizeof *tcp))
            return MP_MALFORMED;
        if (tcp->offset >> 4 < 5)
            return MP_MALFORMED;
        view->tcp_flags = tcp->flags;
    } else {
        struct mp_udp *udp = (struct mp_udp *)view->l4;
        if (!mp_in_packet(frame, view, view->l4, sizeof *udp))
            return MP_MALFORMED;
    }
    mp_write_ports(&view->key, ports->source, ports->destination, view->protocol);
    return MP_FORWARDED;
}

/* Reads the frame up to the transport header; MP_FORWARDED means that nothing speaks against it so far. */
static MP_INLINE enum mp_reason mp_parse(struct mp_frame *frame, struct mp_view *view)
{
    struct mp_ethernet *ethernet = (struct mp_ethernet *)frame->data;
    /* For the verifier, which walks paths that never are: a difference of pointers is a number, that of one and 0 is not. */
    view->l3 = view->l4 = frame->data;
    if (!MP_HAS(frame, ethernet, sizeof *ethernet))
        return MP_NOT_IP;
    uint16_t type = ethernet->type;
    uint8_t *next = frame->data;
    view->l3 = frame->data + sizeof *ethernet;
    enum mp_reason reason = MP_NOT_IP;
    if (type == MP_BE16(MP_ETH_IPV4))
        reason = mp_parse_ipv4(frame, view, &next);
    else if (type == MP_BE16(MP_ETH_IPV6))
        reason = mp_parse_ipv6(frame, view, &next);
    else if (type == MP_BE16(MP_ETH_VLAN) || type == MP_BE16(MP_ETH_QINQ))
        reason = MP_TAGGED; /* its own interface sees it next, without its tag */
    if (reason != MP_FORWARDED)
        return reason;
    /* For the verifier: however far the header is, from here on there is one path and not one for each distance. */
    view->l4 = frame->data + ((uint32_t)(next - frame->data) & MP_FARTHEST);
    if (view->protocol == MP_TCP || view->protocol == MP_UDP)
        return mp_parse_ports(frame, view);
    mp_write_ports(&view->key, 0, 0, view->protocol);
    return MP_FORWARDED;
}
