/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* ICMP errors of our own: a packet too big for its next hop, or at the end of its time, is turned into one and sent back.
 *
 * It comes from the address that the sender knows as its peer, and quotes the packet as the sender sent it. IPv4 packets
 * without "don't fragment" are answered too, since nothing here fragments: their sender learns the size and does. */
#pragma once

enum {
    MP_MOST_QUOTED = 96, /* bytes: all headers but for the longest; RFC 792 wants the IP header and 8 more */
    MP_LEAST_QUOTED = 28,
    MP_HOPS = 64 /* of a packet of our own, as RFC 1700 has it */
};

static MP_INLINE void mp_write_icmp(struct mp_icmp *icmp, const struct mp_view *view, const struct mp_decision *decision)
{
    int too_big = decision->reason == MP_TOO_BIG;
    icmp->checksum = 0;
    icmp->rest = too_big ? __builtin_bswap32(decision->hop.mtu) : 0;
    if (view->version == 4) {
        icmp->type = too_big ? 3 : 11; /* unreachable, time exceeded: RFC 792 */
        icmp->code = too_big ? 4 : 0;  /* fragmentation needed: RFC 1191 */
    } else {
        icmp->type = too_big ? 2 : 3; /* RFC 4443, 3.2 and 3.3 */
        icmp->code = 0;
    }
}

/* The outer header, and what it adds to the checksum of the message. */
static MP_INLINE uint32_t mp_write_outer(uint8_t *l3, const struct mp_view *view, uint32_t message)
{
    const struct mp_address *from = &view->key.destination, *to = &view->key.source;
    if (view->version == 4) {
        struct mp_ipv4 *ip = (struct mp_ipv4 *)l3;
        *ip = (struct mp_ipv4){
            .version_ihl = 0x45, .length = MP_BE16(sizeof *ip + message), .ttl = MP_HOPS, .protocol = MP_ICMP,
            .source = from->word[3], .destination = to->word[3],
        };
        uint32_t sum = 0;
#pragma clang loop unroll(full)
        for (uint32_t at = 0; at < sizeof *ip / 4; at++)
            sum = mp_sum(sum, ((uint32_t *)ip)[at]);
        ip->checksum = (uint16_t)~mp_fold(sum);
        return 0;
    }
    struct mp_ipv6 *ip = (struct mp_ipv6 *)l3;
    ip->version_class_label = 0x60; /* its first byte */
    ip->payload_length = MP_BE16(message);
    ip->next_header = MP_ICMPV6;
    ip->hop_limit = MP_HOPS;
    mp_write_ipv6_address(ip->source, from);
    mp_write_ipv6_address(ip->destination, to);
    return mp_sum(mp_sum(mp_address_sum(from), mp_address_sum(to)), (uint32_t)MP_BE16(message) + MP_BE16(MP_ICMPV6));
}

/* Turns the frame into an error about itself; MP_REPLY when that was done, MP_DROP when it cannot be. */
static MP_INLINE enum mp_verdict mp_answer(struct mp_frame *frame, const struct mp_view *view, const struct mp_decision *decision)
{
    uint32_t header = view->version == 4 ? sizeof(struct mp_ipv4) : sizeof(struct mp_ipv6);
    uint32_t quoted = (view->bytes < MP_MOST_QUOTED ? view->bytes : MP_MOST_QUOTED) & ~3u;
    uint32_t transport = (uint32_t)(view->l4 - view->l3), finished_later = 0, later = 0;
    struct mp_ethernet before, *ethernet = (struct mp_ethernet *)frame->data;
    if (!MP_HAS_STILL(frame, ethernet))
        return MP_DROP;
    before = *ethernet;
    later = mp_later_sum(frame, view, &finished_later);
    if (quoted < MP_LEAST_QUOTED || mp_make_room(frame, sizeof before + quoted, header + sizeof(struct mp_icmp)))
        return MP_DROP;

    ethernet = (struct mp_ethernet *)frame->data;
    uint8_t *l3 = frame->data + sizeof before;
    uint8_t *l4 = l3 + (view->version == 4 ? sizeof(struct mp_ipv4) : sizeof(struct mp_ipv6));
    struct mp_icmp *icmp = (struct mp_icmp *)l4;
    if (!MP_HAS(frame, l4, sizeof *icmp + MP_LEAST_QUOTED))
        return MP_DROP;
    __builtin_memcpy(ethernet->destination, before.source, sizeof before.source);
    __builtin_memcpy(ethernet->source, before.destination, sizeof before.destination);
    ethernet->type = before.type;
    uint32_t sum = mp_write_outer(l3, view, sizeof *icmp + quoted);
    mp_write_icmp(icmp, view, decision);
    sum = mp_sum(sum, mp_sum(((uint32_t *)icmp)[0], ((uint32_t *)icmp)[1]));
    uint8_t *at = l4 + sizeof *icmp;
#pragma clang loop unroll(disable)
    for (uint32_t count = 0; count < MP_MOST_QUOTED; count += 4) {
        MP_OPAQUE(quoted);
        if (count >= quoted || (finished_later && count >= transport) || !MP_HAS(frame, at, 4))
            break;
        sum = mp_sum(sum, *(uint32_t *)at);
        at += 4;
    }
    icmp->checksum = (uint16_t)~mp_fold(mp_sum(sum, later));
    return MP_REPLY;
}
