/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The engine's tables, as fuzzing.py writes them: records of four numbers of 32 bits (table, sizes of key and value, 0),
 * the key and the value. Table MP_TABLES stands for a route. */
#pragma once

enum { FLOWS = 16, FEWER_FLOWS = 2, SERVICES = 5, BACKENDS = 64 };

struct record {
    uint32_t table, key_size, value_size, zero;
    uint8_t bytes[];
};

static uint8_t *records;
static size_t records_size;

static int load_tables(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        return -1;
    records_size = (size_t)ftell(file);
    rewind(file);
    records = malloc(records_size);
    if (!records || fread(records, 1, records_size, file) != records_size)
        return -1;
    return fclose(file);
}

static void apply_options(struct mp_plain *plain, uint8_t options)
{
    uint32_t first = 0;
    struct mp_settings *settings = mp_plain_find(plain, MP_SETTINGS, &first);
    settings->doors = (options & DROP_MALFORMED ? MP_DROP_MALFORMED : 0) |
                      (options & WITH_PREFIXES ? MP_HAS_PREFIXES | MP_HAS_SERVICE_PREFIXES : 0);
    settings->pace_interval = options & WITH_PACE ? 1ull << 29 : 0;
    settings->pace_burst = 1ull << 30;
    settings->error_interval = options & FEW_ERRORS ? 1ull << 31 : 0;
    settings->max_opening = options & FEW_OPENING ? 1 : 0;
}

/* A new world with all of it; 0 when there is no memory, or a table has no room. */
static struct mp_plain *new_world(uint8_t options, uint32_t *flows)
{
    *flows = options & FEW_FLOWS ? FEWER_FLOWS : FLOWS;
    struct mp_plain *plain =
        mp_plain_new(*flows, SERVICES, BACKENDS, options & AT_XDP ? MP_HOOK_XDP : MP_HOOK_TC, options & PARTIAL);
    if (!plain)
        return 0;
    for (uint32_t place = 0; place < *flows; place++)
        mp_plain_put(plain, MP_FREE, 0, &place, 0);
    for (size_t at = 0; at < records_size;) {
        const struct record *record = (const struct record *)(records + at);
        const uint8_t *key = record->bytes, *value = key + record->key_size;
        int refused = record->table == MP_TABLES ? mp_plain_add_route(plain, (const struct mp_plain_route *)value)
                                                 : mp_plain_put(plain, record->table, key, value, 0);
        if (refused) {
            mp_plain_free(plain);
            return 0;
        }
        at += sizeof *record + record->key_size + record->value_size;
    }
    apply_options(plain, options);
    return plain;
}
