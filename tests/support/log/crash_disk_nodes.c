/* Names and files of the crash disk, and for each what it was since it was synced last. */
#include "tests/support/log/crash_disk_internal.h"

char *cd_copy_text(const char *text)
{
    char *p = malloc(strlen(text) + 1);
    assert(p);
    return memcpy(p, text, strlen(text) + 1);
}

/* ---- names ---- */

struct name *cd_name_find(struct name *map, const char *path)
{
    struct name *n;
    HASH_FIND_STR(map, path, n);
    return n;
}

void cd_name_put(struct name **map, const char *path, struct inode *inode)
{
    struct name *n = cd_name_find(*map, path);
    if (!n) {
        n = malloc(sizeof *n + strlen(path) + 1);
        assert(n);
        memcpy(n->path, path, strlen(path) + 1);
        HASH_ADD_STR(*map, path, n);
    }
    n->inode = inode;
}

void cd_name_drop(struct name **map, const char *path)
{
    struct name *n = cd_name_find(*map, path);
    if (n) {
        HASH_DEL(*map, n);
        free(n);
    }
}

void cd_names_free(struct name **map)
{
    struct name *n, *next;
    HASH_ITER (hh, *map, n, next) {
        HASH_DEL(*map, n);
        free(n);
    }
}

/* With everything below it when it is a folder. */
void cd_name_move(struct name **map, const char *from, const char *to)
{
    struct name *n, *next;
    size_t len = strlen(from);
    struct {
        char *path;
        struct inode *inode;
    } moved[512];
    unsigned count = 0;
    HASH_ITER (hh, *map, n, next) {
        if (strncmp(n->path, from, len) != 0 || (n->path[len] && n->path[len] != '/'))
            continue;
        char path[1024];
        snprintf(path, sizeof path, "%s%s", to, n->path + len);
        assert(count < 512);
        moved[count].path = cd_copy_text(path);
        moved[count++].inode = n->inode;
        HASH_DEL(*map, n);
        free(n);
    }
    for (unsigned i = 0; i < count; i++) {
        cd_name_put(map, moved[i].path, moved[i].inode);
        free(moved[i].path);
    }
}

void cd_change_add(struct crash_disk *d, enum change_kind kind, const char *path, const char *to,
                   struct inode *inode)
{
    struct change *c = calloc(1, sizeof *c);
    assert(c);
    *c = (struct change){
        .kind = kind, .inode = inode, .path = cd_copy_text(path), .to = to ? cd_copy_text(to) : NULL};
    list_push(&d->changes, &c->link);
}

void cd_change_free(struct change *c)
{
    list_remove(&c->link);
    free(c->path);
    free(c->to);
    free(c);
}

void cd_change_apply(struct name **map, const struct change *c, struct inode *inode)
{
    struct name *n;
    switch (c->kind) {
    case MADE: cd_name_put(map, c->path, inode); break;
    case GONE:
        n = cd_name_find(*map, c->path);
        if (n && n->inode == inode)
            cd_name_drop(map, c->path);
        break;
    case MOVED:
        if (inode->is_dir) {
            if (cd_name_find(*map, c->path))
                cd_name_move(map, c->path, c->to);
            break;
        }
        n = cd_name_find(*map, c->path);
        if (n && n->inode == inode)
            cd_name_drop(map, c->path);
        cd_name_put(map, c->to, inode);
        break;
    }
}

bool cd_in_dir(const char *path, const char *dir)
{
    size_t n = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
}

/* ---- inodes ---- */

struct inode *cd_inode_new(struct crash_disk *d, bool is_dir)
{
    struct inode *i = calloc(1, sizeof *i);
    assert(i);
    i->is_dir = is_dir;
    i->sizes = calloc(1, sizeof *i->sizes);
    i->sizes_n = 1;
    i->mtime = d->wall_ms;
    list_push(&d->inodes, &i->link);
    return i;
}

static void sectors_free(struct inode *i)
{
    struct sector *s, *next;
    HASH_ITER (hh, i->dirty, s, next) {
        HASH_DEL(i->dirty, s);
        free(s->v);
        free(s);
    }
}

void cd_inode_free(struct inode *i)
{
    sectors_free(i);
    free(i->live);
    free(i->sizes);
    list_remove(&i->link);
    free(i);
}

void cd_reserve(struct inode *i, int64_t size)
{
    size = (size + SECTOR - 1) / SECTOR * SECTOR;
    if (size <= i->room)
        return;
    int64_t room = i->room * 2 > size ? i->room * 2 : size;
    i->live = realloc(i->live, (size_t)room);
    assert(i->live);
    memset(i->live + i->room, 0, (size_t)(room - i->room));
    i->room = room;
}

static void version_push(struct sector *s, const uint8_t *content)
{
    if (s->n > 0 && memcmp(s->v[s->n - 1], content, SECTOR) == 0)
        return; /* written again: no other state */
    s->v = realloc(s->v, (s->n + 1) * SECTOR);
    assert(s->v);
    memcpy(s->v[s->n++], content, SECTOR);
}

/* Before a change: the synced content is kept; after it: the new one is a version. */
static void touch(struct inode *i, int64_t at, int64_t n, bool after)
{
    for (int64_t index = at / SECTOR; n > 0 && index <= (at + n - 1) / SECTOR; index++) {
        struct sector *s;
        HASH_FIND(hh, i->dirty, &index, sizeof index, s);
        if (!s) {
            assert(!after);
            s = calloc(1, sizeof *s);
            assert(s);
            s->index = index;
            HASH_ADD(hh, i->dirty, index, sizeof index, s);
            version_push(s, i->live + index * SECTOR);
        }
        if (after)
            version_push(s, i->live + index * SECTOR);
    }
}

void cd_size_set(struct inode *i, int64_t size)
{
    if (size == i->size)
        return;
    i->size = size;
    i->sizes = realloc(i->sizes, (i->sizes_n + 1) * sizeof *i->sizes);
    assert(i->sizes);
    i->sizes[i->sizes_n++] = size;
}

void cd_change_bytes(struct inode *i, int64_t at, const void *p, int64_t n)
{
    if (n == 0)
        return;
    cd_reserve(i, at + n);
    touch(i, at, n, false);
    if (p)
        memcpy(i->live + at, p, (size_t)n);
    else
        memset(i->live + at, 0, (size_t)n);
    touch(i, at, n, true);
    if (p && at + n > i->size)
        cd_size_set(i, at + n);
}

void cd_settle(struct inode *i)
{
    sectors_free(i);
    i->sizes_n = 1;
    i->sizes[0] = i->size;
}

/* Bytes beyond the size read as zeroes should the file grow again. */
void cd_clear_beyond(struct inode *i)
{
    if (i->room > i->size)
        memset(i->live + i->size, 0, (size_t)(i->room - i->size));
}
