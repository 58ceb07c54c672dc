/* A response of any API: int16 key, int16 version, then the frame. */
#include "base/core/bytes.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int32_t correlation_id;
    size_t used;
    if (n < 4)
        return 0;
    const struct kp_api *api = kp_api_find((int16_t)be16_get(data));
    int16_t version = (int16_t)be16_get(data + 2);
    struct slice frame = slice_of(data + 4, n - 4);
    if (!api || version < api->response.version_min || version > api->response.version_max)
        return 0;
    if (kp_response_header_decode(api, version, frame, &correlation_id, &used))
        return 0;
    fuzz_message(&api->response, version, slice_of(frame.p + used, frame.n - used));
    return 0;
}
