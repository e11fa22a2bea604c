/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The front door: who may come in at all, and how fast. What is asked nowhere costs one comparison. */
#pragma once

/* Whether a prefix with the address is blocked or allowed, for one service or, with number 0, for all; the longest one that
 * fits counts. 0: there is none. */
static MP_INLINE uint32_t mp_door_of(const struct mp_view *view, uint32_t service)
{
    struct mp_prefix_key key = {.bits = 32 + 128, .service = service, .address = view->key.source};
    const struct mp_prefix *prefix = mp_find_prefix(&key);
    return prefix ? prefix->door : 0;
}

/* Flags that no TCP sends: none at all, or a beginning that is an end too (RFC 9293, 3.10.7). */
static MP_INLINE int mp_is_nonsense(const struct mp_view *view)
{
    uint32_t flags = view->tcp_flags & (MP_SYN | MP_FIN | MP_RST | MP_ACK);
    if (view->protocol != MP_TCP)
        return 0;
    return !flags || flags == MP_FIN || (flags & MP_SYN && flags & (MP_FIN | MP_RST));
}

/* A client's packets come at most so fast. One IPv6 client is a /64, of which he has all addresses. */
static MP_INLINE enum mp_reason mp_keep_pace(const struct mp_view *view, const struct mp_settings *settings, uint64_t now)
{
    struct mp_address client = view->key.source;
    if (!settings->pace_interval)
        return MP_FORWARDED;
    if (view->version == 6)
        client.word[2] = client.word[3] = 0;
    struct mp_pace *pace = mp_find_pace(&client);
    if (!pace) {
        struct mp_pace first = {.due = now + settings->pace_interval};
        mp_add_pace(&client, &first);
        return MP_FORWARDED;
    }
    uint64_t due = pace->due; /* two CPUs may read the same: one packet more */
    if (due > now + settings->pace_burst)
        return MP_PACE;
    pace->due = (due < now ? now : due) + settings->pace_interval;
    return MP_FORWARDED;
}

/* Whether the parser, which did not get to the end, has read who sends to whom: a fragment is to be blocked too. */
static MP_INLINE int mp_has_addresses(enum mp_reason found)
{
    return found == MP_FRAGMENT || found == MP_UNKNOWN_EXTENSION;
}

/* What is asked of every packet, before anything is looked up; what the parser found stays, unless it is kept out. */
static MP_INLINE enum mp_reason mp_screen(const struct mp_view *view, const struct mp_settings *settings, enum mp_reason found)
{
    if (settings->doors & MP_DROP_MALFORMED && found == MP_FORWARDED && mp_is_nonsense(view))
        return MP_MALFORMED;
    if (settings->doors & MP_HAS_PREFIXES && mp_door_of(view, 0) == MP_BLOCK)
        return MP_BLOCKED;
    return found;
}

/* What is asked of a client's packet to a service, when it would begin a flow and when it has one. */
static MP_INLINE enum mp_reason mp_screen_client(const struct mp_view *view, const struct mp_settings *settings, uint32_t service,
                                                 int begins, uint64_t now)
{
    if (settings->doors & MP_HAS_SERVICE_PREFIXES && (begins || settings->pace_interval)) {
        uint32_t door = mp_door_of(view, service);
        if (door == MP_ALLOW)
            return MP_FORWARDED;
        if (begins && door == MP_BLOCK)
            return MP_BLOCKED;
    }
    if (settings->pace_interval && settings->doors & MP_HAS_PREFIXES && mp_door_of(view, 0) == MP_ALLOW)
        return MP_FORWARDED;
    return mp_keep_pace(view, settings, now);
}
