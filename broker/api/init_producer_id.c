/* InitProducerId for idempotent producers: ids from blocks of 1000 that the controller gives out (KIP-730), so that
 * no id is given twice, whatever restarts. Each shard uses up a block of its own. */
#include "broker/api/producer_ids.h"

#include "broker/broker.h"
#include "broker/controller/control.h"
#include "broker/metadata/image.h"

#include <stdlib.h>

#define ARENA_BYTES ((size_t)64 << 10)
#define TIMEOUT_MS  10000

struct producer_ids {
    struct shard *shard;
    int64_t next, end; /* of the block */
    bool asking;
    struct list waiting; /* requests, in order */
    struct control_call call;
    struct kp_allocate_producer_ids_request request;
    struct kp_allocate_producer_ids_response response;
    struct arena arena;
};

struct waiter {
    struct list link;
    struct api_request *req;
};

int producer_ids_create(struct shard *shard)
{
    assert(!shard->producer_ids);
    struct producer_ids *ids = calloc(1, sizeof *ids);
    if (!ids)
        return -E_NOMEM;
    ids->shard = shard;
    list_init(&ids->waiting);
    arena_init(&ids->arena, ARENA_BYTES);
    shard->producer_ids = ids;
    return 0;
}

void producer_ids_destroy(struct producer_ids *ids)
{
    if (!ids)
        return;
    assert(list_empty(&ids->waiting));
    arena_fini(&ids->arena);
    free(ids);
}

static void respond(struct api_request *req, int16_t error, int64_t id)
{
    struct kp_init_producer_id_response *r = API_NEW(req, struct kp_init_producer_id_response);
    if (r) {
        kp_init(&kp_init_producer_id_response_message, r);
        r->error_code = error;
        r->producer_id = id;
        r->producer_epoch = error ? -1 : 0;
    }
    api_respond(req, r);
}

static void serve(struct producer_ids *ids);

static void allocated(struct control_call *call)
{
    struct producer_ids *ids = call->arg;
    int16_t error = call->error ? call->error : ids->response.error_code;
    assert(ids->asking);
    assert(ids->next == ids->end); /* no id is left behind */
    ids->asking = false;
    if (!error && ids->response.producer_id_len > 0) {
        ids->next = ids->response.producer_id_start;
        ids->end = ids->next + ids->response.producer_id_len;
        serve(ids);
        return;
    }
    while (!list_empty(&ids->waiting)) /* clients try again */
        respond(LIST_ENTRY(list_pop(&ids->waiting), struct waiter, link)->req,
                KE_COORDINATOR_LOAD_IN_PROGRESS, -1);
}

static void ask(struct producer_ids *ids)
{
    assert(!ids->asking);
    assert(ids->next == ids->end);
    assert(!list_empty(&ids->waiting));
    struct broker *b = ids->shard->broker;
    const struct image_broker *self = ids->shard->image ? image_broker(ids->shard->image, b->node_id) : NULL;
    ids->asking = true;
    arena_reset(&ids->arena);
    ids->request = (struct kp_allocate_producer_ids_request){.broker_id = b->node_id,
                                                             .broker_epoch = self ? self->epoch : -1};
    kp_init(&kp_allocate_producer_ids_response_message, &ids->response);
    ids->call = (struct control_call){.api_key = kp_key_allocate_producer_ids,
                                      .request = &ids->request,
                                      .response = &ids->response,
                                      .arena = &ids->arena,
                                      .home = ids->shard->loop,
                                      .timeout_ms = TIMEOUT_MS,
                                      .done = allocated,
                                      .arg = ids};
    control_submit(b->control, &ids->call);
}

static void serve(struct producer_ids *ids)
{
    while (!list_empty(&ids->waiting) && ids->next < ids->end)
        respond(LIST_ENTRY(list_pop(&ids->waiting), struct waiter, link)->req, KE_NONE, ids->next++);
    if (!list_empty(&ids->waiting) && !ids->asking)
        ask(ids);
}

void handle_init_producer_id(struct api_request *req)
{
    const struct kp_init_producer_id_request *in = req->body;
    struct producer_ids *ids = req->shard->producer_ids;
    if (!slice_is_null(in->transactional_id)) {
        /* There are no transactions: an error that every client takes as final. */
        respond(req, KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1);
        return;
    }
    struct waiter *w = API_NEW(req, struct waiter);
    if (!w) {
        api_close(req, "out of memory");
        return;
    }
    w->req = req;
    list_push(&ids->waiting, &w->link);
    serve(ids);
}
