/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The packet engine: one packet in, one decision out.
 *
 * Whoever includes this is a *hook* (xdp.c, tc.c, plain.c). It defines
 *   - before wire.h: MP_INLINE, MP_HOOK (one of enum mp_hook), struct mp_frame with data and end (of what is linear) and
 *     length (of all of it), mp_now (ns of the monotonic clock), mp_random, and the tables: mp_find_key, mp_add_key,
 *     mp_remove_key, mp_flow_at, mp_take_flow, mp_return_flow, mp_find_service, mp_picks_at, mp_backend_at, mp_source_at,
 *     mp_load_at, mp_settings_now, mp_atomic_add, mp_counters_of;
 *   - after wire.h, checksum.h, parse.h, transport.h: mp_route, mp_can_answer, mp_note_checksum, mp_renew_checksum.
 * Nothing is written into a packet before all that could speak against it was asked: what is passed on is as it came. */
#pragma once

#include "flows.h"
#include "rewrite.h"
#include "quoted.h"

struct mp_decision {
    enum mp_verdict verdict;
    enum mp_reason reason;
    uint32_t service; /* its number, 0 when it is not known */
    uint32_t has_flow;
    uint32_t side;    /* the packet's, where it is forwarded */
    uint32_t opened;  /* whether it opened a flow */
    struct mp_hop hop;
};

static MP_INLINE enum mp_verdict mp_verdict_of(enum mp_reason reason, int has_flow)
{
    if (reason == MP_FORWARDED)
        return MP_FORWARD;
    if (reason <= MP_NO_BACKEND)
        return MP_PASS;
    if (reason <= MP_NO_NEIGHBOUR && !has_flow)
        return MP_PASS; /* the stack may know better; it would reset what is established elsewhere */
    return MP_DROP;
}

/* Whether the flow is alive and this hook may forward it. */
static MP_INLINE enum mp_reason mp_is_ours(const struct mp_flow *flow)
{
    if (flow->ended || !(flow->state & MP_IN_USE))
        return MP_NO_FLOW;
    if (!(flow->hooks & (1 << MP_HOOK)))
        return MP_OTHER_TIER;
    return MP_FORWARDED;
}

/* Whether this hook may forward the flow's packet, and where to. */
static MP_INLINE enum mp_reason mp_find_hop(struct mp_frame *frame, const struct mp_view *view, const struct mp_flow *flow,
                                            uint32_t side, struct mp_decision *decision)
{
    struct mp_ends ends;
    decision->service = flow->service;
    enum mp_reason reason = mp_is_ours(flow);
    if (reason != MP_FORWARDED)
        return reason;
    decision->has_flow = 1;
    if (!mp_may_live_on(frame, view))
        return MP_TTL_EXPIRED;
    mp_new_ends(flow, side, &ends);
    return mp_route(frame, view, ends.source, ends.destination, &decision->hop);
}

static MP_INLINE void mp_count_flow(uint32_t service, const struct mp_settings *settings, uint64_t interval, uint64_t now,
                                    struct mp_decision *decision)
{
    struct mp_load *own = mp_load_at(service), *all = mp_load_at(0);
    if (own && all) {
        mp_charge(own, now, interval);
        mp_charge(all, now, settings->interval);
    }
    decision->opened = 1;
}

static MP_INLINE int mp_may_begin(const struct mp_view *view)
{
    return view->protocol == MP_UDP || (view->tcp_flags & (MP_SYN | MP_ACK | MP_RST | MP_FIN)) == MP_SYN;
}

/* A packet without a flow: one of a service may open one. */
static MP_INLINE enum mp_reason mp_begin(struct mp_frame *frame, const struct mp_view *view, const struct mp_settings *settings,
                                         uint64_t now, struct mp_decision *decision, struct mp_flow **flow)
{
    struct mp_service_key key = {.address = view->key.destination, .port = view->key.destination_port, .protocol = view->protocol};
    const struct mp_service *service = mp_find_service(&key);
    if (!service)
        return MP_NOT_OURS;
    decision->service = service->number;
    if (!(service->hooks & (1 << MP_HOOK)))
        return MP_OTHER_TIER;
    if (!mp_may_begin(view))
        return MP_NO_FLOW;
    if (!service->slots)
        return MP_NO_BACKEND;
    uint32_t slot = mp_slot(view, service, settings->seed);
    const struct mp_picks *picks = mp_picks_at(service->picks, slot / 4);
    if (!picks)
        return MP_NO_BACKEND;
    uint32_t backend_id = picks->backend[slot % 4];
    const struct mp_backend *backend = mp_backend_at(backend_id);
    const struct mp_address *source = backend ? mp_source_at(backend->first_source) : 0;
    if (!backend || !source || !backend->sources)
        return MP_NO_BACKEND;
    if (!mp_may_live_on(frame, view))
        return MP_TTL_EXPIRED;
    enum mp_reason reason = mp_route(frame, view, source, &backend->address, &decision->hop);
    if (reason != MP_FORWARDED)
        return reason;
    if (!mp_can_answer(frame, view))
        return MP_NO_NEIGHBOUR;
    reason = mp_admit(service, settings, now);
    if (reason == MP_FORWARDED)
        reason = mp_open(view, service, settings, backend_id, backend, now, flow);
    if (reason == MP_FORWARDED)
        mp_count_flow(service->number, settings, service->interval, now, decision);
    return reason;
}

static MP_INLINE enum mp_reason mp_carry(struct mp_frame *frame, const struct mp_view *view, struct mp_decision *decision)
{
    const struct mp_settings *settings = mp_settings_now();
    if (!settings)
        return MP_FAULT;
    uint64_t now = mp_now();
    struct mp_flow *flow = 0;
    uint32_t side = MP_FROM_CLIENT;
    enum mp_reason reason;
    const struct mp_flow_ref *ref = mp_find_key(&view->key);
    if (ref) {
        side = ref->side & 1;
        flow = mp_flow_at(ref->flow);
        if (!flow)
            return MP_FAULT;
        reason = mp_find_hop(frame, view, flow, side, decision);
        if (reason == MP_NO_FLOW && side == MP_FROM_CLIENT && mp_may_begin(view))
            reason = MP_FLOW_ENDING; /* its key goes any moment; the client asks again */
    } else {
        reason = mp_begin(frame, view, settings, now, decision, &flow);
    }
    if (reason != MP_FORWARDED || !flow)
        return reason;
    if (mp_follow(flow, side, view, settings, now) && !decision->opened)
        mp_count_flow(flow->service, settings, 0, now, decision);
    decision->side = side;
    mp_address_frame(frame, &decision->hop);
    mp_rewrite(frame, view, flow, side);
    return MP_FORWARDED;
}

static MP_INLINE enum mp_reason mp_carry_error(struct mp_frame *frame, const struct mp_view *view, struct mp_decision *decision)
{
    struct mp_icmp *icmp = (struct mp_icmp *)view->l4;
    struct mp_quote quote = {};
    if (!mp_in_packet(frame, view, view->l4, sizeof *icmp) || !mp_is_error(view, icmp->type))
        return MP_NOT_OURS; /* an echo, for instance, which this host answers by itself */
    if (!mp_read_quote(frame, view, &quote))
        return MP_NOT_OURS;
    const struct mp_flow_ref *ref = mp_find_key(&quote.answer);
    if (!ref)
        return MP_NOT_OURS;
    uint32_t side = ref->side & 1;
    const struct mp_flow *flow = mp_flow_at(ref->flow);
    if (!flow)
        return MP_FAULT;
    enum mp_reason reason = mp_find_hop(frame, view, flow, side, decision);
    if (reason != MP_FORWARDED)
        return reason;
    decision->side = side;
    mp_address_frame(frame, &decision->hop);
    mp_rewrite_error(frame, view, &quote, flow, side);
    return MP_FORWARDED;
}

static MP_INLINE void mp_count(const struct mp_view *view, const struct mp_decision *decision)
{
    struct mp_counters *counters = mp_counters_of(decision->service);
    uint32_t reason = decision->reason;
    if (!counters || reason >= MP_REASONS)
        return;
    counters->reasons[reason]++;
    if (reason != MP_FORWARDED)
        return;
    counters->opened += decision->opened;
    counters->packets[decision->side & 1]++;
    counters->bytes[decision->side & 1] += view->bytes;
}

/* Decides about a frame and, if it is to be forwarded, rewrites it. */
static MP_INLINE void mp_process(struct mp_frame *frame, struct mp_decision *decision)
{
    struct mp_view view = {};
    enum mp_reason reason = mp_parse(frame, &view);
    if (reason == MP_FORWARDED) {
        if (view.protocol == MP_TCP || view.protocol == MP_UDP)
            reason = mp_carry(frame, &view, decision);
        else if (view.protocol == (view.version == 4 ? MP_ICMP : MP_ICMPV6))
            reason = mp_carry_error(frame, &view, decision);
        else
            reason = MP_NOT_OURS;
    }
    decision->reason = reason;
    decision->verdict = mp_verdict_of(reason, decision->has_flow);
    mp_count(&view, decision);
}
