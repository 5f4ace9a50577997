// The executor's kernels for AVX512.
#define TGEN_AVX512 1
#define TGEN_KERNEL avx512
#include "pack.h"
#include "../probe.h"
#include "scans.h"
#include "step.h"
