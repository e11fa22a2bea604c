/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* New inputs from known ones, by a generator of numbers that begins alike for the same seed. */
#pragma once

static uint64_t seed;

static uint32_t any(uint32_t end)
{
    seed ^= seed << 13; /* xorshift64 */
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return end ? (uint32_t)(seed >> 32) % end : 0;
}

/* Numbers that mean something in some header. */
static const uint8_t meaningful[] = {0, 1, 2, 4, 5, 6, 8, 17, 41, 43, 44, 45, 50, 51, 58, 59, 60, 63, 64, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xfe, 0xff};

static void put_word(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Sets the lengths right that the frame says, so that the engine reads on. */
static void repair_lengths(struct event *event)
{
    uint32_t length = number_of(event);
    if (length >= 34 && word_at(event->data + 12) == 0x0800)
        put_word(event->data + 16, length - 14);
    else if (length >= 54 && word_at(event->data + 12) == 0x86dd)
        put_word(event->data + 18, length - 54);
}

/* Sets the checksums right, so that the checks have something to check. */
static void repair_checksums(struct event *event, int partial)
{
    struct packet packet;
    if (!read_packet(event->data, number_of(event), &packet))
        return;
    if (packet.version == 4) {
        uint8_t *field = (uint8_t *)packet.l3 + 10;
        put_word(field, 0);
        put_word(field, ~folded(add_words(0, packet.l3, packet.l4)));
    }
    uint8_t *field = (uint8_t *)checksum_of(&packet);
    if (!field)
        return;
    put_word(field, 0);
    put_word(field, partial ? folded(pseudo_sum(&packet)) : ~folded(add_words(pseudo_sum(&packet), packet.l4, packet.end)));
}

static void add_bytes(struct event *event, uint32_t at, uint32_t count)
{
    uint32_t length = number_of(event);
    if (length + count > MOST_BYTES)
        return;
    memmove(event->data + at + count, event->data + at, length - at);
    for (uint32_t n = 0; n < count; n++)
        event->data[at + n] = any(2) ? 0 : (uint8_t)any(256);
    set_number(event, length + count);
}

static void lose_bytes(struct event *event, uint32_t at, uint32_t count)
{
    uint32_t length = number_of(event);
    if (at + count > length)
        count = length - at;
    memmove(event->data + at, event->data + at + count, length - at - count);
    set_number(event, length - count);
}

static void mutate_frame(struct event *event)
{
    uint32_t length = number_of(event), at = any(length);
    if (!length)
        return;
    switch (any(8)) {
    case 0:
        event->data[at] ^= (uint8_t)(1 << any(8));
        break;
    case 1:
        event->data[at] = meaningful[any(sizeof meaningful)];
        break;
    case 2:
        event->data[at] = (uint8_t)(event->data[at] + any(17) - 8);
        break;
    case 3:
        event->data[at] = (uint8_t)any(256);
        break;
    case 4:
        if (at + 1 < length)
            put_word(event->data + at, any(4) ? any(0x10000) : length - at);
        break;
    case 5:
        add_bytes(event, at, 1 + any(any(4) ? 16 : 300));
        break;
    case 6:
        lose_bytes(event, at, 1 + any(any(4) ? 16 : 300));
        break;
    default:
        set_number(event, any(2) ? at : length - any(length < 8 ? length : 8));
    }
}

static void copy_event(struct event *to, const struct event *from)
{
    to->head = from->head;
    if (is_frame(from))
        memcpy(to->data, from->data, number_of(from));
}

static void mutate_order(struct input *input, const struct input *other)
{
    uint32_t at = any(input->count);
    switch (any(6)) {
    case 0:
        if (input->count < MOST_EVENTS)
            copy_event(&input->events[input->count++], &input->events[at]);
        break;
    case 1:
        if (input->count < MOST_EVENTS)
            copy_event(&input->events[input->count++], &other->events[any(other->count)]);
        break;
    case 2:
        copy_event(&input->events[at], &other->events[any(other->count)]);
        break;
    case 3:
        if (input->count > 1)
            copy_event(&input->events[at], &input->events[--input->count]);
        break;
    case 4:
        if (input->count < MOST_EVENTS)
            input->events[input->count++].head = (uint16_t)(any(2) ? LATER | any(400) : MARKED | any(2));
        break;
    default:
        input->options ^= (uint8_t)(1 << any(8));
    }
}

static void mutate(struct input *input, const struct input *other)
{
    for (uint32_t count = 1 + any(4); count; count--) {
        struct event *event = &input->events[any(input->count)];
        if (!any(6) || !is_frame(event)) {
            mutate_order(input, other);
            continue;
        }
        if (!any(8))
            event->head ^= ROOMY_FRAME;
        mutate_frame(event);
        if (any(2))
            repair_lengths(event);
        if (any(2))
            repair_checksums(event, input->options & PARTIAL && any(2));
    }
}
