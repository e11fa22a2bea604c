/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The engine as a plain library: for tests, sanitizers and the fuzzer. One world at a time, one thread. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MP_INLINE inline
#define MP_HOOK world->hook

#include "types.h"
#include "plain.h"
#include "plain_tables.h"
#include "wire.h"
#include "checksum.h"
#include "parse.h"
#include "transport.h"

static enum mp_reason mp_route(struct mp_frame *frame, const struct mp_view *view, const struct mp_address *source,
                               const struct mp_address *destination, struct mp_hop *hop)
{
    static const struct mp_address every;
    (void)frame;
    (void)view;
    (void)source;
    for (uint32_t at = 0; at < world->routes_count; at++) {
        const struct mp_plain_route *route = &world->routes[at];
        if (memcmp(&route->destination, destination, sizeof *destination) && memcmp(&route->destination, &every, sizeof every))
            continue;
        if (route->reason != MP_FORWARDED)
            return route->reason;
        hop->mtu = route->mtu;
        hop->interface = route->interface;
        hop->resolved = 1;
        memcpy(hop->source, route->source, sizeof hop->source);
        memcpy(hop->destination, route->destination_mac, sizeof hop->destination);
        return MP_FORWARDED;
    }
    return MP_NO_ROUTE;
}

static int mp_can_answer(struct mp_frame *frame, const struct mp_view *view)
{
    struct mp_hop hop;
    enum mp_reason reason = mp_route(frame, view, &view->key.destination, &view->key.source, &hop);
    return reason == MP_FORWARDED;
}

static enum mp_reason mp_fits(struct mp_frame *frame, const struct mp_view *view, uint32_t mtu)
{
    (void)frame;
    return view->bytes > mtu ? MP_TOO_BIG : MP_FORWARDED;
}

static void mp_note_checksum(struct mp_frame *frame, const struct mp_view *view)
{
    frame->partial = world->partial && mp_is_partial(frame, view);
}

static void mp_renew_checksum(struct mp_frame *frame, const struct mp_view *view, uint32_t addresses, uint32_t ports)
{
    if (frame->partial)
        mp_complete_checksum(frame, view);
    else
        mp_correct_transport(frame, view, mp_sum(addresses, ports));
}

/* Leaves `length` bytes of the frame, and puts `room` bytes before its Ethernet header. */
static int mp_make_room(struct mp_frame *frame, uint32_t length, uint32_t room)
{
    if (length + room > frame->capacity)
        return -1;
    memmove(frame->data + room, frame->data, length);
    frame->length = length + room;
    frame->end = frame->data + frame->length;
    return 0;
}

static uint32_t mp_later_sum(struct mp_frame *frame, const struct mp_view *view, uint32_t *finished_later)
{
    (void)frame;
    (void)view;
    (void)finished_later;
    return 0;
}

#include "engine.h"

struct mp_plain *mp_plain_new(uint32_t flows, uint32_t services, uint32_t backends, uint32_t hook, uint32_t partial)
{
    struct mp_plain *plain = calloc(1, sizeof *plain);
    if (!plain)
        return 0;
    plain->flows = flows;
    plain->services = services;
    plain->backends = backends;
    plain->hook = hook;
    plain->partial = partial;
    plain->flow = calloc(flows, sizeof *plain->flow);
    plain->free_places = calloc(flows, sizeof *plain->free_places);
    plain->picks = calloc((size_t)services * 2 * MP_PLAIN_PICKS, sizeof *plain->picks);
    plain->backend = calloc(backends, sizeof *plain->backend);
    plain->sources = calloc(backends, sizeof *plain->sources);
    plain->loads = calloc(services, sizeof *plain->loads);
    plain->counters = calloc((size_t)services * 2, sizeof *plain->counters);
    int hashes = mp_hash_make(&plain->keys, sizeof(struct mp_flow_key), sizeof(struct mp_flow_ref), flows * 2) &
                 mp_hash_make(&plain->paces, sizeof(struct mp_address), sizeof(struct mp_pace), flows) &
                 mp_hash_make(&plain->service_keys, sizeof(struct mp_service_key), sizeof(struct mp_service), services);
    if (hashes && plain->flow && plain->free_places && plain->picks && plain->backend && plain->sources && plain->loads &&
        plain->counters)
        return plain;
    mp_plain_free(plain);
    return 0;
}

void mp_plain_free(struct mp_plain *plain)
{
    if (!plain)
        return;
    mp_hash_free(&plain->keys);
    mp_hash_free(&plain->service_keys);
    mp_hash_free(&plain->paces);
    free(plain->flow);
    free(plain->free_places);
    free(plain->picks);
    free(plain->backend);
    free(plain->sources);
    free(plain->loads);
    free(plain->counters);
    free(plain);
}

void mp_plain_set_time(struct mp_plain *plain, uint64_t now)
{
    plain->now = now;
}

int mp_plain_add_route(struct mp_plain *plain, const struct mp_plain_route *route)
{
    if (plain->routes_count == MP_PLAIN_ROUTES)
        return -1;
    plain->routes[plain->routes_count++] = *route;
    return 0;
}

static void *mp_array_at(struct mp_plain *plain, uint32_t table, const uint32_t *key)
{
    uint32_t at = key[0];
    switch (table) {
    case MP_FLOWS:
        return at < plain->flows ? &plain->flow[at] : 0;
    case MP_PICKS:
        return at < plain->services * 2 && key[1] < MP_PLAIN_PICKS ? &plain->picks[(size_t)at * MP_PLAIN_PICKS + key[1]] : 0;
    case MP_BACKENDS:
        return at < plain->backends ? &plain->backend[at] : 0;
    case MP_SOURCES:
        return at < plain->backends ? &plain->sources[at] : 0;
    case MP_LOADS:
        return at < plain->services ? &plain->loads[at] : 0;
    case MP_COUNTERS:
        return at < plain->services * 2 ? &plain->counters[at] : 0;
    case MP_SETTINGS:
        return at == 0 ? &plain->settings : 0;
    default:
        return 0;
    }
}

static const size_t value_sizes[MP_TABLES] = {
    [MP_FLOWS] = sizeof(struct mp_flow),       [MP_PICKS] = sizeof(struct mp_picks),       [MP_BACKENDS] = sizeof(struct mp_backend),
    [MP_SOURCES] = sizeof(struct mp_address),  [MP_LOADS] = sizeof(struct mp_load),        [MP_COUNTERS] = sizeof(struct mp_counters),
    [MP_SETTINGS] = sizeof(struct mp_settings),
};

void *mp_plain_find(struct mp_plain *plain, uint32_t table, const void *key)
{
    if (table == MP_KEYS)
        return mp_hash_find(&plain->keys, key);
    if (table == MP_SERVICES)
        return mp_hash_find(&plain->service_keys, key);
    if (table == MP_PACES)
        return mp_hash_find(&plain->paces, key);
    if (table == MP_SAMPLES)
        return plain->samples_count ? &plain->sample : 0;
    return mp_array_at(plain, table, key);
}

int mp_plain_put(struct mp_plain *plain, uint32_t table, const void *key, const void *value, int fresh)
{
    if (table == MP_KEYS)
        return mp_hash_put(&plain->keys, key, value, fresh);
    if (table == MP_SERVICES)
        return mp_hash_put(&plain->service_keys, key, value, fresh);
    if (table == MP_FREE) {
        world = plain;
        return mp_return_flow(*(const uint32_t *)value);
    }
    if (table == MP_PREFIXES) {
        if (plain->prefixes_count == MP_PLAIN_PREFIXES)
            return -1;
        plain->prefix_keys[plain->prefixes_count] = *(const struct mp_prefix_key *)key;
        plain->prefixes[plain->prefixes_count++] = *(const struct mp_prefix *)value;
        return 0;
    }
    void *place = mp_array_at(plain, table, key);
    if (!place)
        return -1;
    memcpy(place, value, value_sizes[table]);
    return 0;
}

int mp_plain_remove(struct mp_plain *plain, uint32_t table, const void *key)
{
    if (table == MP_KEYS)
        return mp_hash_remove(&plain->keys, key);
    return table == MP_SERVICES ? mp_hash_remove(&plain->service_keys, key) : -1;
}

uint32_t mp_plain_count(struct mp_plain *plain, uint32_t table)
{
    if (table == MP_KEYS)
        return plain->keys.count;
    if (table == MP_SERVICES)
        return plain->service_keys.count;
    if (table == MP_SAMPLES)
        return plain->samples_count;
    return table == MP_FREE ? plain->free_count : 0;
}

void mp_plain_run(struct mp_plain *plain, uint8_t *data, uint32_t length, uint32_t capacity, struct mp_outcome *outcome)
{
    struct mp_frame frame = {.data = data, .end = data + length, .length = length, .capacity = capacity};
    struct mp_decision decision = {};
    world = plain;
    mp_process(&frame, &decision);
    outcome->verdict = decision.verdict;
    outcome->reason = decision.reason;
    outcome->service = decision.service;
    outcome->interface = decision.hop.interface;
    outcome->length = frame.length;
}
