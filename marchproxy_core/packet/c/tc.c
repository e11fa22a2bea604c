/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The engine at TC ingress, on any interface. Packets may be of up to 64 KiB and more (GRO), and their checksums may be
 * partial; both stay as they are, which is what makes this hook fast. */
#define MP_HOOK MP_HOOK_TC
#include "kernel.h"

static long (*const mp_redirect_neighbour)(uint32_t interface, void *hop, int size, uint64_t flags) = (void *)BPF_FUNC_redirect_neigh;

static long (*const mp_check_mtu)(void *skb, uint32_t interface, uint32_t *mtu, int32_t more, uint64_t flags) = (void *)BPF_FUNC_check_mtu;

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
    enum mp_reason reason = mp_ask_kernel(frame->skb, view, source, destination, hop);
    if (reason != MP_NO_NEIGHBOUR)
        return reason;
    uint32_t mtu = 0;
    if (mp_check_mtu(frame->skb, hop->interface, &mtu, 0, 0) >= 0)
        hop->mtu = mtu;
    return MP_FORWARDED; /* bpf_redirect_neigh() finds it */
}

static MP_INLINE enum mp_reason mp_fits(struct mp_frame *frame, const struct mp_view *view, uint32_t mtu)
{
    uint32_t bytes = view->bytes, segment = frame->skb->gso_size;
    if (segment) /* of the packets that it is cut into */
        bytes = segment + (uint32_t)(view->l4 - view->l3) + (view->protocol == MP_TCP ? sizeof(struct mp_tcp) : sizeof(struct mp_udp));
    return bytes > mtu ? MP_TOO_BIG : MP_FORWARDED;
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

/* Leaves `length` bytes of the frame, and puts `room` bytes behind its Ethernet header. */
static MP_INLINE int mp_make_room(struct mp_frame *frame, uint32_t length, uint32_t room)
{
    struct __sk_buff *skb = frame->skb;
    if (bpf_skb_change_tail(skb, length, 0) || bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_pull_data(skb, length + room))
        return -1;
    frame->data = (uint8_t *)(unsigned long)skb->data;
    frame->end = (uint8_t *)(unsigned long)skb->data_end;
    return 0;
}

/* A partial checksum is finished when the packet leaves, also in a quote: it becomes what makes the sum of all behind it
 * the complement of what it holds now, the sum of the pseudo-header. */
static MP_INLINE uint32_t mp_later_sum(struct mp_frame *frame, const struct mp_view *view, uint32_t *finished_later)
{
    uint16_t *field = mp_transport_checksum(frame, view);
    *finished_later = mp_is_partial(frame, view);
    return *finished_later && field ? (uint16_t)~*field : 0;
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
    if (decision.verdict == MP_REPLY)
        return bpf_redirect(skb->ifindex, 0);
    return decision.verdict == MP_PASS ? MP_NEXT : 2; /* TC_ACT_SHOT */
}
