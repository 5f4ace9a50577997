// The executor's kernels for AVX2.
#define TGEN_AVX2 1
#define TGEN_KERNEL avx2
#include "pack.h"
#include "../probe.h"
#include "scans.h"
#include "step.h"
