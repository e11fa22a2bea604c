/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Checksums of TCP and UDP.
 *
 * A packet that its sender left to the hardware to finish carries a *partial* checksum: the sum of its pseudo-header.
 * A TC program is told so (skb->ip_summed) and has helpers for it; on veth and virtio an XDP program meets such packets
 * without a word, since XDP has no place to say it, and they would leave unfinished. */
#pragma once

#define MP_MOST_SUMMED 4096 /* bytes; an XDP frame is one page */
#define MP_SUMMED_AT_ONCE 64

/* Where it is; 0 never happens. */
static MP_INLINE uint16_t *mp_transport_checksum(struct mp_frame *frame, const struct mp_view *view)
{
    uint8_t *at = view->l4 + (view->protocol == MP_TCP ? 16 : 6);
    return MP_HAS(frame, at, 2) ? (uint16_t *)at : 0;
}

static MP_INLINE void mp_write_checksum(const struct mp_view *view, uint16_t *field, uint16_t checksum)
{
    *field = view->protocol == MP_UDP && checksum == 0 ? 0xffff : checksum; /* UDP writes 0 for "none": RFC 768 */
}

/* Corrects a complete checksum by difference. */
static MP_INLINE void mp_correct_transport(struct mp_frame *frame, const struct mp_view *view, uint32_t difference)
{
    uint16_t *field = mp_transport_checksum(frame, view);
    if (field && (view->protocol == MP_TCP || *field != 0))
        mp_write_checksum(view, field, mp_corrected(*field, difference));
}

/* The sum of the pseudo-header, from the addresses that the packet has now. */
static MP_INLINE uint32_t mp_pseudo_sum(struct mp_frame *frame, const struct mp_view *view)
{
    uint32_t length = view->bytes - (uint32_t)(view->l4 - view->l3);
    uint32_t sum = mp_sum(MP_BE16(view->protocol), (uint32_t)MP_BE16(length & 0xffff) + MP_BE16(length >> 16));
    if (view->version == 4) {
        struct mp_ipv4 *ip = (struct mp_ipv4 *)view->l3;
        if (!MP_HAS_STILL(frame, ip))
            return 0;
        return mp_sum(sum, mp_sum(ip->source, ip->destination));
    }
    struct mp_ipv6 *ip = (struct mp_ipv6 *)view->l3;
    if (!MP_HAS_STILL(frame, ip))
        return 0;
    sum = mp_sum(sum, mp_sum(mp_sum(ip->source[0], ip->source[1]), mp_sum(ip->source[2], ip->source[3])));
    return mp_sum(sum, mp_sum(mp_sum(ip->destination[0], ip->destination[1]), mp_sum(ip->destination[2], ip->destination[3])));
}

/* Whether the checksum is partial. One complete checksum in 65,536 looks so too, and is then summed up again: to the
 * value it had, unless the packet was broken on its way. */
static MP_INLINE int mp_is_partial(struct mp_frame *frame, const struct mp_view *view)
{
    uint16_t *field = mp_transport_checksum(frame, view);
    return field && *field == mp_fold(mp_pseudo_sum(frame, view));
}

/* Sums up the transport header and all behind it, anew. */
static MP_INLINE void mp_complete_checksum(struct mp_frame *frame, const struct mp_view *view)
{
    uint32_t left = view->bytes - (uint32_t)(view->l4 - view->l3);
    uint32_t sum = mp_pseudo_sum(frame, view);
    uint16_t *field = mp_transport_checksum(frame, view);
    uint8_t *at = view->l4;
    if (!field)
        return;
    *field = 0;
    /* In blocks, since the verifier walks through each turn of a loop on each path that leads to it. */
#pragma clang loop unroll(disable)
    for (uint32_t count = 0; count < MP_MOST_SUMMED / MP_SUMMED_AT_ONCE; count++) {
        MP_OPAQUE(left);
        if (left < MP_SUMMED_AT_ONCE || !MP_HAS(frame, at, MP_SUMMED_AT_ONCE))
            break;
#pragma clang loop unroll(full)
        for (uint32_t word = 0; word < MP_SUMMED_AT_ONCE / 4; word++)
            sum = mp_sum(sum, ((uint32_t *)at)[word]);
        at += MP_SUMMED_AT_ONCE;
        left -= MP_SUMMED_AT_ONCE;
    }
#pragma clang loop unroll(disable)
    for (uint32_t count = 0; count < MP_SUMMED_AT_ONCE / 4; count++) {
        MP_OPAQUE(left);
        if (left < 4 || !MP_HAS(frame, at, 4))
            break;
        sum = mp_sum(sum, *(uint32_t *)at);
        at += 4;
        left -= 4;
    }
    if (left & 2 && MP_HAS(frame, at, 2)) {
        sum = mp_sum(sum, *(uint16_t *)at);
        at += 2;
    }
    if (left & 1 && MP_HAS(frame, at, 1))
        sum = mp_sum(sum, *at);
    field = mp_transport_checksum(frame, view);
    if (field)
        mp_write_checksum(view, field, (uint16_t)~mp_fold(sum));
}
