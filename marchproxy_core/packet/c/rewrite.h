/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Giving a packet its new ends. Nothing here fails: all that can was asked before. */
#pragma once

/* A packet's new ends. */
struct mp_ends {
    const struct mp_address *source;
    const struct mp_address *destination;
    uint16_t source_port;
    uint16_t destination_port;
};

static MP_INLINE void mp_new_ends(const struct mp_flow *flow, uint32_t side, struct mp_ends *ends)
{
    if (side == MP_FROM_CLIENT) {
        ends->source = &flow->source;
        ends->destination = &flow->backend;
        ends->source_port = flow->source_port;
        ends->destination_port = flow->backend_port;
    } else {
        ends->source = &flow->listen;
        ends->destination = &flow->client;
        ends->source_port = flow->listen_port;
        ends->destination_port = flow->client_port;
    }
}

static MP_INLINE void mp_write_ipv6_address(uint32_t *field, const struct mp_address *address)
{
    field[0] = address->word[0];
    field[1] = address->word[1];
    field[2] = address->word[2];
    field[3] = address->word[3];
}

/* Writes the addresses of the outer header and lowers its time to live; `difference` is what they add to a checksum. */
static MP_INLINE void mp_rewrite_header(struct mp_frame *frame, const struct mp_view *view, const struct mp_ends *ends, uint32_t difference)
{
    if (view->version == 4) {
        struct mp_ipv4 *ip = (struct mp_ipv4 *)view->l3;
        if (!MP_HAS_STILL(frame, ip))
            return;
        ip->source = ends->source->word[3];
        ip->destination = ends->destination->word[3];
        uint16_t before = ip->ttl; /* the first byte of its 16-bit word, so the lower one here */
        ip->ttl--;
        ip->checksum = mp_corrected(ip->checksum, mp_changed16(difference, before, ip->ttl));
    } else {
        struct mp_ipv6 *ip = (struct mp_ipv6 *)view->l3;
        if (!MP_HAS_STILL(frame, ip))
            return;
        mp_write_ipv6_address(ip->source, ends->source);
        mp_write_ipv6_address(ip->destination, ends->destination);
        ip->hop_limit--;
    }
}

/* Whether the packet may go over one more hop. */
static MP_INLINE int mp_may_live_on(struct mp_frame *frame, const struct mp_view *view)
{
    struct mp_ipv4 *ipv4 = (struct mp_ipv4 *)view->l3;
    if (!MP_HAS_STILL(frame, ipv4))
        return 0;
    return (view->version == 4 ? ipv4->ttl : ((struct mp_ipv6 *)view->l3)->hop_limit) > 1; /* both are within 20 bytes */
}

static MP_INLINE void mp_rewrite(struct mp_frame *frame, const struct mp_view *view, const struct mp_flow *flow, uint32_t side)
{
    struct mp_ends ends;
    struct mp_ports *ports = (struct mp_ports *)view->l4;
    mp_new_ends(flow, side, &ends);
    if (!MP_HAS_STILL(frame, ports))
        return;
    mp_note_checksum(frame, view);
    /* What leads back is the complement. */
    uint16_t back = (uint16_t)-side, addresses = flow->address_sum ^ back, port_sum = flow->port_sum ^ back;
    mp_rewrite_header(frame, view, &ends, addresses);
    ports->source = ends.source_port;
    ports->destination = ends.destination_port;
    mp_renew_checksum(frame, view, addresses, port_sum); /* may move the frame: last */
}
