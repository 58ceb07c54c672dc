/* bench_disk: what this disk can do for those who wait for it, without a broker in between.
 *
 *   bench_disk FOLDER WRITERS RECORD_BYTES SECONDS
 * So many writers of one file, each with one record under way: one appends in the page cache, and is on only when an
 * fdatasync that began later has ended (group commit, one flusher). One JSON line. */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
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

int main(int argc, char **argv)
{
    if (argc != 5)
        BENCH_DIE("FOLDER WRITERS RECORD_BYTES SECONDS");
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
