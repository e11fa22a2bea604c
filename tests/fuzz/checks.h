/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What must hold after each frame, whatever it was. */
#pragma once

/* A frame as it came, and what became of it. */
struct passage {
    const uint8_t *before, *after;
    uint32_t length;
    int partial; /* whether the engine finishes partial checksums */
    struct mp_outcome outcome;
};

static const char *check_forwarded(const struct passage *passage)
{
    struct packet before, after;
    if (passage->outcome.length != passage->length)
        return "a forwarded frame has another length";
    if (!read_packet(passage->before, passage->length, &before) || !read_packet(passage->after, passage->length, &after))
        return "a forwarded frame cannot be read";
    if (before.l4 - before.l3 != after.l4 - after.l3 || before.protocol != after.protocol)
        return "a forwarded packet has other headers";
    uint32_t ttl = before.version == 4 ? 8 : 7, headers = before.protocol == 6 ? 20 : 8;
    if (after.l3[ttl] != before.l3[ttl] - 1)
        return "a forwarded packet has not one hop less";
    if (is_header_right(&before) != is_header_right(&after))
        return "the checksum of an IP header became right or wrong";
    if (before.protocol == 17 && !word_at(before.l4 + 6))
        return word_at(after.l4 + 6) ? "a datagram without a checksum has one now" : 0;
    if ((is_transport_right(&before) || (passage->partial && is_partial(&before))) && !is_transport_right(&after))
        return "a checksum that was right is wrong";
    if (before.protocol != 6 && before.protocol != 17)
        return 0; /* the quoted packet changes too */
    if (memcmp(before.l4 + headers, after.l4 + headers, (size_t)(passage->before + passage->length - before.l4 - headers)))
        return "a forwarded packet has another payload";
    return 0;
}

static const char *check_answered(const struct passage *passage)
{
    struct packet packet;
    uint32_t at = 14, from = word_at(passage->before + 12) == 0x0800 ? 12 : 8, size = from == 12 ? 4 : 16;
    if (!read_packet(passage->after, passage->outcome.length, &packet))
        return "an answer cannot be read";
    if (packet.end != passage->after + passage->outcome.length)
        return "an answer has not the length that it says";
    if (!is_header_right(&packet) || !is_transport_right(&packet))
        return "an answer has a wrong checksum";
    if (memcmp(passage->after, passage->before + 6, 6) || memcmp(passage->after + 6, passage->before, 6))
        return "an answer does not go back";
    if (memcmp(passage->after + at + from, passage->before + at + from + size, size) ||
        memcmp(passage->after + at + from + size, passage->before + at + from, size))
        return "an answer is not from whom the packet was to";
    return 0;
}

static const char *check_frame(const struct passage *passage)
{
    if (passage->outcome.verdict > MP_DROP || passage->outcome.reason >= MP_REASONS)
        return "there is no such verdict or reason";
    if (passage->outcome.verdict == MP_FORWARD)
        return check_forwarded(passage);
    if (passage->outcome.verdict == MP_REPLY)
        return check_answered(passage);
    if (passage->outcome.length != passage->length || memcmp(passage->before, passage->after, passage->length))
        return "a frame that is passed on or dropped was changed";
    return 0;
}

/* Half a flow is one without its two keys, or a place that is neither free nor in use. */
static const char *check_tables(struct mp_plain *plain, uint32_t flows)
{
    uint32_t used = 0;
    for (uint32_t place = 0; place < flows; place++) {
        const struct mp_flow *flow = mp_plain_find(plain, MP_FLOWS, &place);
        used += flow->protocol != 0;
    }
    if (used + mp_plain_count(plain, MP_FREE) != flows)
        return "a place for a flow is lost, or given twice";
    return mp_plain_count(plain, MP_KEYS) == 2 * used ? 0 : "a flow is half";
}

/* All that was counted at a hook, over all services. */
static uint64_t count_frames(struct mp_plain *plain, uint32_t hook)
{
    uint64_t all = 0;
    for (uint32_t service = 0; service < SERVICES; service++) {
        uint32_t place = 2 * service + hook;
        const struct mp_counters *counters = mp_plain_find(plain, MP_COUNTERS, &place);
        for (uint32_t reason = 0; reason < MP_REASONS; reason++)
            all += counters->reasons[reason];
    }
    return all;
}
