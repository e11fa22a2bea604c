/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What is given to the engine: a byte of options, and events. In a file: that byte, then for each event a head of two
 * bytes, most significant first, and the frame's bytes behind the head of a frame. */
#pragma once

enum { MOST_EVENTS = 16, MOST_BYTES = 2048 };

/* Bits of the options. */
enum {
    PARTIAL = 1,
    AT_XDP = 2,
    DROP_MALFORMED = 4,
    WITH_PREFIXES = 8,
    WITH_PACE = 16,
    FEW_FLOWS = 32,
    FEW_ERRORS = 64,
    FEW_OPENING = 128
};

/* Kinds of events, in the two highest bits of the head; the rest is a number. */
enum {
    FRAME = 0x0000,      /* of that many bytes */
    ROOMY_FRAME = 0x4000, /* the same, and there is room for it to grow */
    LATER = 0x8000,      /* that many ticks pass */
    MARKED = 0xc000,     /* user space sets all flows' `ended` to the lowest bit */
    KIND = 0xc000
};

struct event {
    uint16_t head;
    uint8_t data[MOST_BYTES];
};

struct input {
    uint8_t options;
    uint32_t count;
    struct event events[MOST_EVENTS];
};

static int is_frame(const struct event *event)
{
    return (event->head & KIND) == FRAME || (event->head & KIND) == ROOMY_FRAME;
}

static uint32_t number_of(const struct event *event)
{
    return event->head & ~KIND;
}

static void set_number(struct event *event, uint32_t number)
{
    event->head = (uint16_t)((event->head & KIND) | (number & ~KIND));
}

/* Copies no more than there is of it. */
static void copy_input(struct input *to, const struct input *from)
{
    to->options = from->options;
    to->count = from->count;
    for (uint32_t at = 0; at < from->count; at++) {
        to->events[at].head = from->events[at].head;
        if (is_frame(&from->events[at]))
            memcpy(to->events[at].data, from->events[at].data, number_of(&from->events[at]));
    }
}

/* Reads as many events as are whole and not too long. */
static int read_input(const char *path, struct input *input)
{
    FILE *file = fopen(path, "rb");
    int options, high, low;
    if (!file)
        return -1;
    input->count = 0;
    options = fgetc(file);
    input->options = options == EOF ? 0 : (uint8_t)options;
    while (input->count < MOST_EVENTS && (high = fgetc(file)) != EOF && (low = fgetc(file)) != EOF) {
        struct event *event = &input->events[input->count];
        event->head = (uint16_t)(high << 8 | low);
        if (is_frame(event)) {
            uint32_t length = number_of(event);
            if (length > MOST_BYTES || fread(event->data, 1, length, file) != length)
                break;
        }
        input->count++;
    }
    fclose(file);
    return 0;
}

static int write_input(const char *path, const struct input *input)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return -1;
    fputc(input->options, file);
    for (uint32_t at = 0; at < input->count; at++) {
        const struct event *event = &input->events[at];
        fputc(event->head >> 8, file);
        fputc(event->head & 255, file);
        if (is_frame(event))
            fwrite(event->data, 1, number_of(event), file);
    }
    return fclose(file);
}
