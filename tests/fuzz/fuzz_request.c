/* A request frame of any API, header included. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct kp_request_header h;
    size_t used;
    if (kp_request_header_decode(slice_of(data, n), &h, &used, NULL))
        return 0;
    fuzz_message(&kp_api_find(h.api_key)->request, h.api_version, slice_of(data + used, n - used));
    return 0;
}
