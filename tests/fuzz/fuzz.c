/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A fuzzer of the packet engine that is led by coverage: fuzz TABLES SECONDS SEED FINDING FILES...
 *
 * It runs the files, then changes them and what came of them for so long, keeping each input that takes a new edge (coverage.h).
 * With 0 seconds it only runs the files, and prints those that took a new one. An input that breaks a check or
 * a sanitizer's rule is written to FINDING; run that alone to see it again. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "types.h"
#include "plain.h"
#include "input.h"
#include "coverage.h"
#include "tables.h"
#include "packet.h"
#include "checks.h"
#include "mutate.h"

enum { ALIGNMENT = 2, GROWTH = 64, MOST_KEPT = 4096 };

static struct input present;
static const char *finding;
static struct input *kept[MOST_KEPT];
static uint32_t kept_count;

void __sanitizer_set_death_callback(void (*callback)(void));

static void save_finding(void)
{
    if (write_input(finding, &present) == 0)
        fprintf(stderr, "the input is in %s\n", finding);
}

static void fail(const char *what, uint32_t event, const struct mp_outcome *outcome)
{
    fprintf(stderr, "event %" PRIu32 ": %s; verdict %" PRIu32 ", reason %" PRIu32 "\n", event, what, outcome->verdict, outcome->reason);
    save_finding();
    exit(1);
}

static void run_frame(struct mp_plain *plain, uint32_t number, uint32_t flows)
{
    const struct event *event = &present.events[number];
    uint32_t length = number_of(event), room = (event->head & KIND) == ROOMY_FRAME ? GROWTH : 0;
    uint32_t hook = present.options & AT_XDP ? MP_HOOK_XDP : MP_HOOK_TC;
    uint8_t *memory = malloc(ALIGNMENT + length + room);
    struct passage passage = {
        .before = event->data, .after = memory + ALIGNMENT, .length = length, .partial = present.options & PARTIAL};
    uint64_t counted = count_frames(plain, hook);
    const char *wrong;
    if (!memory)
        exit(2);
    memcpy(memory + ALIGNMENT, event->data, length);
    mp_plain_run(plain, memory + ALIGNMENT, length, length + room, &passage.outcome);
    wrong = check_frame(&passage);
    if (!wrong)
        wrong = check_tables(plain, flows);
    if (!wrong && count_frames(plain, hook) != counted + 1)
        wrong = "a frame was not counted once";
    if (wrong)
        fail(wrong, number, &passage.outcome);
    free(memory);
}

static void mark_flows(struct mp_plain *plain, uint32_t flows, uint32_t ended)
{
    for (uint32_t place = 0; place < flows; place++)
        ((struct mp_flow *)mp_plain_find(plain, MP_FLOWS, &place))->ended = (uint8_t)ended;
}

/* Runs the present input in a world of its own; returns whether it took a new edge. */
static int run_present(void)
{
    uint32_t flows;
    uint64_t tick = 1000;
    struct mp_plain *plain = new_world(present.options, &flows);
    if (!plain) {
        fprintf(stderr, "the tables do not fit\n");
        exit(2);
    }
    begin_coverage();
    for (uint32_t at = 0; at < present.count; at++) {
        const struct event *event = &present.events[at];
        if ((event->head & KIND) == LATER)
            tick += number_of(event);
        mp_plain_set_time(plain, tick << 30);
        if (is_frame(event))
            run_frame(plain, at, flows);
        else if ((event->head & KIND) == MARKED)
            mark_flows(plain, flows, event->head & 1);
    }
    mp_plain_free(plain);
    return is_new();
}

static void keep_present(void)
{
    struct input *input = kept_count < MOST_KEPT ? calloc(1, sizeof *input) : kept[any(kept_count)];
    if (!input)
        exit(2);
    copy_input(input, &present);
    if (kept_count < MOST_KEPT)
        kept[kept_count++] = input;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fuzz_for(double seconds)
{
    double end = seconds_now() + seconds;
    uint64_t runs = 0;
    while (runs % 64 || seconds_now() < end) {
        copy_input(&present, kept[any(kept_count)]);
        mutate(&present, kept[any(kept_count)]);
        if (run_present())
            keep_present();
        runs++;
    }
    printf("%" PRIu64 " runs, %" PRIu32 " inputs kept, %" PRIu32 " edges\n", runs, kept_count, count_edges());
}

int main(int count, char **words)
{
    if (count < 6 || load_tables(words[1])) {
        fprintf(stderr, "fuzz TABLES SECONDS SEED FINDING FILES...\n");
        return 2;
    }
    double seconds = atof(words[2]);
    seed = strtoull(words[3], 0, 10) * 2 + 1; /* never 0 */
    finding = words[4];
    __sanitizer_set_death_callback(save_finding);
    for (int at = 5; at < count; at++) {
        if (read_input(words[at], &present) || !present.count) {
            fprintf(stderr, "%s cannot be read\n", words[at]);
            return 2;
        }
        if (run_present() && seconds <= 0)
            printf("%s\n", words[at]);
        keep_present();
    }
    if (seconds > 0)
        fuzz_for(seconds);
    return 0;
}
