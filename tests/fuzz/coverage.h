/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which ways through the engine an input took. gcc calls the function below at each basic block of what it compiles
 * with -fsanitize-coverage=trace-pc; this file is compiled without. */
#pragma once

enum { WAYS = 1 << 13 };

static uint8_t taken[WAYS]; /* by the present input: how often from one block to another */
static uint8_t known[WAYS]; /* by any before: a bit for each order of magnitude */
static uintptr_t last_block;

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    uintptr_t block = (uintptr_t)__builtin_return_address(0);
    uint8_t *way = &taken[(block ^ last_block >> 1 ^ block >> 13) % WAYS];
    if (*way < 255)
        ++*way;
    last_block = block;
}

static void begin_coverage(void)
{
    memset(taken, 0, sizeof taken);
    last_block = 0;
}

static uint8_t magnitude(uint8_t times)
{
    if (times < 3)
        return times;
    return times < 8 ? 4 : times < 32 ? 8 : 16;
}

/* Whether the present input took a way that none before it did, or far more often; remembers what it did. */
static int is_new(void)
{
    int found = 0;
    for (uint32_t at = 0; at < WAYS; at++) {
        uint8_t now = taken[at] ? magnitude(taken[at]) : 0;
        if (now & ~known[at]) {
            known[at] |= now;
            found = 1;
        }
    }
    return found;
}

static uint32_t count_ways(void)
{
    uint32_t count = 0;
    for (uint32_t at = 0; at < WAYS; at++)
        count += known[at] != 0;
    return count;
}
