/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* ICMP errors about packets of our flows: sent on to whoever sent those, with the quoted packet as it left him.
 *
 * The quoted packet is one that we sent, so turned round it has the key of a packet from its receiver. Whoever the
 * error comes from, a router as a rule, the other side sees it come from its own peer, as it sees all of this flow. */
#pragma once

enum { MP_QUOTED = 8 }; /* bytes of its transport header that a quote has at least, RFC 792 */

/* The quoted packet: pointers into the frame. */
struct mp_quote {
    uint8_t *l3;
    uint8_t *l4;
    uint8_t protocol;
};

static MP_INLINE int mp_is_error(const struct mp_view *view, uint8_t type)
{
    if (view->version == 4) /* unreachable, time exceeded, parameter problem: RFC 792 */
        return type == 3 || type == 11 || type == 12;
    return type >= 1 && type <= 4; /* RFC 4443, 2.1; others are reserved */
}

/* Also writes the key of a packet that answers the quoted one. */
static MP_INLINE int mp_read_quote(struct mp_frame *frame, const struct mp_view *view, struct mp_quote *quote,
                                   struct mp_flow_key *answer)
{
    uint8_t *at = view->l4 + sizeof(struct mp_icmp);
    quote->l3 = at;
    if (view->version == 4) {
        struct mp_ipv4 *ip = (struct mp_ipv4 *)at;
        if (!mp_in_packet(frame, view, at, sizeof *ip))
            return 0;
        uint32_t header = (ip->version_ihl & 15) * 4;
        if (ip->version_ihl >> 4 != 4 || header < sizeof *ip || ip->fragment & MP_BE16(0x1fff))
            return 0;
        mp_write_ipv4_addresses(answer, ip->destination, ip->source);
        quote->protocol = ip->protocol;
        at += header;
    } else {
        struct mp_ipv6 *ip = (struct mp_ipv6 *)at;
        if (!mp_in_packet(frame, view, at, sizeof *ip))
            return 0;
        mp_write_addresses(answer, ip->destination, ip->source);
        quote->protocol = ip->next_header; /* ours have no extension headers but those the sender put in */
        at += sizeof *ip;
    }
    struct mp_ports *ports = (struct mp_ports *)at;
    if ((quote->protocol != MP_TCP && quote->protocol != MP_UDP) || !mp_in_packet(frame, view, at, MP_QUOTED))
        return 0;
    quote->l4 = at;
    mp_write_ports(answer, ports->destination, ports->source, quote->protocol);
    return 1;
}

static MP_INLINE void mp_put32(uint32_t *field, uint32_t value, uint32_t *difference)
{
    *difference = mp_changed(*difference, *field, value);
    *field = value;
}

static MP_INLINE void mp_put16(uint16_t *field, uint16_t value, uint32_t *difference)
{
    *difference = mp_changed16(*difference, *field, value);
    *field = value;
}

static MP_INLINE void mp_put_address(uint32_t *field, const struct mp_address *address, uint32_t *difference)
{
    mp_put32(&field[0], address->word[0], difference);
    mp_put32(&field[1], address->word[1], difference);
    mp_put32(&field[2], address->word[2], difference);
    mp_put32(&field[3], address->word[3], difference);
}

/* Gives the quoted packet back the ends that it was sent with, the flow's new ends turned round. Returns what that
 * adds to the checksum of the ICMP message. */
static MP_INLINE uint32_t mp_restore_quote(struct mp_frame *frame, const struct mp_view *view, struct mp_quote *quote,
                                           const struct mp_ends *ends)
{
    struct mp_ports *ports = (struct mp_ports *)quote->l4;
    uint32_t all = 0, addresses = 0;
    if (view->version == 4) {
        struct mp_ipv4 *ip = (struct mp_ipv4 *)quote->l3;
        if (!MP_HAS_STILL(frame, ip))
            return 0;
        mp_put32(&ip->source, ends->destination->word[3], &addresses);
        mp_put32(&ip->destination, ends->source->word[3], &addresses);
        all = addresses;
        mp_put16(&ip->checksum, mp_corrected(ip->checksum, addresses), &all);
    } else {
        struct mp_ipv6 *ip = (struct mp_ipv6 *)quote->l3;
        if (!MP_HAS_STILL(frame, ip))
            return 0;
        mp_put_address(ip->source, ends->destination, &addresses);
        mp_put_address(ip->destination, ends->source, &addresses);
        all = addresses;
    }
    uint32_t changes = addresses;
    if (!MP_HAS(frame, quote->l4, MP_QUOTED))
        return all;
    mp_put16(&ports->source, ends->destination_port, &changes);
    mp_put16(&ports->destination, ends->source_port, &changes);
    all = mp_sum(all, mp_sum(changes, ~addresses));
    if (quote->protocol == MP_UDP) {
        uint16_t *checksum = &((struct mp_udp *)quote->l4)->checksum;
        if (*checksum)
            mp_put16(checksum, mp_corrected(*checksum, changes), &all);
    } else if (mp_in_packet(frame, view, quote->l4, sizeof(struct mp_tcp))) {
        uint16_t *checksum = &((struct mp_tcp *)quote->l4)->checksum;
        mp_put16(checksum, mp_corrected(*checksum, changes), &all);
    }
    return all;
}

static MP_INLINE void mp_rewrite_error(struct mp_frame *frame, const struct mp_view *view, struct mp_quote *quote,
                                       const struct mp_flow *flow, uint32_t side)
{
    struct mp_icmp *icmp = (struct mp_icmp *)view->l4;
    struct mp_ends ends;
    mp_new_ends(flow, side, &ends);
    uint32_t outer = mp_sum(mp_sum(mp_address_sum(ends.source), mp_address_sum(ends.destination)),
                            mp_sum(~mp_address_sum(&view->key.source), ~mp_address_sum(&view->key.destination)));
    uint32_t message = mp_restore_quote(frame, view, quote, &ends);
    mp_rewrite_header(frame, view, &ends, outer);
    if (view->version == 6) /* whose checksum covers the addresses: RFC 4443, 2.3 */
        message = mp_sum(message, outer);
    if (MP_HAS_STILL(frame, icmp))
        icmp->checksum = mp_corrected(icmp->checksum, message);
}
