/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The Internet checksum by difference: RFC 1624, equation 3. Sums are kept unfolded in 32 bits, and do not care
 * about byte order as long as all words are read alike. */
#pragma once

/* Keeps the compiler from what it knows of a number: it would count a loop's turns in a way that the verifier cannot. */
#define MP_OPAQUE(number) asm volatile("" : "+r"(number))

/* What is written or read before it stays before it. On x86, which keeps the order of stores and that of loads, that is all
 * that other CPUs need; elsewhere they may see it otherwise. */
#define MP_IN_ORDER() asm volatile("" ::: "memory")

/* Without a comparison, which would be a branch in BPF, and two paths for the verifier. */
static MP_INLINE uint32_t mp_sum(uint32_t a, uint32_t b)
{
    uint64_t sum = (uint64_t)a + b;
    return (uint32_t)sum + (uint32_t)(sum >> 32);
}

static MP_INLINE uint16_t mp_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)(sum + (sum >> 16));
}

/* Adds to a difference what changing one word into another does to it. */
static MP_INLINE uint32_t mp_changed(uint32_t difference, uint32_t old, uint32_t new)
{
    return mp_sum(mp_sum(difference, ~old), new);
}

/* The same for 16 bits: their complement must not spill into the upper half. */
static MP_INLINE uint32_t mp_changed16(uint32_t difference, uint16_t old, uint16_t new)
{
    return mp_sum(mp_sum(difference, (uint16_t)~old), new);
}

static MP_INLINE uint16_t mp_corrected(uint16_t checksum, uint32_t difference)
{
    return (uint16_t)~mp_fold(mp_sum((uint16_t)~checksum, difference));
}

static MP_INLINE uint32_t mp_address_sum(const struct mp_address *address)
{
    return mp_sum(mp_sum(address->word[0], address->word[1]), mp_sum(address->word[2], address->word[3]));
}
