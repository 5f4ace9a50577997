// Runs calls of the native library that tests/executors/native/recorder.py has written down, without Python: under an emulator, or with a
// sanitizer that finds what the library leaks.
//
//     driver LIBRARY CALLS RESULTS [KERNEL]
//
// The calls go to the named kernel, or to the first that runs; its name is printed. Only the calling convention is known here: every argument
// is a number or a pointer, which are passed alike.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

static FILE* calls;

static void need(bool good, const char* what) {
    if (good) return;
    fprintf(stderr, "driver: %s\n", what);
    exit(1);
}

static void read_bytes(void* to, size_t size) { need(fread(to, 1, size, calls) == size, "the calls end too early"); }

template <class Number>
static Number read() {
    Number number;
    read_bytes(&number, sizeof number);
    return number;
}

typedef int64_t (*Function)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

int main(int count, char** words) {
    need(count >= 4, "LIBRARY CALLS RESULTS [KERNEL]");
    void* library = dlopen(words[1], RTLD_NOW);
    need(library, "the library does not load");
    auto name_of = (const char* (*)(int32_t))dlsym(library, "tgen_kernel_name");
    auto runs = (int32_t (*)(int32_t))dlsym(library, "tgen_kernel_runs");
    int32_t kernel = 0;
    while (name_of(kernel) && (count > 4 ? strcmp(name_of(kernel), words[4]) != 0 : !runs(kernel))) kernel++;
    need(name_of(kernel), "no such kernel");
    puts(name_of(kernel));
    calls = fopen(words[2], "rb");
    FILE* results = fopen(words[3], "wb");
    need(calls && results, "the files do not open");

    std::vector<int64_t> values;   // memory and what calls returned, by number
    std::vector<void*> memory;
    int kind;
    while ((kind = fgetc(calls)) != EOF) {
        if (kind == 'M') {  // memory of exactly this size, and what it holds
            size_t size = read<uint64_t>();
            void* data = nullptr;
            need(posix_memalign(&data, 64, size) == 0, "memory ran out");
            read_bytes(data, size);
            memory.push_back(data);
            values.push_back((int64_t)data);
        } else if (kind == 'P') {  // memory `number` holds a pointer at `offset`, to value `target`
            uint32_t number = read<uint32_t>(), offset = read<uint32_t>(), target = read<uint32_t>();
            memcpy((uint8_t*)values.at(number) + offset, &values.at(target), sizeof(void*));
        } else if (kind == 'W') {  // memory `number` holds something else now
            uint32_t number = read<uint32_t>(), size = read<uint32_t>();
            read_bytes((void*)values.at(number), size);
        } else if (kind == 'R') {  // a result
            uint32_t number = read<uint32_t>(), size = read<uint32_t>();
            fwrite((void*)values.at(number), 1, size, results);
        } else {  // a call; a result is kept if it has one
            need(kind == 'C', "no such record");
            char name[64] = {};
            read_bytes(name, read<uint8_t>());
            bool keeps = read<uint8_t>();
            int64_t argument[9] = {};
            for (int i = read<uint8_t>(), at = 0; at < i; at++) {
                uint8_t what = read<uint8_t>();
                argument[at] = read<int64_t>();
                if (what == 'v') argument[at] = values.at((size_t)argument[at]);
                if (what == 'k') argument[at] = kernel;
            }
            Function function = (Function)dlsym(library, name);
            need(function, name);
            const int64_t* a = argument;
            int64_t result = function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
            if (keeps) values.push_back(result);
            else if (!strcmp(name, "tgen_run") || !strcmp(name, "tgen_row_reserve")) need((int32_t)result == 0, name);
        }
    }
    for (void* data : memory) free(data);
    fclose(calls);
    return fclose(results) != 0;
}
