/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The engine at TC ingress, on any interface. Packets may be of up to 64 KiB and more (GRO), and their checksums may be
 * partial; both stay as they are, which is what makes this hook fast. */
#define MP_HOOK MP_HOOK_TC
#include "kernel.h"

static long (*const mp_redirect_neighbour)(uint32_t interface, void *hop, int size, uint64_t flags) = (void *)BPF_FUNC_redirect_neigh;

struct mp_frame {
    uint8_t *data, *end;
    uint32_t length;
    struct __sk_buff *skb;
};

#include "wire.h"
#include "checksum.h"
#include "parse.h"
#include "transport.h"
#include "routes.h"

enum { MP_NEXT = -1 }; /* TC_ACT_UNSPEC and TCX_NEXT: whoever comes after us decides */
enum { MP_HEADERS = 128 };

static MP_INLINE enum mp_reason mp_route(struct mp_frame *frame, const struct mp_view *view, const struct mp_address *source,
                                         const struct mp_address *destination, struct mp_hop *hop)
{
    uint32_t segment = frame->skb->gso_size, mtu = 0;
    enum mp_reason reason = mp_ask_kernel(frame->skb, view, source, destination, segment ? 0 : view->bytes, hop, &mtu);
    if (reason == MP_NO_NEIGHBOUR)
        return MP_FORWARDED; /* bpf_redirect_neigh() finds it */
    if (reason == MP_FORWARDED && segment) {
        uint32_t headers = (uint32_t)(view->l4 - view->l3) + (view->protocol == MP_TCP ? sizeof(struct mp_tcp) : sizeof(struct mp_udp));
        if (segment + headers > mtu)
            return MP_TOO_BIG;
    }
    return reason;
}

static MP_INLINE int mp_can_answer(struct mp_frame *frame, const struct mp_view *view)
{
    (void)frame;
    (void)view;
    return 1;
}

static MP_INLINE void mp_note_checksum(struct mp_frame *frame, const struct mp_view *view)
{
    (void)frame;
    (void)view;
}

static MP_INLINE void mp_renew_checksum(struct mp_frame *frame, const struct mp_view *view, uint32_t addresses, uint32_t ports)
{
    uint32_t offset = (uint32_t)(view->l4 - frame->data) + (view->protocol == MP_TCP ? 16 : 6);
    uint64_t flags = view->protocol == MP_UDP ? BPF_F_MARK_MANGLED_0 : 0;
    /* A partial checksum covers the addresses and not the ports. */
    bpf_l4_csum_replace(frame->skb, offset, 0, addresses, flags | BPF_F_PSEUDO_HDR);
    bpf_l4_csum_replace(frame->skb, offset, 0, ports, flags);
}

#include "engine.h"

int mp_tc_ingress(struct __sk_buff *skb)
{
    if (skb->vlan_present)
        return MP_NEXT; /* the VLAN's own interface sees it next, without its tag */
    uint32_t wanted = skb->len < MP_HEADERS ? skb->len : MP_HEADERS;
    if ((uint64_t)skb->data_end - skb->data < wanted && bpf_skb_pull_data(skb, wanted))
        return MP_NEXT;
    struct mp_frame frame = {
        .data = (uint8_t *)(unsigned long)skb->data,
        .end = (uint8_t *)(unsigned long)skb->data_end,
        .length = skb->len,
        .skb = skb,
    };
    struct mp_decision decision = {};
    mp_process(&frame, &decision);
    if (decision.verdict == MP_FORWARD)
        return decision.hop.resolved ? bpf_redirect(decision.hop.interface, 0)
                                     : mp_redirect_neighbour(decision.hop.interface, 0, 0, 0);
    return decision.verdict == MP_PASS ? MP_NEXT : 2; /* TC_ACT_SHOT */
}
