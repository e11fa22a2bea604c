/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The next hop, as the kernel's routes and neighbours have it.
 *
 * Asked as if the packet came from the loopback interface, as what this host sends by itself does. So it takes the
 * routes that the host's own connections take, and forwarding need be on for no interface but that one. */
#pragma once

enum { MP_LOOPBACK = 1, MP_AF_INET = 2, MP_AF_INET6 = 10 };

/* `bytes` is the length of the packet to judge the route's MTU by; 0: the hop's MTU is the interface's. */
static MP_INLINE enum mp_reason mp_ask_kernel(void *context, const struct mp_view *view, const struct mp_address *source,
                                              const struct mp_address *destination, uint32_t bytes, struct mp_hop *hop)
{
    struct bpf_fib_lookup question = {.l4_protocol = view->protocol, .tot_len = bytes, .ifindex = MP_LOOPBACK};
    if (view->version == 4) {
        question.family = MP_AF_INET;
        question.ipv4_src = source->word[3];
        question.ipv4_dst = destination->word[3];
    } else {
        question.family = MP_AF_INET6;
        mp_copy_address((struct mp_address *)question.ipv6_src, source->word);
        mp_copy_address((struct mp_address *)question.ipv6_dst, destination->word);
    }
    long answer = bpf_fib_lookup(context, &question, sizeof question, 0);
    hop->interface = question.ifindex;
    hop->resolved = answer == BPF_FIB_LKUP_RET_SUCCESS;
    hop->mtu = question.mtu_result;
    if (hop->resolved) {
        __builtin_memcpy(hop->source, question.smac, sizeof hop->source);
        __builtin_memcpy(hop->destination, question.dmac, sizeof hop->destination);
        return MP_FORWARDED;
    }
    if (answer == BPF_FIB_LKUP_RET_NO_NEIGH)
        return MP_NO_NEIGHBOUR;
    if (answer == BPF_FIB_LKUP_RET_FRAG_NEEDED)
        return MP_TOO_BIG;
    /* Its own address: local, or nothing that is routed. */
    return answer == BPF_FIB_LKUP_RET_NOT_FWDED ? MP_LOCAL_DESTINATION : MP_NO_ROUTE;
}
