/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The tables of the plain build: arrays, and hashes with open addressing. */
#pragma once

enum { MP_PLAIN_ROUTES = 32, MP_PLAIN_PREFIXES = 16, MP_PLAIN_PICKS = 16385, MP_EMPTY = 0, MP_TAKEN = 1, MP_REMOVED = 2 };

struct mp_hash {
    uint32_t key_size, value_size, places, most, count;
    uint8_t *marks, *keys, *values;
};

struct mp_plain {
    uint32_t hook, partial, flows, services, backends, free_first, free_count;
    uint64_t now;
    uint32_t routes_count;
    struct mp_plain_route routes[MP_PLAIN_ROUTES];
    struct mp_hash keys, service_keys, paces;
    struct mp_prefix_key prefix_keys[MP_PLAIN_PREFIXES];
    struct mp_prefix prefixes[MP_PLAIN_PREFIXES];
    uint32_t prefixes_count, samples_count;
    struct mp_sample sample; /* the last one */
    struct mp_flow *flow;
    struct mp_hints hints;
    uint32_t *free_places;
    struct mp_picks *picks; /* tables of MP_PLAIN_PICKS, two for each service */
    struct mp_backend *backend;
    struct mp_address *sources;
    struct mp_load *loads;
    struct mp_counters *counters;
    struct mp_settings settings;
};

static struct mp_plain *world;

struct mp_frame {
    uint8_t *data, *end;
    uint32_t length, partial, capacity;
};

static int mp_hash_make(struct mp_hash *hash, uint32_t key_size, uint32_t value_size, uint32_t most)
{
    uint32_t places = 8;
    while (places < most * 2)
        places *= 2;
    *hash = (struct mp_hash){.key_size = key_size, .value_size = value_size, .places = places, .most = most};
    hash->marks = calloc(places, 1);
    hash->keys = calloc(places, key_size);
    hash->values = calloc(places, value_size);
    return hash->marks && hash->keys && hash->values;
}

static void mp_hash_free(struct mp_hash *hash)
{
    free(hash->marks);
    free(hash->keys);
    free(hash->values);
}

/* The place of a key, or the first where it could go; -1 when there is neither. */
static int64_t mp_hash_place(const struct mp_hash *hash, const void *key, int *found)
{
    uint32_t sum = 2166136261u; /* FNV-1a */
    int64_t room = -1;
    *found = 0;
    for (uint32_t at = 0; at < hash->key_size; at++)
        sum = (sum ^ ((const uint8_t *)key)[at]) * 16777619u;
    for (uint32_t step = 0; step < hash->places; step++) {
        uint32_t place = (sum + step) & (hash->places - 1);
        if (hash->marks[place] != MP_TAKEN && room < 0)
            room = place;
        if (hash->marks[place] == MP_EMPTY)
            return room;
        if (hash->marks[place] == MP_TAKEN && !memcmp(hash->keys + (size_t)place * hash->key_size, key, hash->key_size)) {
            *found = 1;
            return place;
        }
    }
    return room;
}

static void *mp_hash_find(const struct mp_hash *hash, const void *key)
{
    int found;
    int64_t place = mp_hash_place(hash, key, &found);
    return found ? hash->values + (size_t)place * hash->value_size : 0;
}

static int mp_hash_put(struct mp_hash *hash, const void *key, const void *value, int fresh)
{
    int found;
    int64_t place = mp_hash_place(hash, key, &found);
    if (found && fresh)
        return -2;
    if (place < 0 || (!found && hash->count == hash->most))
        return -1;
    hash->count += !found;
    hash->marks[place] = MP_TAKEN;
    memcpy(hash->keys + (size_t)place * hash->key_size, key, hash->key_size);
    memcpy(hash->values + (size_t)place * hash->value_size, value, hash->value_size);
    return 0;
}

static int mp_hash_remove(struct mp_hash *hash, const void *key)
{
    int found;
    int64_t place = mp_hash_place(hash, key, &found);
    if (!found)
        return -1;
    hash->marks[place] = MP_REMOVED;
    hash->count--;
    return 0;
}

/* What the engine asks of its tables. */

static const struct mp_flow_ref *mp_find_key(const struct mp_flow_key *key)
{
    return mp_hash_find(&world->keys, key);
}

static int mp_add_key(const struct mp_flow_key *key, const struct mp_flow_ref *ref)
{
    return mp_hash_put(&world->keys, key, ref, 1);
}

static void mp_remove_key(const struct mp_flow_key *key)
{
    mp_hash_remove(&world->keys, key);
}

static struct mp_flow *mp_flow_at(uint32_t place)
{
    return place < world->flows ? &world->flow[place] : 0;
}

static struct mp_hints *mp_hints_at(uint32_t place)
{
    return place == 0 ? &world->hints : 0;
}

static int mp_take_flow(uint32_t *place)
{
    if (!world->free_count)
        return -1;
    *place = world->free_places[world->free_first];
    world->free_first = (world->free_first + 1) % world->flows;
    world->free_count--;
    return 0;
}

static int mp_return_flow(uint32_t place)
{
    if (world->free_count == world->flows)
        return -1;
    world->free_places[(world->free_first + world->free_count++) % world->flows] = place;
    return 0;
}

static const struct mp_service *mp_find_service(const struct mp_service_key *key)
{
    return mp_hash_find(&world->service_keys, key);
}

static const struct mp_picks *mp_picks_at(uint32_t table, uint32_t place)
{
    if (table >= world->services * 2 || place >= MP_PLAIN_PICKS)
        return 0;
    return &world->picks[(size_t)table * MP_PLAIN_PICKS + place];
}

static const struct mp_backend *mp_backend_at(uint32_t place)
{
    return place < world->backends ? &world->backend[place] : 0;
}

static const struct mp_address *mp_source_at(uint32_t place)
{
    return place < world->backends ? &world->sources[place] : 0;
}

static struct mp_load *mp_load_at(uint32_t service)
{
    return service < world->services ? &world->loads[service] : 0;
}

static const struct mp_settings *mp_settings_now(void)
{
    return &world->settings;
}

/* Whether the first bits of two keys are the same; bits count from the service on, most significant first. */
static int mp_has_prefix(const struct mp_prefix_key *key, const struct mp_prefix_key *prefix)
{
    const uint8_t *ours = (const uint8_t *)&key->service, *theirs = (const uint8_t *)&prefix->service;
    uint32_t whole = prefix->bits / 8, rest = prefix->bits % 8;
    if (memcmp(ours, theirs, whole))
        return 0;
    return !rest || !((ours[whole] ^ theirs[whole]) >> (8 - rest));
}

static const struct mp_prefix *mp_find_prefix(const struct mp_prefix_key *key)
{
    const struct mp_prefix *found = 0;
    uint32_t longest = 0;
    for (uint32_t at = 0; at < world->prefixes_count; at++) {
        if (world->prefix_keys[at].bits >= longest && mp_has_prefix(key, &world->prefix_keys[at])) {
            longest = world->prefix_keys[at].bits;
            found = &world->prefixes[at];
        }
    }
    return found;
}

static struct mp_pace *mp_find_pace(const struct mp_address *client)
{
    return mp_hash_find(&world->paces, client);
}

static void mp_add_pace(const struct mp_address *client, const struct mp_pace *pace)
{
    mp_hash_put(&world->paces, client, pace, 0);
}

static void mp_tell(const struct mp_sample *sample)
{
    world->sample = *sample;
    world->samples_count++;
}

static void mp_atomic_add(uint64_t *number, uint64_t more)
{
    *number += more;
}

static struct mp_counters *mp_counters_of(uint32_t service)
{
    return service < world->services ? &world->counters[service * 2 + world->hook] : 0;
}

static uint64_t mp_now(void)
{
    return world->now;
}

/* Always the same, so that a test can tell what comes. */
static uint32_t mp_random(void)
{
    return 0;
}
