/* bench_disk: what this disk can do for those who wait for it, without a broker in between.
 *
 *   bench_disk FOLDER WRITERS RECORD_BYTES SECONDS
 * So many writers of one file, each with one record under way: one appends in the page cache, and is on only when an
 * fdatasync that began later has ended (group commit, one flusher). One JSON line.
 *
 *   bench_disk FOLDER room RECORD_BYTES SECONDS RATE_PER_S
 * One writer, fdatasync after each record, at a rate (0: as fast as it can), on three files in turn: see enum room.
 *
 *   bench_disk FOLDER files RECORD_BYTES SECONDS FILES
 * One writer, the page cache, no sync: a record to the end of one file after the other, each with a small one before. */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct group {
    pthread_mutex_t lock;
    pthread_cond_t written, durable;
    int fd;
    uint64_t written_n, durable_n, syncs;
    size_t record_bytes;
    bool ending;
};

static void *writer(void *arg)
{
    struct group *g = arg;
    char *record = malloc(g->record_bytes);
    memset(record, 'd', g->record_bytes);
    pthread_mutex_lock(&g->lock);
    while (!g->ending) {
        uint64_t mine = g->written_n++;
        if (pwrite(g->fd, record, g->record_bytes, (off_t)(mine * g->record_bytes)) < 0)
            BENCH_DIE("write");
        pthread_cond_signal(&g->written);
        while (g->durable_n <= mine)
            pthread_cond_wait(&g->durable, &g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    free(record);
    return NULL;
}

static void *flusher(void *arg)
{
    struct group *g = arg;
    pthread_mutex_lock(&g->lock);
    for (;;) {
        while (g->durable_n == g->written_n && !g->ending)
            pthread_cond_wait(&g->written, &g->lock);
        uint64_t upto = g->written_n;
        if (g->durable_n == upto)
            break;
        pthread_mutex_unlock(&g->lock);
        if (fdatasync(g->fd))
            BENCH_DIE("fdatasync");
        pthread_mutex_lock(&g->lock);
        g->durable_n = upto;
        g->syncs++;
        pthread_cond_broadcast(&g->durable);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* ---- one writer that waits for each record: what the room behind the end of the file costs ---- */

/* As a log without reserved room; as one whose room is reserved (its size grows with each record all the same, and its
 * extents are unwritten); as one that was written before, where a sync need not touch the file system's journal. */
enum room { ROOM_NONE, ROOM_RESERVED, ROOM_WRITTEN, ROOMS };

static const char *const room_names[ROOMS] = {"append", "reserved", "written"};

#define ROOM_BYTES ((size_t)256 << 20)
#define ROOM_ACKS  ((size_t)1 << 20)
#define TURN_NS    UINT64_C(500000000)
#define ROOM_CHUNK ((size_t)1 << 20)

struct room_file {
    int fd;
    off_t end;
    uint64_t *ns;
    size_t n;
};

static void room_open(struct room_file *f, const char *folder, enum room room)
{
    char path[300];
    snprintf(path, sizeof path, "%s/bench_disk_%s", folder, room_names[room]);
    *f = (struct room_file){.fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600),
                            .ns = calloc(ROOM_ACKS, sizeof *f->ns)};
    char *zeros = calloc(1, ROOM_CHUNK);
    if (f->fd < 0 || !f->ns || !zeros)
        BENCH_DIE("%s", path);
    unlink(path);
    if (room == ROOM_RESERVED && fallocate(f->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)ROOM_BYTES))
        BENCH_DIE("fallocate");
    for (size_t at = 0; room == ROOM_WRITTEN && at < ROOM_BYTES; at += ROOM_CHUNK)
        if (pwrite(f->fd, zeros, ROOM_CHUNK, (off_t)at) != (ssize_t)ROOM_CHUNK)
            BENCH_DIE("write");
    free(zeros);
    if (fsync(f->fd))
        BENCH_DIE("fsync");
}

static void room_turn(struct room_file *f, const char *record, size_t bytes, uint64_t gap_ns)
{
    uint64_t due = bench_now_ns(), until = due + TURN_NS;
    while (due < until && f->n < ROOM_ACKS && (size_t)f->end + bytes <= ROOM_BYTES) {
        uint64_t now = bench_now_ns();
        if (now < due)
            nanosleep(&(struct timespec){.tv_nsec = (long)(due - now)}, NULL);
        uint64_t from = bench_now_ns();
        if (pwrite(f->fd, record, bytes, f->end) != (ssize_t)bytes || fdatasync(f->fd))
            BENCH_DIE("write");
        f->end += (off_t)bytes;
        now = bench_now_ns();
        f->ns[f->n++] = now - from;
        due = gap_ns ? due + gap_ns : now;
        due = due < now ? now : due;
    }
}

/* They take turns, so that whatever else the disk does is the same for all. */
static void rooms(const char *folder, size_t bytes, double seconds, int rate)
{
    struct room_file files[ROOMS];
    char *record = malloc(bytes);
    if (!record || bytes == 0 || bytes > ROOM_CHUNK || rate < 0)
        BENCH_DIE("%zu bytes, %d a second", bytes, rate);
    memset(record, 'd', bytes);
    for (enum room r = 0; r < ROOMS; r++)
        room_open(&files[r], folder, r);
    uint64_t end = bench_now_ns() + (uint64_t)(seconds * 1e9);
    while (bench_now_ns() < end)
        for (enum room r = 0; r < ROOMS; r++)
            room_turn(&files[r], record, bytes, rate ? 1000000000u / (unsigned)rate : 0);
    printf("{\"bench\":\"disk_room\",\"record_bytes\":%zu,\"rate\":%d", bytes, rate);
    for (enum room r = 0; r < ROOMS; r++) {
        struct room_file *f = &files[r];
        printf(",\"%s\":{\"n\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f}", room_names[r], f->n,
               (double)bench_percentile(f->ns, f->n, 50) / 1e3,
               (double)bench_percentile(f->ns, f->n, 99) / 1e3,
               (double)bench_percentile(f->ns, f->n, 99.9) / 1e3);
        close(f->fd);
        free(f->ns);
    }
    printf("}\n");
    free(record);
}

static void files(const char *folder, size_t record_bytes, double seconds, int n)
{
    char path[256], *record = malloc(record_bytes);
    int *fds = calloc((size_t)n, sizeof *fds);
    uint64_t appends = 0;
    memset(record, 'd', record_bytes);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/files-%d", folder, i);
        fds[i] = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
        if (fds[i] < 0 || write(fds[i], record, record_bytes / 160 + 1) < 0)
            BENCH_DIE("%s", path);
    }
    double start = bench_now(), cpu = bench_cpu();
    for (; bench_now() - start < seconds; appends++)
        if (write(fds[appends % (uint64_t)n], record, record_bytes) < 0)
            BENCH_DIE("write");
    double took = bench_now() - start;
    cpu = bench_cpu() - cpu;
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/files-%d", folder, i);
        close(fds[i]);
        unlink(path);
    }
    printf("{\"bench\":\"disk\",\"files\":%d,\"record_bytes\":%zu,\"appends_per_s\":%.0f,\"cpu_us_per_"
           "append\":%.2f}\n",
           n, record_bytes, (double)appends / took, cpu * 1e6 / (double)appends);
    free(fds);
    free(record);
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[2], "files") == 0) {
        files(argv[1], strtoul(argv[3], NULL, 10), strtod(argv[4], NULL), atoi(argv[5]));
        return 0;
    }
    if (argc == 6 && strcmp(argv[2], "room") == 0) {
        rooms(argv[1], strtoul(argv[3], NULL, 10), strtod(argv[4], NULL), atoi(argv[5]));
        return 0;
    }
    if (argc != 5)
        BENCH_DIE("FOLDER WRITERS RECORD_BYTES SECONDS, or FOLDER room RECORD_BYTES SECONDS RATE_PER_S, "
                  "or FOLDER files RECORD_BYTES SECONDS FILES");
    char path[256];
    int writers = atoi(argv[2]);
    double seconds = strtod(argv[4], NULL);
    struct group g = {.lock = PTHREAD_MUTEX_INITIALIZER,
                      .written = PTHREAD_COND_INITIALIZER,
                      .durable = PTHREAD_COND_INITIALIZER,
                      .record_bytes = strtoul(argv[3], NULL, 10)};
    snprintf(path, sizeof path, "%s/bench_disk", argv[1]);
    g.fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (g.fd < 0 || writers < 1 || writers > 1024)
        BENCH_DIE("%s", path);
    pthread_t flush, *threads = calloc((size_t)writers, sizeof *threads);
    double start = bench_now();
    pthread_create(&flush, NULL, flusher, &g);
    for (int i = 0; i < writers; i++)
        pthread_create(&threads[i], NULL, writer, &g);
    usleep((useconds_t)(seconds * 1e6));
    pthread_mutex_lock(&g.lock);
    g.ending = true;
    double took = bench_now() - start;
    uint64_t commits = g.durable_n, syncs = g.syncs;
    pthread_cond_signal(&g.written);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < writers; i++)
        pthread_join(threads[i], NULL);
    pthread_join(flush, NULL);
    unlink(path);
    printf("{\"bench\":\"disk\",\"writers\":%d,\"record_bytes\":%zu,\"commits_per_s\":%.0f,\"syncs_per_s\":%."
           "0f}\n",
           writers, g.record_bytes, (double)commits / took, (double)syncs / took);
    free(threads);
    return 0;
}
