/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The next hop, as the kernel's routes and neighbours have it.
 *
 * Asked as if the packet came from the loopback interface, as what this host sends by itself does. So it takes the
 * routes that the host's own connections take, and forwarding need be on for no interface but that one. */
#pragma once

enum { MP_LOOPBACK = 1, MP_AF_INET = 2, MP_AF_INET6 = 10 };

static MP_INLINE enum mp_reason mp_ask_kernel(void *context, const struct mp_view *view, const struct mp_address *source,
                                              const struct mp_address *destination, struct mp_hop *hop)
{
    /* A length, of whatever fits: only who gives one is told the MTU of the route (since Linux 5.12). */
    struct bpf_fib_lookup question = {.l4_protocol = view->protocol, .tot_len = 1, .ifindex = MP_LOOPBACK};
    if (view->version == 4) {
        question.family = MP_AF_INET;
        question.ipv4_src = source->word[3];
        question.ipv4_dst = destination->word[3];
    } else {
        question.family = MP_AF_INET6;
        *(struct mp_address *)question.ipv6_src = *source;
        *(struct mp_address *)question.ipv6_dst = *destination;
    }
    long answer = bpf_fib_lookup(context, &question, sizeof question, 0);
    hop->interface = question.ifindex;
    hop->resolved = answer == BPF_FIB_LKUP_RET_SUCCESS;
    if (hop->resolved) {
        hop->mtu = question.mtu_result;
        __builtin_memcpy(hop->source, question.smac, sizeof hop->source);
        __builtin_memcpy(hop->destination, question.dmac, sizeof hop->destination);
        return MP_FORWARDED;
    }
    if (answer == BPF_FIB_LKUP_RET_NO_NEIGH) {
        hop->mtu = 0xffff; /* not told; who goes on from here asks the interface */
        return MP_NO_NEIGHBOUR;
    }
    /* Its own address: local, or nothing that is routed. */
    return answer == BPF_FIB_LKUP_RET_NOT_FWDED ? MP_LOCAL_DESTINATION : MP_NO_ROUTE;
}
