/* ApiVersions (KIP-35, KIP-511): answered from apis.def. A later version than ours is answered as version 0 with an
 * error and the list, so that the client can choose. */
#include "broker/api/api.h"

/* As Kafka's clients name themselves: letters, digits, '.' and '-', not at the ends. */
static bool software_ok(struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t ch = s.p[i];
        bool inner = ch == '.' || ch == '-';
        bool word = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (!word && !(inner && i > 0 && i + 1 < s.n))
            return false;
    }
    return s.n > 0;
}

static void list_keys(struct api_request *req, struct kp_api_versions_response *r)
{
    size_t n;
    const struct api_row *rows = api_rows(&n);
    r->api_keys = API_NEWS(req, struct kp_api_versions_response_api_keys, n);
    if (!r->api_keys)
        return;
    for (size_t i = 0; i < n; i++) {
        if (req->listener->controller && !(rows[i].flags & API_ON_CONTROLLER))
            continue;
        r->api_keys[r->api_keys_n++] = (struct kp_api_versions_response_api_keys){
            .api_key = rows[i].key, .min_version = rows[i].first, .max_version = rows[i].last};
    }
}

void handle_api_versions(struct api_request *req)
{
    const struct kp_api_versions_request *q = req->body;
    struct kp_api_versions_response *r = API_NEW(req, struct kp_api_versions_response);
    if (r) {
        kp_init(&kp_api_versions_response_message, r);
        if (req->version_unknown)
            r->error_code = KE_UNSUPPORTED_VERSION;
        else if (req->version >= 3 &&
                 (!software_ok(q->client_software_name) || !software_ok(q->client_software_version)))
            r->error_code = KE_INVALID_REQUEST;
        if (r->error_code != KE_INVALID_REQUEST)
            list_keys(req, r);
    }
    api_respond(req, r);
}
