// The executor's kernels for NEON.
#define TGEN_NEON 1
#define TGEN_KERNEL neon
#include "pack.h"
#include "../probe.h"
#include "scans.h"
#include "step.h"
