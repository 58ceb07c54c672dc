/* What a Fetch has to do with a session: the first answer to a full request begins one, later ones leave out what has
 * been said. */
#include "broker/api/fetch.h"
#include "broker/api/fetch_sessions.h"

#define VERSION_OF_IDS 13

int16_t fetch_session_request(struct fetch *f, struct fetch_session **session)
{
    struct shard *home = f->req->home;
    int16_t error = fetch_session_take(api_fetch_sessions(home), f->in, f->req->version,
                                       loop_now_us(home->loop), session);
    api_fetch_sessions_count(home, *session != NULL);
    if (*session) {
        f->session_id = (*session)->id;
        f->session_epoch = (*session)->epoch;
    }
    assert(f->req->shard == home);
    assert(!*session || !error);
    return error;
}

/* None is to be had, or not for all of it: the client asks in full. */
static void begin(struct fetch *f)
{
    assert(f->session_id == 0);
    struct fetch_sessions *t = api_fetch_sessions(f->req->home);
    struct fetch_session *s = fetch_session_make(t, loop_now_us(f->req->home->loop));
    for (size_t i = 0; s && i < f->items_n; i++) {
        struct fetch_item *it = &f->items[i];
        if (fetch_session_add(t, s, &it->topic_id, it->in)) {
            fetch_session_says(s, &it->topic_id, it->out, it->slice.size_bytes);
        } else {
            fetch_session_end(t, s);
            s = NULL;
        }
    }
    f->out->session_id = s ? s->id : 0;
    api_fetch_sessions_count(f->req->home, false);
}

/* The rows that say something move together, those of one topic under one head. */
static void leave_out(struct fetch *f, struct fetch_session *s)
{
    struct kp_fetch_response *out = f->out;
    struct kp_fetch_response_partitions *rows = f->items_n ? f->items[0].out : NULL;
    size_t kept = 0;
    out->responses = API_NEWS(f->req, struct kp_fetch_response_responses, f->items_n);
    out->responses_n = 0;
    for (size_t i = 0; out->responses && i < f->items_n; i++) {
        struct fetch_item *it = &f->items[i];
        if (!fetch_session_says(s, &it->topic_id, it->out, it->slice.size_bytes))
            continue;
        struct kp_fetch_response_responses *at =
            out->responses_n ? &out->responses[out->responses_n - 1] : NULL;
        if (!at || !uuid_eq(&at->topic_id, &it->topic_id)) {
            at = &out->responses[out->responses_n++];
            at->topic_id = it->topic_id;
            at->partitions = &rows[kept];
        }
        assert(it->out == &rows[i]);
        assert(kept <= i);
        rows[kept++] = *it->out;
        at->partitions_n++;
    }
}

void fetch_session_answer(struct fetch *f)
{
    struct shard *home = f->req->home;
    assert(f->state == FETCH_ANSWERED);
    assert(f->out->session_id == 0);
    if (f->session_id) {
        struct fetch_session *s =
            fetch_session_find(api_fetch_sessions(home), f->session_id, f->session_epoch);
        f->out->session_id = f->session_id;
        if (s) {
            leave_out(f, s);
        } else { /* its client did not wait for this answer */
            f->out->error_code = KE_INVALID_FETCH_SESSION_EPOCH;
            f->out->responses_n = f->out->node_endpoints_n = 0;
        }
    } else if (f->in->session_epoch == 0 && f->req->version >= VERSION_OF_IDS && f->items_n > 0 &&
               f->out->error_code == KE_NONE) {
        begin(f);
    }
}
