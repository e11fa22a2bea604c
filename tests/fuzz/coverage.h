/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which edges an input took: from which basic block of the engine to which other. gcc calls the function below at each
 * block of what it compiles with -fsanitize-coverage=trace-pc; this file is compiled without. */
#pragma once

enum { EDGES = 1 << 13 };

static uint8_t taken[EDGES]; /* by the present input: how often */
static uint8_t known[EDGES]; /* by any before: a bit for each order of magnitude */
static uintptr_t last_block;

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    uintptr_t block = (uintptr_t)__builtin_return_address(0);
    uint8_t *edge = &taken[(block ^ last_block >> 1 ^ block >> 13) % EDGES];
    if (*edge < 255)
        ++*edge;
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

/* Whether the present input took an edge that none before it did, or far more often; remembers what it did. */
static int is_new(void)
{
    int found = 0;
    for (uint32_t at = 0; at < EDGES; at++) {
        uint8_t now = taken[at] ? magnitude(taken[at]) : 0;
        if (now & ~known[at]) {
            known[at] |= now;
            found = 1;
        }
    }
    return found;
}

static uint32_t count_edges(void)
{
    uint32_t count = 0;
    for (uint32_t at = 0; at < EDGES; at++)
        count += known[at] != 0;
    return count;
}
