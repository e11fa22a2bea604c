/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Finding, opening and following flows.
 *
 * One flow has one value and two keys. The reply's key goes in first: it is the one that may be taken, by another
 * client behind the same source port. When the client's key then turns out to be there already (two CPUs, one
 * client), the reply's key goes out again, so there is never half a flow. Only user space ends a flow. */
#pragma once

#define MP_TRIES_A_SOURCE 32 /* a power of two */
#define MP_TRIES 128         /* over all source addresses of one backend */

static MP_INLINE uint32_t mp_tick(uint64_t now)
{
    return (uint32_t)(now >> 30);
}

/* Where the hint of a key is; 0 where there are none. */
static MP_INLINE uint32_t *mp_hint_of(const struct mp_flow_key *key, const struct mp_settings *settings)
{
    const mp_pair *pair = (const mp_pair *)key;
    uint64_t mixed = pair[0] * 0x9e3779b97f4a7c15ULL + pair[1] * 0xff51afd7ed558ccdULL + pair[2] * 0xc4ceb9fe1a85ec53ULL +
                     pair[3] * 0xbf58476d1ce4e5b9ULL + pair[4] * 0x94d049bb133111ebULL;
    mixed = (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15ULL;
    uint32_t place = (uint32_t)((mixed >> 32) * settings->hints >> 32);
    struct mp_hints *hints = mp_hints_at(place / 16);
    return hints ? &hints->hint[place % 16] : 0;
}

/* Whether the flow is open and has this key on that side. The hooks are read first: they are there only while all else is. */
static MP_INLINE int mp_has_key(const struct mp_flow *flow, uint32_t side, const struct mp_flow_key *key)
{
    const mp_pair *ends = (const mp_pair *)flow + 4 * side, *wanted = (const mp_pair *)key;
    uint32_t open = flow->hooks;
    MP_IN_ORDER();
    uint64_t other = (ends[0] ^ wanted[0]) | (ends[1] ^ wanted[1]) | (ends[2] ^ wanted[2]) | (ends[3] ^ wanted[3]);
    uint64_t ports = ((const uint32_t __attribute__((may_alias)) *)&flow->client_port)[side];
    other |= (ports | (uint64_t)flow->protocol << 32) ^ wanted[4];
    return open && !flow->ended && !other;
}

/* The flow that a key leads to, if it is there: 0 when the key is not. A hint spares the table of keys, which is three places
 * in memory, one after the other, where this is one. */
static MP_INLINE int mp_find_flow(const struct mp_flow_key *key, const struct mp_settings *settings, struct mp_flow **flow,
                                  uint32_t *side)
{
    uint32_t *hint = mp_hint_of(key, settings);
    if (hint) {
        uint32_t guess = *hint;
        *flow = mp_flow_at(guess / 2);
        *side = guess & 1;
        if (*flow && mp_has_key(*flow, *side, key))
            return 1;
    }
    const struct mp_flow_ref *ref = mp_find_key(key);
    if (!ref)
        return 0;
    *flow = mp_flow_at(ref->flow);
    *side = ref->side & 1;
    if (hint)
        *hint = ref->flow * 2 + *side;
    return 1;
}

/* The slot of a client in its service's table of picks; by address as marchproxy_core/backends/maglev.py has it,
 * so that a client keeps its backend when its service changes tiers. */
static MP_INLINE uint32_t mp_slot(const struct mp_view *view, const struct mp_service *service, uint32_t seed)
{
    const uint32_t *word = view->key.source.word;
    uint64_t high = 0, low = __builtin_bswap32(word[3]);
    if (view->version == 6) {
        high = (uint64_t)__builtin_bswap32(word[0]) << 32 | __builtin_bswap32(word[1]);
        low |= (uint64_t)__builtin_bswap32(word[2]) << 32;
    }
    if (!(service->flags & MP_BY_ADDRESS))
        high ^= (uint64_t)seed << 32 | view->key.source_port;
    uint64_t mixed = (low ^ high * 0x9e3779b97f4a7c15ULL) * 0xff51afd7ed558ccdULL;
    mixed = (mixed ^ mixed >> 32) * 0xc4ceb9fe1a85ec53ULL;
    return (uint32_t)((mixed >> 32) % service->slots);
}

/* Whether one more flow is on time, given the rate that `interval` and `burst` stand for. */
static MP_INLINE int mp_is_due(const struct mp_load *load, uint64_t now, uint64_t interval, uint64_t burst)
{
    return !interval || load->due <= now + burst;
}

/* Two CPUs may do this at once, and then count one flow for both: limits are kept to within a flow per CPU. */
static MP_INLINE void mp_charge(struct mp_load *load, uint64_t now, uint64_t interval)
{
    uint64_t due = load->due;
    if (interval)
        load->due = (due < now ? now : due) + interval;
    mp_atomic_add(&load->opened, 1);
}

static MP_INLINE enum mp_reason mp_admit(const struct mp_service *service, const struct mp_settings *settings,
                                         const struct mp_view *view, uint64_t now)
{
    struct mp_load *own = mp_load_at(service->number), *all = mp_load_at(0);
    if (!own || !all)
        return MP_FAULT;
    /* Signed: a flow that was given up may be answered after all, and is then counted off twice. */
    int64_t opening = (int64_t)(own->opened - own->answered - own->lapsed);
    if (view->protocol == MP_TCP && settings->max_opening && opening >= (int64_t)settings->max_opening)
        return MP_TOO_MANY_OPENING;
    if (service->max_active && own->opened - own->ended >= service->max_active)
        return MP_MAX_CONNECTIONS;
    if (settings->max_active && all->opened - all->ended >= settings->max_active)
        return MP_GLOBAL_MAX_CONNECTIONS;
    if (!mp_is_due(own, now, service->interval, service->burst))
        return MP_CONNECTION_RATE;
    if (!mp_is_due(all, now, settings->interval, settings->burst))
        return MP_GLOBAL_CONNECTION_RATE;
    return MP_FORWARDED;
}

/* Gives the flow a source address and port that no other flow to this backend has, and its reply's key. */
static MP_INLINE enum mp_reason mp_reserve(struct mp_flow *flow, const struct mp_backend *backend,
                                           const struct mp_settings *settings, const struct mp_flow_ref *ref)
{
    struct mp_flow_key reply = {.source = flow->backend, .source_port = flow->backend_port, .protocol = flow->protocol};
    uint32_t first = settings->first_port, span = (uint32_t)settings->last_port - first + 1;
    uint32_t start = mp_random(), client_port = MP_BE16(flow->client_port);
    uint32_t sources = backend->sources;
    if (!sources || settings->last_port < first)
        return MP_NO_SOURCE_PORT;
#pragma clang loop unroll(disable)
    for (uint32_t try = 0; try < MP_TRIES; try++) {
        if (try / MP_TRIES_A_SOURCE >= sources)
            break;
        uint32_t which = (start + try / MP_TRIES_A_SOURCE) % sources; /* any first, so that all have their share */
        const struct mp_address *source = mp_source_at(backend->first_source + which);
        if (!source)
            return MP_FAULT;
        uint32_t port = first + (start + try) % span;
        if (try == 0 && client_port >= first && client_port - first < span)
            port = client_port;
        flow->source = *source;
        flow->source_port = MP_BE16(port);
        reply.destination = flow->source;
        reply.destination_port = flow->source_port;
        if (mp_add_key(&reply, ref) == 0)
            return MP_FORWARDED;
    }
    return MP_NO_SOURCE_PORT;
}

static MP_INLINE void mp_note_sums(struct mp_flow *flow)
{
    uint32_t to_backend = mp_sum(mp_sum(mp_address_sum(&flow->source), mp_address_sum(&flow->backend)),
                                 mp_sum(~mp_address_sum(&flow->client), ~mp_address_sum(&flow->listen)));
    uint32_t ports = 0;
    ports = mp_changed16(ports, flow->client_port, flow->source_port);
    ports = mp_changed16(ports, flow->listen_port, flow->backend_port);
    flow->address_sum = mp_fold(to_backend);
    flow->port_sum = mp_fold(ports);
}

static MP_INLINE void mp_remove_reply_key(const struct mp_flow *flow)
{
    struct mp_flow_key reply = {.source = flow->backend,
                                .destination = flow->source,
                                .source_port = flow->backend_port,
                                .destination_port = flow->source_port,
                                .protocol = flow->protocol};
    mp_remove_key(&reply);
}

/* Opens a flow for the packet in view, to the backend given; on success `*opened` is where it is. */
static MP_INLINE enum mp_reason mp_open(const struct mp_view *view, const struct mp_service *service,
                                        const struct mp_settings *settings, uint32_t backend_id,
                                        const struct mp_backend *backend, uint64_t now, struct mp_flow **opened)
{
    struct mp_flow_ref ref = {.side = MP_FROM_BACKEND};
    if (mp_take_flow(&ref.flow))
        return MP_FLOW_TABLE_FULL;
    struct mp_flow *flow = mp_flow_at(ref.flow);
    if (!flow)
        return MP_FAULT;
    flow->client = view->key.source;
    flow->listen = view->key.destination;
    flow->backend = backend->address;
    flow->client_port = view->key.source_port;
    flow->listen_port = view->key.destination_port;
    flow->backend_port = backend->port;
    flow->service = service->number;
    flow->backend_id = (uint16_t)backend_id;
    flow->protocol = (uint8_t)view->protocol;
    flow->ended = 0;
    flow->counted = 0;
    flow->expires = mp_tick(now) + settings->opening_ticks;
    flow->seen[MP_FROM_CLIENT] = flow->seen[MP_FROM_BACKEND] = 0;
    flow->hop[MP_FROM_CLIENT].interface = flow->hop[MP_FROM_BACKEND].interface = 0;
    enum mp_reason reason = mp_reserve(flow, backend, settings, &ref);
    if (reason == MP_FORWARDED) {
        mp_note_sums(flow);
        ref.side = MP_FROM_CLIENT;
        if (mp_add_key(&view->key, &ref) == 0) {
            MP_IN_ORDER();
            flow->hooks = service->hooks;
            *opened = flow;
            return MP_FORWARDED;
        }
        mp_remove_reply_key(flow);
        reason = MP_FLOW_ENDING;
    }
    flow->protocol = 0;
    mp_return_flow(ref.flow);
    return reason;
}

/* Whether both sides, or one by a reset, have said that it is over. */
static MP_INLINE int mp_is_closed(const struct mp_flow *flow)
{
    uint32_t client = flow->seen[MP_FROM_CLIENT], backend = flow->seen[MP_FROM_BACKEND];
    return ((client | backend) & MP_SEEN_RESET) || (client & backend & MP_SEEN_FIN);
}

/* Whether a client's segment ends the handshake. A backend answers every SYN, whoever made up its source; what is asked here
 * is not the right number, so who makes up both is taken for a client, but has to send two packets for each flow. */
static MP_INLINE int mp_is_answer(const struct mp_flow *flow, const struct mp_view *view)
{
    return (view->tcp_flags & (MP_SYN | MP_ACK | MP_RST)) == MP_ACK && flow->seen[MP_FROM_BACKEND];
}

/* What is new of this side; the other's byte is another CPU's as a rule. Returns whether the client begins anew. */
static MP_INLINE int mp_see(struct mp_flow *flow, uint32_t side, const struct mp_view *view)
{
    uint32_t before = flow->seen[side], seen = (before & ~(uint32_t)MP_SEEN_RESET) | MP_SEEN;
    int again = 0;
    if (view->protocol == MP_TCP) {
        again = side == MP_FROM_CLIENT && (view->tcp_flags & (MP_SYN | MP_ACK)) == MP_SYN && mp_is_closed(flow);
        if (again) {
            seen = MP_SEEN;
            flow->seen[MP_FROM_BACKEND] = 0;
        }
        if (view->tcp_flags & MP_RST)
            seen |= MP_SEEN_RESET;
        if (view->tcp_flags & MP_FIN)
            seen |= MP_SEEN_FIN;
        if (side == MP_FROM_CLIENT && !(seen & MP_SEEN_ACK) && mp_is_answer(flow, view)) {
            struct mp_load *load = mp_load_at(flow->service);
            seen |= MP_SEEN_ACK;
            if (load)
                mp_atomic_add(&load->answered, 1);
        }
    }
    if (seen != before)
        flow->seen[side] = seen;
    return again;
}

/* Follows a flow's life, as far as its expiry needs it. Nothing here is believed for longer than until the side's next
 * packet: a forged RST shortens a flow's life, and the next real packet restores it. Written only where it changes, once a
 * tick as a rule, so that the two CPUs of the two directions do not fight for the line. Returns whether the client has begun
 * anew with the same port. */
static MP_INLINE int mp_follow(struct mp_flow *flow, uint32_t side, const struct mp_view *view,
                               const struct mp_settings *settings, uint64_t now)
{
    int again = mp_see(flow, side, view);
    uint32_t ticks = settings->established_ticks;
    if (mp_is_closed(flow)) {
        ticks = settings->closing_ticks;
    } else if (view->protocol == MP_TCP && !(flow->seen[MP_FROM_CLIENT] & MP_SEEN_ACK)) {
        if (side == MP_FROM_BACKEND)
            return again; /* it repeats its answer for a minute, also where nobody asked */
        ticks = settings->opening_ticks;
    }
    uint32_t expires = mp_tick(now) + ticks;
    if (expires != flow->expires)
        flow->expires = expires;
    return again;
}
