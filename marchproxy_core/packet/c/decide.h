/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What becomes of a packet. Writes flows and counters of flows, and never the packet: what is passed on is as it came. */
#pragma once

/* What became of one packet. */
struct mp_decision {
    enum mp_verdict verdict;
    enum mp_reason reason;
    uint32_t service; /* its number, 0 when it is not known */
    uint32_t has_flow; /* whether it is of one that this hook may forward, and that none below it would */
    uint32_t opened;      /* whether it opened a flow */
    uint32_t side;        /* the packet's, where it has a flow */
    struct mp_flow *flow; /* the flow, where it is forwarded */
    struct mp_hop hop;
};

/* Whether an ICMP error may be sent now; they are kept apart by mp_settings.error_interval. */
static MP_INLINE void mp_admit_answer(const struct mp_settings *settings, struct mp_decision *decision)
{
    struct mp_load *all = mp_load_at(0);
    uint64_t now = mp_now();
    if (all && all->next_error <= now) {
        all->next_error = now + settings->error_interval;
        decision->verdict = MP_REPLY;
    } else {
        decision->reason = MP_ERROR_RATE;
    }
}

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
    if (flow->ended || !flow->protocol)
        return MP_NO_FLOW;
    if (!(flow->hooks & (1 << MP_HOOK)))
        return MP_OTHER_TIER;
    return MP_FORWARDED;
}

/* Whether what this hook cannot forward meets another one before the stack, which may: TC has the kernel find neighbours. */
static MP_INLINE int mp_is_caught(const struct mp_flow *flow, const struct mp_settings *settings)
{
    return MP_HOOK == MP_HOOK_XDP && (flow->hooks & settings->live_hooks & (1 << MP_HOOK_TC));
}

/* The next hop of a flow's packet: the one that is known, or as the kernel says. Another CPU may write it at the same time,
 * and then one packet may go to the address before. */
static MP_INLINE enum mp_reason mp_find_way(struct mp_frame *frame, const struct mp_view *view, struct mp_known_hop *known,
                                            const struct mp_ends *ends, const struct mp_settings *settings, uint64_t now,
                                            struct mp_hop *hop)
{
    uint16_t stamp = (uint16_t)(mp_tick(now) + settings->generation);
    if (known->interface && known->stamp == stamp) {
        hop->interface = known->interface;
        hop->resolved = 1;
        hop->mtu = known->mtu;
        __builtin_memcpy(hop->source, known->source, sizeof hop->source);
        __builtin_memcpy(hop->destination, known->destination, sizeof hop->destination);
        return mp_fits(frame, view, hop->mtu);
    }
    enum mp_reason reason = mp_route(frame, view, ends->source, ends->destination, hop);
    if (reason != MP_FORWARDED)
        return reason;
    known->interface = 0;
    if (hop->resolved && hop->interface <= 0xffff) {
        known->stamp = stamp;
        known->mtu = hop->mtu > 0xffff ? 0xffff : (uint16_t)hop->mtu;
        __builtin_memcpy(known->source, hop->source, sizeof hop->source);
        __builtin_memcpy(known->destination, hop->destination, sizeof hop->destination);
        known->interface = (uint16_t)hop->interface;
    }
    return mp_fits(frame, view, hop->mtu);
}

/* Whether this hook may forward a packet of the flow that a key led to, and where to. */
static MP_INLINE enum mp_reason mp_find_hop(struct mp_frame *frame, const struct mp_view *view, struct mp_flow *flow,
                                            uint32_t side, const struct mp_settings *settings, uint64_t now,
                                            struct mp_decision *decision)
{
    struct mp_ends ends;
    if (!flow)
        return MP_FAULT;
    decision->service = flow->service;
    enum mp_reason reason = mp_is_ours(flow);
    if (reason != MP_FORWARDED)
        return reason;
    decision->has_flow = 1;
    if (side == MP_FROM_CLIENT) {
        reason = mp_screen_client(view, settings, flow->service, 0, now);
        if (reason != MP_FORWARDED)
            return reason;
    }
    decision->side = side;
    decision->flow = flow;
    if (!mp_may_live_on(frame, view))
        return MP_TTL_EXPIRED;
    mp_new_ends(flow, decision->side, &ends);
    reason = mp_find_way(frame, view, &flow->hop[decision->side], &ends, settings, now, &decision->hop);
    if (reason != MP_FORWARDED && mp_is_caught(flow, settings))
        decision->has_flow = 0;
    return reason;
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
                                         uint64_t now, struct mp_decision *decision)
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
    enum mp_reason reason = mp_screen_client(view, settings, service->number, 1, now);
    if (reason != MP_FORWARDED)
        return reason;
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
    reason = mp_route(frame, view, source, &backend->address, &decision->hop);
    if (reason == MP_FORWARDED)
        reason = mp_fits(frame, view, decision->hop.mtu);
    if (reason != MP_FORWARDED)
        return reason;
    if (!mp_can_answer(frame, view))
        return MP_NO_NEIGHBOUR;
    reason = mp_admit(service, settings, view, now);
    if (reason == MP_FORWARDED)
        reason = mp_open(view, service, settings, backend_id, backend, now, &decision->flow);
    if (reason == MP_FORWARDED)
        mp_count_flow(service->number, settings, service->interval, now, decision);
    return reason;
}

/* A TCP or UDP packet. */
static MP_INLINE enum mp_reason mp_decide_packet(struct mp_frame *frame, const struct mp_view *view,
                                                 const struct mp_settings *settings, struct mp_decision *decision)
{
    uint64_t now = mp_now();
    enum mp_reason reason;
    struct mp_flow *flow = 0;
    uint32_t side = 0;
    if (mp_find_flow(&view->key, settings, &flow, &side)) {
        reason = mp_find_hop(frame, view, flow, side, settings, now, decision);
        if (reason == MP_NO_FLOW && side == MP_FROM_CLIENT && mp_may_begin(view))
            reason = MP_FLOW_ENDING; /* its key goes any moment; the client asks again */
    } else {
        reason = mp_begin(frame, view, settings, now, decision);
    }
    flow = decision->flow;
    if (reason != MP_FORWARDED || !flow)
        return reason;
    if (mp_follow(flow, decision->side, view, settings, now) && !decision->opened)
        mp_count_flow(flow->service, settings, 0, now, decision);
    return MP_FORWARDED;
}

/* An ICMP packet: an error about a packet of a flow, or nothing of ours. */
static MP_INLINE enum mp_reason mp_decide_error(struct mp_frame *frame, const struct mp_view *view, struct mp_quote *quote,
                                                const struct mp_settings *settings, struct mp_decision *decision)
{
    struct mp_icmp *icmp = (struct mp_icmp *)view->l4;
    if (!mp_in_packet(frame, view, view->l4, sizeof *icmp) || !mp_is_error(view, icmp->type))
        return MP_NOT_OURS; /* an echo, for instance, which this host answers by itself */
    struct mp_flow_key answer __attribute__((aligned(8)));
    if (!mp_read_quote(frame, view, quote, &answer))
        return MP_NOT_OURS;
    const struct mp_flow_ref *ref = mp_find_key(&answer);
    return ref ? mp_find_hop(frame, view, mp_flow_at(ref->flow), ref->side & 1, settings, mp_now(), decision) : MP_NOT_OURS;
}

static MP_INLINE int mp_has_ports(const struct mp_view *view)
{
    return view->protocol == MP_TCP || view->protocol == MP_UDP;
}

/* What becomes of the packet in view, and why; the decision has what the parser found. */
static MP_INLINE void mp_decide(struct mp_frame *frame, const struct mp_view *view, struct mp_quote *quote,
                                struct mp_decision *decision)
{
    const struct mp_settings *settings = mp_settings_now();
    enum mp_reason reason = settings ? mp_screen(view, settings, decision->reason) : MP_FAULT;
    if (settings && reason == MP_FORWARDED) {
        if (mp_has_ports(view))
            reason = mp_decide_packet(frame, view, settings, decision);
        else if (view->protocol == (view->version == 4 ? MP_ICMP : MP_ICMPV6))
            reason = mp_decide_error(frame, view, quote, settings, decision);
        else
            reason = MP_NOT_OURS;
    }
    decision->reason = reason;
    decision->verdict = mp_verdict_of(reason, decision->has_flow);
    if (reason == MP_MALFORMED)
        decision->verdict = MP_DROP; /* the parser's own findings do not come here */
    /* Never an error about an error: RFC 1122, 3.2.2. */
    if (settings && (reason == MP_TTL_EXPIRED || reason == MP_TOO_BIG) && mp_has_ports(view))
        mp_admit_answer(settings, decision);
}
