/* What the plain build offers to whoever drives it; read by cffi too. */

/* A next hop of the plain build, which has no kernel to ask. */
struct mp_plain_route {
    struct mp_address destination; /* exactly this one; all zero: every other */
    uint32_t reason;               /* MP_FORWARDED, or why there is no way */
    uint32_t interface;
    uint32_t mtu;                  /* of IP packets, in bytes */
    uint8_t source[6];
    uint8_t destination_mac[6];
};

struct mp_outcome {
    uint32_t verdict;
    uint32_t reason;
    uint32_t service;
    uint32_t interface;
    uint32_t length;    /* of the frame as it is now */
};

struct mp_plain;

/* A world of its own with empty tables; 0 when there is no memory. Sizes are in entries. */
struct mp_plain *mp_plain_new(uint32_t flows, uint32_t services, uint32_t backends, uint32_t hook, uint32_t partial);
void mp_plain_free(struct mp_plain *plain);
/* Time stands still but for this, in ns. */
void mp_plain_set_time(struct mp_plain *plain, uint64_t now);
/* 0, or -1 when there are 32 already. */
int mp_plain_add_route(struct mp_plain *plain, const struct mp_plain_route *route);

/* Tables by enum mp_table, as bpf(2) has them. Picks: a key of their table and a place, 4 bytes each.
 * find: the value's place in memory, or 0. put: 0, -1 full, -2 there already and `fresh` asked for. */
void *mp_plain_find(struct mp_plain *plain, uint32_t table, const void *key);
int mp_plain_put(struct mp_plain *plain, uint32_t table, const void *key, const void *value, int fresh);
int mp_plain_remove(struct mp_plain *plain, uint32_t table, const void *key);
uint32_t mp_plain_count(struct mp_plain *plain, uint32_t table);

/* Runs the engine on a frame, in place; it may grow to `capacity` bytes. */
void mp_plain_run(struct mp_plain *plain, uint8_t *frame, uint32_t length, uint32_t capacity, struct mp_outcome *outcome);
