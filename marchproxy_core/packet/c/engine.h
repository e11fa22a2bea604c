/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The packet engine: one packet in, one decision out.
 *
 * Whoever includes this is a *hook* (xdp.c, tc.c, plain.c). It defines
 *   - before wire.h: MP_INLINE, MP_HOOK (one of enum mp_hook), struct mp_frame with data and end (of what is linear) and
 *     length (of all of it), mp_now (ns of the monotonic clock), mp_random, and the tables: mp_find_key, mp_add_key,
 *     mp_remove_key, mp_flow_at, mp_hints_at, mp_take_flow, mp_return_flow, mp_find_service, mp_picks_at, mp_backend_at, mp_source_at,
 *     mp_load_at, mp_settings_now, mp_atomic_add, mp_counters_of, mp_find_prefix,
 *     mp_find_pace, mp_add_pace, mp_tell;
 *   - after wire.h, checksum.h, parse.h, transport.h: mp_route, mp_fits, mp_can_answer, mp_note_checksum, mp_renew_checksum, and for
 *     errors mp_make_room and mp_later_sum.
 * It decides, counts, then acts. Nothing is written into a packet before all that could speak against it was asked. */
#pragma once

#include "flows.h"
#include "rewrite.h"
#include "quoted.h"
#include "door.h"
#include "decide.h"
#include "errors.h"

/* Tells user space of a drop, as an example of many. */
static MP_INLINE void mp_sample(const struct mp_view *view, const struct mp_decision *decision, struct mp_counters *counters)
{
    const struct mp_settings *settings = mp_settings_now();
    uint64_t now = mp_now();
    if (!settings || now < counters->next_sample)
        return;
    counters->next_sample = now + settings->sample_interval;
    struct mp_sample sample = {
        .source = view->key.source,
        .destination = view->key.destination,
        .source_port = view->key.source_port,
        .destination_port = view->key.destination_port,
        .protocol = view->key.protocol,
        .hook = MP_HOOK,
        .reason = decision->reason,
        .service = decision->service,
    };
    mp_tell(&sample);
}

static MP_INLINE void mp_count(const struct mp_view *view, const struct mp_decision *decision)
{
    struct mp_counters *counters = mp_counters_of(decision->service);
    uint32_t reason = decision->reason;
    if (!counters || reason >= MP_REASONS)
        return;
    counters->reasons[reason]++;
    if (decision->verdict == MP_DROP)
        mp_sample(view, decision, counters);
    if (reason != MP_FORWARDED)
        return;
    counters->opened += decision->opened;
    counters->packets[decision->side & 1]++;
    counters->bytes[decision->side & 1] += view->bytes;
}

/* What cannot be read goes to the stack, which knows best what to do with it, unless it is to be kept from there. */
static MP_INLINE enum mp_verdict mp_judge_malformed(void)
{
    const struct mp_settings *settings = mp_settings_now();
    return settings && settings->doors & MP_DROP_MALFORMED ? MP_DROP : MP_PASS;
}

/* Decides about a frame, and rewrites it if it is to be forwarded or answered. */
static MP_INLINE void mp_process(struct mp_frame *frame, struct mp_decision *decision)
{
    struct mp_view view = {};
    struct mp_quote quote = {};
    decision->reason = mp_parse(frame, &view);
    decision->verdict = MP_PASS;
    if (decision->reason == MP_FORWARDED || mp_has_addresses(decision->reason))
        mp_decide(frame, &view, &quote, decision);
    else if (decision->reason == MP_MALFORMED)
        decision->verdict = mp_judge_malformed();
    mp_count(&view, decision);
    if (decision->verdict == MP_REPLY)
        decision->verdict = mp_answer(frame, &view, decision);
    if (decision->verdict != MP_FORWARD || !decision->flow)
        return;
    mp_address_frame(frame, &decision->hop);
    if (mp_has_ports(&view))
        mp_rewrite(frame, &view, decision->flow, decision->side);
    else if (quote.l3 && quote.l4)
        mp_rewrite_error(frame, &view, &quote, decision->flow, decision->side);
}
