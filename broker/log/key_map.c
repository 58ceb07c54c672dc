#include "broker/log/key_map.h"

#include "base/core/err.h"

#include <assert.h>
#include <stdlib.h>

/* ---- SipHash-2-4 with 128 bits out (Aumasson, Bernstein) ---- */

static uint64_t rotl(uint64_t x, int b)
{
    return (x << b) | (x >> (64 - b));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static void sip_block(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

static void siphash128(const uint64_t seed[2], struct slice in, uint64_t out[2])
{
    uint64_t v[4] = {
        UINT64_C(0x736f6d6570736575) ^ seed[0],
        UINT64_C(0x646f72616e646f6d) ^ seed[1] ^ 0xee,
        UINT64_C(0x6c7967656e657261) ^ seed[0],
        UINT64_C(0x7465646279746573) ^ seed[1],
    };
    size_t whole = in.n / 8 * 8;
    uint64_t m, last = (uint64_t)in.n << 56;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&m, in.p + i, 8);
        sip_block(v, m);
    }
    for (size_t i = whole; i < in.n; i++)
        last |= (uint64_t)in.p[i] << (8 * (i - whole));
    sip_block(v, last);
    v[2] ^= 0xee;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ---- the table ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

int key_map_init(struct key_map *m, size_t bytes, size_t keys, uint64_t seed)
{
    static_assert(sizeof(struct key_slot) == 24, "the memory bound counts on it");
    size_t n = 64, most = bytes / sizeof(struct key_slot);
    while (n * 2 <= most && n / 4 * 3 < keys)
        n *= 2;
    *m = (struct key_map){.slots_n = n, .used_max = n / 4 * 3, .seed = {mix(seed), mix(~seed)}};
    m->slots = malloc(n * sizeof *m->slots);
    if (!m->slots)
        return -E_NOMEM;
    for (size_t i = 0; i < n; i++)
        m->slots[i].offset = -1;
    return 0;
}

void key_map_fini(struct key_map *m)
{
    free(m->slots);
    *m = (struct key_map){0};
}

/* Its slot, or the free one where it would go. */
static struct key_slot *find(const struct key_map *m, struct slice key, uint64_t hash[2])
{
    assert((m->slots_n & (m->slots_n - 1)) == 0);
    siphash128(m->seed, key, hash);
    size_t at = (size_t)hash[0] & (m->slots_n - 1);
    assert(m->used < m->slots_n);
    while (m->slots[at].offset >= 0 && (m->slots[at].hash[0] != hash[0] || m->slots[at].hash[1] != hash[1]))
        at = (at + 1) & (m->slots_n - 1);
    return &m->slots[at];
}

bool key_map_put(struct key_map *m, struct slice key, int64_t offset)
{
    uint64_t hash[2];
    assert(offset >= 0);
    struct key_slot *s = find(m, key, hash);
    if (s->offset < 0) {
        if (m->used >= m->used_max)
            return false;
        m->used++;
        *s = (struct key_slot){{hash[0], hash[1]}, offset};
    } else if (offset > s->offset) {
        s->offset = offset;
    }
    return true;
}

int64_t key_map_get(const struct key_map *m, struct slice key)
{
    assert(m->slots);
    uint64_t hash[2];
    return find(m, key, hash)->offset;
}
