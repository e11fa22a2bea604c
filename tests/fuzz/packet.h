/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A second, simple reader of packets, for the checks: where headers are, and whether checksums are right. */
#pragma once

struct packet {
    const uint8_t *l3, *l4, *end; /* end: of the IP packet, before what pads the frame */
    uint32_t version, protocol;
};

static uint32_t word_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t add_words(uint32_t sum, const uint8_t *at, const uint8_t *end)
{
    for (; at + 1 < end; at += 2)
        sum += word_at(at);
    if (at < end)
        sum += (uint32_t)at[0] << 8;
    return sum;
}

static uint32_t folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static int read_ipv4(const uint8_t *frame, uint32_t length, struct packet *packet)
{
    const uint8_t *ip = frame + 14;
    uint32_t header = (ip[0] & 15) * 4u, total = word_at(ip + 2);
    if (ip[0] >> 4 != 4 || header < 20 || word_at(ip + 6) & 0x3fff)
        return 0;
    total = total ? total : length - 14;
    if (total < header || total > length - 14)
        return 0;
    *packet = (struct packet){.l3 = ip, .l4 = ip + header, .end = ip + total, .version = 4, .protocol = ip[9]};
    return 1;
}

static int read_ipv6(const uint8_t *frame, uint32_t length, struct packet *packet)
{
    const uint8_t *ip = frame + 14, *at = ip + 40, *end;
    uint32_t payload, protocol;
    if (length < 54 || ip[0] >> 4 != 6)
        return 0;
    payload = word_at(ip + 4) ? word_at(ip + 4) : length - 54;
    protocol = ip[6];
    end = at + payload;
    if (payload > length - 54)
        return 0;
    while (protocol == 0 || protocol == 43 || protocol == 60) {
        if (at + 8 > end)
            return 0;
        protocol = at[0];
        at += 8 + at[1] * 8;
    }
    if (at > end || protocol == 44)
        return 0;
    *packet = (struct packet){.l3 = ip, .l4 = at, .end = end, .version = 6, .protocol = protocol};
    return 1;
}

/* Whether it is a whole IP packet that is no fragment. */
static int read_packet(const uint8_t *frame, uint32_t length, struct packet *packet)
{
    if (length < 34)
        return 0;
    if (word_at(frame + 12) == 0x0800)
        return read_ipv4(frame, length, packet);
    return word_at(frame + 12) == 0x86dd && read_ipv6(frame, length, packet);
}

/* The checksum's place; 0 where there is none. */
static const uint8_t *checksum_of(const struct packet *packet)
{
    const uint8_t *at = 0;
    if (packet->protocol == 6)
        at = packet->l4 + 16;
    else if (packet->protocol == 17)
        at = packet->l4 + 6;
    else if (packet->protocol == (packet->version == 4 ? 1 : 58))
        at = packet->l4 + 2;
    return at && at + 2 <= packet->end ? at : 0;
}

static uint32_t pseudo_sum(const struct packet *packet)
{
    uint32_t sum = packet->protocol + (uint32_t)(packet->end - packet->l4);
    if (packet->protocol == 1)
        return 0;
    if (packet->version == 4)
        return add_words(sum, packet->l3 + 12, packet->l3 + 20);
    return add_words(sum, packet->l3 + 8, packet->l3 + 40);
}

static int is_header_right(const struct packet *packet)
{
    uint32_t header = (packet->l3[0] & 15) * 4u;
    return packet->version == 6 || folded(add_words(0, packet->l3, packet->l3 + header)) == 0xffff;
}

static int is_transport_right(const struct packet *packet)
{
    return folded(add_words(pseudo_sum(packet), packet->l4, packet->end)) == 0xffff;
}

/* Whether the checksum is left for somebody else to finish. */
static int is_partial(const struct packet *packet)
{
    const uint8_t *at = checksum_of(packet);
    return at && (packet->protocol == 6 || packet->protocol == 17) && word_at(at) == folded(pseudo_sum(packet));
}
