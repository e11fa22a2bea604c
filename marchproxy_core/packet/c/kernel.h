/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the XDP and the TC build share: the kernel's tables, its clock, its routes. */
#pragma once
#include <marchproxy/bpf_map.h>

#define MP_INLINE __attribute__((always_inline)) inline

typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
typedef __s32 int32_t;
typedef __s64 int64_t;

#include "types.h"

/* What bcc's headers know of bpf(2) differs by its version, so these are our own declarations. */
static void *(*const mp_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const mp_update)(void *map, const void *key, const void *value, uint64_t flags) = (void *)BPF_FUNC_map_update_elem;
static long (*const mp_delete)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static long (*const mp_push)(void *map, const void *value, uint64_t flags) = (void *)BPF_FUNC_map_push_elem;
static long (*const mp_pop)(void *map, void *value) = (void *)BPF_FUNC_map_pop_elem;

static MP_INLINE const struct mp_flow_ref *mp_find_key(const struct mp_flow_key *key)
{
    return mp_lookup(BPF_MAP(MP_KEYS), key);
}

static MP_INLINE int mp_add_key(const struct mp_flow_key *key, const struct mp_flow_ref *ref)
{
    return mp_update(BPF_MAP(MP_KEYS), key, ref, BPF_NOEXIST) != 0;
}

static MP_INLINE void mp_remove_key(const struct mp_flow_key *key)
{
    mp_delete(BPF_MAP(MP_KEYS), key);
}

static MP_INLINE struct mp_flow *mp_flow_at(uint32_t place)
{
    return mp_lookup(BPF_MAP(MP_FLOWS), &place);
}

static MP_INLINE struct mp_hints *mp_hints_at(uint32_t place)
{
    return mp_lookup(BPF_MAP(MP_HINTS), &place);
}

static MP_INLINE int mp_take_flow(uint32_t *place)
{
    return mp_pop(BPF_MAP(MP_FREE), place) != 0;
}

static MP_INLINE void mp_return_flow(uint32_t place)
{
    mp_push(BPF_MAP(MP_FREE), &place, 0);
}

static MP_INLINE const struct mp_service *mp_find_service(const struct mp_service_key *key)
{
    return mp_lookup(BPF_MAP(MP_SERVICES), key);
}

static MP_INLINE const struct mp_picks *mp_picks_at(uint32_t table, uint32_t place)
{
    void *picks = mp_lookup(BPF_MAP(MP_PICKS), &table);
    return picks ? mp_lookup(picks, &place) : 0;
}

static MP_INLINE const struct mp_backend *mp_backend_at(uint32_t place)
{
    return mp_lookup(BPF_MAP(MP_BACKENDS), &place);
}

static MP_INLINE const struct mp_address *mp_source_at(uint32_t place)
{
    return mp_lookup(BPF_MAP(MP_SOURCES), &place);
}

static MP_INLINE struct mp_load *mp_load_at(uint32_t service)
{
    return mp_lookup(BPF_MAP(MP_LOADS), &service);
}

static MP_INLINE const struct mp_settings *mp_settings_now(void)
{
    uint32_t first = 0;
    return mp_lookup(BPF_MAP(MP_SETTINGS), &first);
}

static MP_INLINE const struct mp_prefix *mp_find_prefix(const struct mp_prefix_key *key)
{
    return mp_lookup(BPF_MAP(MP_PREFIXES), key);
}

static MP_INLINE struct mp_pace *mp_find_pace(const struct mp_address *client)
{
    return mp_lookup(BPF_MAP(MP_PACES), client);
}

static MP_INLINE void mp_add_pace(const struct mp_address *client, const struct mp_pace *pace)
{
    mp_update(BPF_MAP(MP_PACES), client, pace, BPF_ANY);
}

static MP_INLINE void mp_tell(const struct mp_sample *sample)
{
    mp_push(BPF_MAP(MP_SAMPLES), sample, 0); /* full: not told */
}

static MP_INLINE void mp_atomic_add(uint64_t *number, uint64_t more)
{
    __sync_fetch_and_add(number, more);
}

/* This CPU's own: nobody else adds to them at the same time. */
static MP_INLINE struct mp_counters *mp_counters_of(uint32_t service)
{
    uint32_t place = service * 2 + MP_HOOK;
    return mp_lookup(BPF_MAP(MP_COUNTERS), &place);
}

static MP_INLINE uint64_t mp_now(void)
{
    return bpf_ktime_get_coarse_ns(); /* some ms coarse, and a tenth of the cost; since Linux 5.11 */
}

static MP_INLINE uint32_t mp_random(void)
{
    return bpf_get_prandom_u32();
}
