/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The engine in the driver. MP_PARTIAL: on veth and virtio, checksums may be partial. MP_FRAGS: frames of several pieces
 * (since Linux 5.18). MP_GENERIC: in the stack instead, where checksums that are partial stay so and are finished behind it,
 * and where packets may be joined ones (GRO), which this hook cannot tell from those that are too big. */
#define MP_HOOK MP_HOOK_XDP
#include "kernel.h"

struct mp_frame {
    uint8_t *data, *end;
    uint32_t length, partial;
    struct xdp_md *context;
};

#include "wire.h"
#include "checksum.h"
#include "parse.h"
#include "transport.h"
#include "routes.h"

static MP_INLINE enum mp_reason mp_route(struct mp_frame *frame, const struct mp_view *view, const struct mp_address *source,
                                         const struct mp_address *destination, struct mp_hop *hop)
{
    return mp_ask_kernel(frame->context, view, source, destination, hop);
}

static MP_INLINE enum mp_reason mp_fits(struct mp_frame *frame, const struct mp_view *view, uint32_t mtu)
{
    (void)frame;
    if (view->bytes <= mtu)
        return MP_FORWARDED;
#ifdef MP_GENERIC
    const struct mp_settings *settings = mp_settings_now();
    if (settings && settings->live_hooks & (1 << MP_HOOK_TC))
        return MP_OTHER_TIER; /* which can tell */
#endif
    return MP_TOO_BIG;
}

/* Whether an answer would find its way: there is no stack here that would ask for the client's link-layer address. A first
 * packet that it stops goes to the stack, whose answer makes it known. */
static MP_INLINE int mp_can_answer(struct mp_frame *frame, const struct mp_view *view)
{
    struct mp_hop hop;
    enum mp_reason reason = mp_ask_kernel(frame->context, view, &view->key.destination, &view->key.source, &hop);
    return reason == MP_FORWARDED;
}

#ifdef MP_GENERIC
/* A partial checksum covers the addresses and not the ports. */
static MP_INLINE void mp_correct_partial(struct mp_frame *frame, const struct mp_view *view, uint32_t addresses)
{
    uint16_t *field = mp_transport_checksum(frame, view);
    if (field)
        *field = mp_fold(mp_sum(*field, addresses));
}
#endif

#ifdef MP_FRAGS
enum { MP_STEP = 128, MP_MOST_IN_PIECES = 10240 }; /* bytes: a jumbo frame; judging.py knows it too */

static MP_INLINE int mp_has_pieces(const struct mp_frame *frame)
{
    return (uint32_t)(frame->end - frame->data) < frame->length;
}

/* mp_complete_checksum() for a frame of several pieces: only a helper reads behind the first. */
static MP_INLINE void mp_complete_pieces(struct mp_frame *frame, const struct mp_view *view)
{
    uint32_t step[MP_STEP / 4];
    uint32_t left = view->bytes - (uint32_t)(view->l4 - view->l3), at = (uint32_t)(view->l4 - frame->data);
    uint32_t sum = mp_pseudo_sum(frame, view);
    uint16_t *field = mp_transport_checksum(frame, view);
    if (!field)
        return;
    *field = 0;
#pragma clang loop unroll(disable)
    for (uint32_t count = 0; count < MP_MOST_IN_PIECES / MP_STEP; count++) {
        MP_OPAQUE(left);
        if (left < MP_STEP || bpf_xdp_load_bytes(frame->context, at, step, MP_STEP))
            break;
        sum = (uint32_t)bpf_csum_diff(0, 0, step, MP_STEP, sum);
        at += MP_STEP;
        left -= MP_STEP;
    }
    __builtin_memset(step, 0, sizeof step);
    left &= MP_STEP - 1;
    if (left) {
        MP_OPAQUE(left);
        left = ((left - 1) & (MP_STEP - 1)) + 1; /* for the verifier of Linux 6.1, which learns nothing from "not 0" */
        if (bpf_xdp_load_bytes(frame->context, at, step, left) == 0)
            sum = (uint32_t)bpf_csum_diff(0, 0, step, MP_STEP, sum);
    }
    field = mp_transport_checksum(frame, view);
    if (field)
        mp_write_checksum(view, field, (uint16_t)~mp_fold(sum));
}
#endif

static MP_INLINE void mp_note_checksum(struct mp_frame *frame, const struct mp_view *view)
{
#ifdef MP_PARTIAL
    frame->partial = mp_is_partial(frame, view);
#endif
}

static MP_INLINE void mp_renew_checksum(struct mp_frame *frame, const struct mp_view *view, uint32_t addresses, uint32_t ports)
{
    if (!frame->partial)
        mp_correct_transport(frame, view, mp_sum(addresses, ports));
#ifdef MP_GENERIC
    else
        mp_correct_partial(frame, view, addresses);
#else
#ifdef MP_FRAGS
    else if (mp_has_pieces(frame))
        mp_complete_pieces(frame, view);
#endif
    else
        mp_complete_checksum(frame, view);
#endif
}

/* Leaves `length` bytes of the frame, and puts `room` bytes before its Ethernet header. */
static MP_INLINE int mp_make_room(struct mp_frame *frame, uint32_t length, uint32_t room)
{
    struct xdp_md *context = frame->context;
    if (bpf_xdp_adjust_tail(context, (int)(length - frame->length)) || bpf_xdp_adjust_head(context, -(int)room))
        return -1;
    frame->data = (uint8_t *)(unsigned long)context->data;
    frame->end = (uint8_t *)(unsigned long)context->data_end;
    return 0;
}

/* Nothing is finished behind this hook: a partial checksum in a quote stays one. */
static MP_INLINE uint32_t mp_later_sum(struct mp_frame *frame, const struct mp_view *view, uint32_t *finished_later)
{
    (void)frame;
    (void)view;
    (void)finished_later;
    return 0;
}

#include "engine.h"

/* On veth XDP_TX wakes nobody but a peer with an XDP program (veth_xdp_flush(), drivers/net/veth.c): others find the frame
 * when the next one comes. A redirect wakes all that have NAPI. */
static MP_INLINE int mp_send(struct xdp_md *context, uint32_t interface)
{
#if !defined(MP_PARTIAL) || defined(MP_GENERIC)
    if (interface == context->ingress_ifindex)
        return XDP_TX;
#endif
    return bpf_redirect(interface, 0);
}

int mp_xdp(struct xdp_md *context)
{
    struct mp_frame frame = {
        .data = (uint8_t *)(unsigned long)context->data,
        .end = (uint8_t *)(unsigned long)context->data_end,
        .context = context,
    };
#ifdef MP_FRAGS
    frame.length = bpf_xdp_get_buff_len(context);
#else
    frame.length = (uint32_t)(frame.end - frame.data);
#endif
    struct mp_decision decision = {};
    mp_process(&frame, &decision);
    if (decision.verdict == MP_FORWARD)
        return mp_send(context, decision.hop.interface);
    if (decision.verdict == MP_REPLY)
        return mp_send(context, context->ingress_ifindex);
    return decision.verdict == MP_PASS ? XDP_PASS : XDP_DROP;
}
