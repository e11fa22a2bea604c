/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Headers as they are on the wire, in network byte order. No field needs more alignment than two bytes behind a multiple of four,
 * which is where drivers (NET_IP_ALIGN) and the plain build put a frame; machines that do not care may put it anywhere. */
#pragma once


#define MP_BE16(n) ((uint16_t)__builtin_bswap16(n)) /* on a little-endian host, which all of our targets are */

enum { MP_ETH_IPV4 = 0x0800, MP_ETH_IPV6 = 0x86dd, MP_ETH_VLAN = 0x8100, MP_ETH_QINQ = 0x88a8 };
enum { MP_ICMP = 1, MP_TCP = 6, MP_UDP = 17, MP_ICMPV6 = 58 };
/* IPv6 extension headers, RFC 8200, 4.1. */
enum { MP_HOP_BY_HOP = 0, MP_ROUTING = 43, MP_FRAGMENTED = 44, MP_NO_NEXT = 59, MP_DESTINATION = 60 };

struct mp_ethernet {
    uint8_t destination[6];
    uint8_t source[6];
    uint16_t type;
};

struct mp_ipv4 {
    uint8_t version_ihl;
    uint8_t tos;
    uint16_t length;
    uint16_t id;
    uint16_t fragment;
    uint8_t ttl;
    uint8_t protocol;
    uint16_t checksum;
    uint32_t source;
    uint32_t destination;
};

struct mp_ipv6 {
    uint32_t version_class_label;
    uint16_t payload_length;
    uint8_t next_header;
    uint8_t hop_limit;
    uint32_t source[4];
    uint32_t destination[4];
};

struct mp_extension {
    uint8_t next_header;
    uint8_t length; /* in 8 bytes, without the first 8 */
    uint8_t kind;   /* of a routing header */
    uint8_t left;   /* segments left */
    uint32_t rest;
};

struct mp_ports {
    uint16_t source;
    uint16_t destination;
};

struct mp_tcp {
    struct mp_ports ports;
    uint32_t sequence;
    uint32_t acknowledgement;
    uint8_t offset; /* high four bits, in 4 bytes */
    uint8_t flags;
    uint16_t window;
    uint16_t checksum;
    uint16_t urgent;
};

enum { MP_FIN = 1, MP_SYN = 2, MP_RST = 4, MP_ACK = 16 };

struct mp_udp {
    struct mp_ports ports;
    uint16_t length;
    uint16_t checksum;
};

/* ICMP and ICMPv6 alike. */
struct mp_icmp {
    uint8_t type;
    uint8_t code;
    uint16_t checksum;
    uint32_t rest; /* RFC 1191: the next hop's MTU in the low 16 bits; RFC 4443: all 32 */
};
