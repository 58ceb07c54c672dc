/* replay FOLDER ...: gives a target every file of its corpus, for builds without libFuzzer. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>

#define INPUT_MAX ((size_t)1 << 20)

static int replay(const char *path)
{
    static uint8_t bytes[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    if (!f)
        return 0;
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    uint8_t *exact = malloc(n + 1); /* as libFuzzer: what is read beyond it is seen */
    memcpy(exact, bytes, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    int runs = 0;
    for (int i = 1; i < argc; i++) {
        char path[4096];
        DIR *d = opendir(argv[i]);
        for (const struct dirent *e; d && (e = readdir(d));)
            if (e->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name) > 0)
                runs += replay(path);
        if (d)
            closedir(d);
    }
    printf("%d inputs\n", runs);
    return runs == 0;
}
