/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The engine in the driver. MP_PARTIAL: on veth and virtio, checksums may be partial. MP_FRAGS: frames of several pieces
 * (since Linux 5.18). */
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
    return mp_ask_kernel(frame->context, view, source, destination, view->bytes, hop);
}

/* Whether an answer would find its way: there is no stack here that would ask for the client's link-layer address. A first
 * packet that it stops goes to the stack, whose answer makes it known. */
static MP_INLINE int mp_can_answer(struct mp_frame *frame, const struct mp_view *view)
{
    struct mp_hop hop;
    enum mp_reason reason = mp_ask_kernel(frame->context, view, &view->key.destination, &view->key.source, 0, &hop);
    return reason == MP_FORWARDED;
}

static MP_INLINE void mp_note_checksum(struct mp_frame *frame, const struct mp_view *view)
{
#ifdef MP_PARTIAL
    frame->partial = mp_is_partial(frame, view);
#endif
}

static MP_INLINE void mp_renew_checksum(struct mp_frame *frame, const struct mp_view *view, uint32_t addresses, uint32_t ports)
{
    if (frame->partial)
        mp_complete_checksum(frame, view);
    else
        mp_correct_transport(frame, view, mp_sum(addresses, ports));
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
        return decision.hop.interface == context->ingress_ifindex ? XDP_TX : bpf_redirect(decision.hop.interface, 0);
    if (decision.verdict == MP_REPLY)
        return XDP_TX;
    return decision.verdict == MP_PASS ? XDP_PASS : XDP_DROP;
}
