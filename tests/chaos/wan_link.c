/* A long line between two sites: `wan_link TUN_A TUN_B [SEED]` opens two tun devices of the network namespace it runs in
 * and carries each packet of one to the other when it is due. What the line does is set while it runs, by lines on stdin:
 *
 *     ab|ba|both [delay=MS] [jitter=MS] [loss=%] [dup=%] [reorder=%] [corrupt=%] [rate=KB/s] [cut=0|1] [reset=0|1]
 *     stats
 *
 * each answered with one line on stdout: `ok`, the counters, or `error ...`. `reorder` holds a packet REORDER_US longer
 * than those behind it; `jitter` never reorders; `corrupt` flips a bit behind the headers; `reset` answers every TCP
 * segment with a reset, as a firewall that has lost its state. The end of stdin is the end of the program, so that it
 * dies with whoever started it.
 *
 * Memory: QUEUE_BYTES of packets on their way in each direction; what comes above it is lost, as at a router. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_BYTES ((size_t)32 << 20)
#define QUEUE_MAX   65536
#define PACKET_MAX  65536
#define REORDER_US  15000
#define TURN_MAX    256 /* packets of one direction before the other has its turn */
#define LINE_MAX_   512

struct packet {
    int64_t due_us;
    uint64_t order; /* of two that are due at once the first comes first */
    size_t n;
    unsigned char bytes[];
};

struct settings {
    double delay_ms, jitter_ms, loss, dup, reorder, corrupt, rate_kb, cut, reset;
};

/* One direction. */
struct way {
    const char *name;
    int in, out;
    struct settings s;
    struct packet *heap[QUEUE_MAX];
    size_t heap_n, held_bytes;
    int64_t last_due_us, busy_until_us;
    uint64_t taken, given, lost, resets;
};

static uint64_t seed = 1;
static uint64_t packets; /* order of arrival */

static double chance(void) /* xorshift64*, [0, 100) */
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (double)((seed * UINT64_C(0x2545F4914F6CDD1D)) >> 40) * 100.0 / (double)(1 << 24);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- what is on its way ---- */

static bool before(const struct packet *a, const struct packet *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void heap_push(struct way *w, struct packet *p)
{
    size_t i = w->heap_n++;
    while (i > 0 && before(p, w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = p;
    w->held_bytes += p->n;
}

static struct packet *heap_pop(struct way *w)
{
    struct packet *top = w->heap[0], *last = w->heap[--w->heap_n];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= w->heap_n)
            break;
        if (c + 1 < w->heap_n && before(w->heap[c + 1], w->heap[c]))
            c++;
        if (!before(w->heap[c], last))
            break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    w->heap[i] = last;
    w->held_bytes -= top->n;
    return top;
}

static int64_t due(struct way *w, size_t n)
{
    int64_t now = now_us(), start = w->busy_until_us > now ? w->busy_until_us : now;
    if (w->s.rate_kb > 0)
        w->busy_until_us = start += (int64_t)((double)n * 1000.0 / w->s.rate_kb);
    int64_t at = start + (int64_t)(w->s.delay_ms * 1000 + w->s.jitter_ms * 10 * chance());
    if (at < w->last_due_us)
        at = w->last_due_us;
    w->last_due_us = at;
    return chance() < w->s.reorder ? at + REORDER_US : at;
}

static void hold(struct way *w, const unsigned char *bytes, size_t n)
{
    if (chance() < w->s.loss || w->heap_n == QUEUE_MAX || w->held_bytes + n > QUEUE_BYTES) {
        w->lost++;
        return;
    }
    struct packet *p = malloc(sizeof *p + n);
    if (!p) {
        w->lost++;
        return;
    }
    p->due_us = due(w, n);
    p->order = packets++;
    p->n = n;
    memcpy(p->bytes, bytes, n);
    if (n > 60 && chance() < w->s.corrupt)
        p->bytes[60 + (size_t)(chance() / 100 * (double)(n - 60))] ^= 4;
    heap_push(w, p);
}

/* ---- resets ---- */

static uint32_t sum16(uint32_t sum, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i + 1 < n; i += 2)
        sum += (uint32_t)(b[i] << 8 | b[i + 1]);
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

/* The sender of this segment is told that nobody knows of its connection. */
static void answer_reset(struct way *w, const unsigned char *bytes, size_t n)
{
    struct {
        struct iphdr ip;
        struct tcphdr tcp;
    } r = {0};
    struct iphdr ip;
    struct tcphdr tcp;
    if (n < sizeof r)
        return;
    memcpy(&ip, bytes, sizeof ip);
    size_t head = (size_t)ip.ihl * 4;
    if (ip.version != 4 || ip.protocol != IPPROTO_TCP || n < head + sizeof tcp)
        return;
    memcpy(&tcp, bytes + head, sizeof tcp);
    if (tcp.rst)
        return;
    r.ip = (struct iphdr){.version = 4,
                          .ihl = sizeof r.ip / 4,
                          .tot_len = htons(sizeof r),
                          .ttl = 64,
                          .protocol = IPPROTO_TCP,
                          .saddr = ip.daddr,
                          .daddr = ip.saddr};
    r.ip.check = fold(sum16(0, &r.ip, sizeof r.ip));
    uint32_t length = (uint32_t)(n - head - (size_t)tcp.doff * 4) + tcp.syn + tcp.fin;
    r.tcp.source = tcp.dest;
    r.tcp.dest = tcp.source;
    r.tcp.seq = tcp.ack ? tcp.ack_seq : 0;
    r.tcp.ack_seq = htonl(ntohl(tcp.seq) + length);
    r.tcp.doff = sizeof r.tcp / 4;
    r.tcp.rst = r.tcp.ack = 1;
    uint32_t sum = sum16(0, &r.ip.saddr, 8) + IPPROTO_TCP + sizeof r.tcp;
    r.tcp.check = fold(sum16(sum, &r.tcp, sizeof r.tcp));
    if (write(w->in, &r, sizeof r) == (ssize_t)sizeof r)
        w->resets++;
}

/* ---- both ends ---- */

static void take(struct way *w)
{
    static unsigned char bytes[PACKET_MAX];
    for (int i = 0; i < TURN_MAX; i++) {
        ssize_t n = read(w->in, bytes, sizeof bytes);
        if (n <= 0)
            return;
        w->taken++;
        if (w->s.reset > 0)
            answer_reset(w, bytes, (size_t)n);
        if (w->s.cut > 0 || w->s.reset > 0) {
            w->lost++;
            continue;
        }
        hold(w, bytes, (size_t)n);
        if (chance() < w->s.dup)
            hold(w, bytes, (size_t)n);
    }
}

static void give(struct way *w, int64_t now)
{
    while (w->heap_n && w->heap[0]->due_us <= now) {
        struct packet *p = heap_pop(w);
        /* What was on its way when the line was cut is lost with it. */
        if (w->s.cut > 0 || write(w->out, p->bytes, p->n) != (ssize_t)p->n)
            w->lost++;
        else
            w->given++;
        free(p);
    }
}

static int open_tun(const char *name)
{
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r)) {
        fprintf(stderr, "wan_link: %s: %s\n", name, strerror(errno));
        exit(1);
    }
    return fd;
}

/* ---- control ---- */

static double *setting(struct settings *s, const char *key)
{
    struct {
        const char *key;
        double *at;
    } all[] = {{"delay", &s->delay_ms}, {"jitter", &s->jitter_ms}, {"loss", &s->loss},
               {"dup", &s->dup},        {"reorder", &s->reorder},  {"corrupt", &s->corrupt},
               {"rate", &s->rate_kb},   {"cut", &s->cut},          {"reset", &s->reset}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(key, all[i].key) == 0)
            return all[i].at;
    return NULL;
}

static bool apply(char *words, struct settings *s)
{
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        char *value = strchr(word, '='), *end;
        if (!*word)
            continue;
        if (!value)
            return false;
        *value++ = 0;
        double *at = setting(s, word), v = strtod(value, &end);
        if (!at || *end || end == value || v < 0)
            return false;
        *at = v;
    }
    return true;
}

static void say_stats(const struct way *w)
{
    printf("%s taken=%llu given=%llu lost=%llu resets=%llu held=%zu%s", w->name, (unsigned long long)w->taken,
           (unsigned long long)w->given, (unsigned long long)w->lost, (unsigned long long)w->resets,
           w->heap_n, w->name[0] == 'a' ? " " : "\n");
}

static void obey(char *line, struct way *ab, struct way *ba)
{
    char *rest = line, *which = strsep(&rest, " ");
    struct settings a = ab->s, b = ba->s;
    bool to_a = strcmp(which, "ab") == 0 || strcmp(which, "both") == 0;
    bool to_b = strcmp(which, "ba") == 0 || strcmp(which, "both") == 0;
    char copy[LINE_MAX_];
    snprintf(copy, sizeof copy, "%s", rest ? rest : "");
    if (strcmp(which, "stats") == 0) {
        say_stats(ab);
        say_stats(ba);
    } else if ((to_a || to_b) && (!to_a || apply(copy, &a)) && (!to_b || apply(rest ? rest : copy, &b))) {
        ab->s = a;
        ba->s = b;
        puts("ok");
    } else {
        printf("error %s\n", which);
    }
    fflush(stdout);
}

/* False at the end of stdin. */
static bool control(struct way *ab, struct way *ba)
{
    static char text[LINE_MAX_];
    static size_t have;
    ssize_t n = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    have += (size_t)n;
    text[have] = 0;
    for (char *end; (end = strchr(text, '\n')) != NULL;) {
        *end++ = 0;
        obey(text, ab, ba);
        have -= (size_t)(end - text);
        memmove(text, end, have + 1);
    }
    return have < sizeof text - 1; /* a line without an end is nobody we know */
}

static int64_t next_due(const struct way *a, const struct way *b)
{
    int64_t at = INT64_MAX;
    if (a->heap_n)
        at = a->heap[0]->due_us;
    if (b->heap_n && b->heap[0]->due_us < at)
        at = b->heap[0]->due_us;
    return at;
}

int main(int argc, char **argv)
{
    static struct way ab = {.name = "ab"}, ba = {.name = "ba"};
    if (argc < 3) {
        fprintf(stderr, "usage: wan_link TUN_A TUN_B [SEED]\n");
        return 2;
    }
    if (argc > 3)
        seed = strtoull(argv[3], NULL, 10) | 1;
    ab.in = ba.out = open_tun(argv[1]);
    ba.in = ab.out = open_tun(argv[2]);
    puts("ok");
    fflush(stdout);
    for (;;) {
        struct pollfd p[] = {{.fd = ab.in, .events = POLLIN},
                             {.fd = ba.in, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
        int64_t wait = next_due(&ab, &ba) == INT64_MAX ? 1000000 : next_due(&ab, &ba) - now_us();
        wait = wait < 0 ? 0 : wait > 1000000 ? 1000000 : wait;
        struct timespec t = {.tv_nsec = wait % 1000000 * 1000, .tv_sec = wait / 1000000};
        ppoll(p, 3, &t, NULL);
        if (p[0].revents)
            take(&ab);
        if (p[1].revents)
            take(&ba);
        if (p[2].revents && !control(&ab, &ba))
            return 0;
        int64_t now = now_us();
        give(&ab, now);
        give(&ba, now);
    }
}
