/* A persisted record: which one, version, bytes. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/kp_random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct kp_named *all;
    size_t apis_n, all_n = kp_every_message(&all);
    kp_api_table(&apis_n);
    if (n < 2)
        return 0;
    const struct kp_message *m = all[2 * apis_n + data[0] % (all_n - 2 * apis_n)].message;
    int16_t version = (int16_t)(m->version_min + data[1] % (m->version_max - m->version_min + 1));
    fuzz_message(m, version, slice_of(data + 2, n - 2));
    return 0;
}
