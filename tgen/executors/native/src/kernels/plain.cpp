// The executor's kernels on any processor.
#define TGEN_PLAIN 1
#define TGEN_KERNEL plain
#include "pack.h"
#include "../probe.h"
#include "scans.h"
#include "step.h"
