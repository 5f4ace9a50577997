// The C interface that Python loads with ctypes. Every function that can run out of memory says so by a null pointer or by 1.
#pragma once

#include "model.h"

extern "C" {

// A number that changes with every change of this interface.
int32_t tgen_abi();

// The kernels by speed: "avx512", "avx2", "neon", "plain"; null past the last. `tgen_kernel_runs` says whether this processor has them.
const char* tgen_kernel_name(int32_t kernel);
int32_t tgen_kernel_runs(int32_t kernel);

// Matrices, norms, ropes and distances stay the caller's; they must live as long as the model.
Model* tgen_model_new(int32_t threads);
void tgen_model_free(Model*);
int32_t tgen_model_threads(Model*);
void tgen_model_set(Model*, const int32_t* widths, Matrix*, Norm*, Rope*, Distances*);

int32_t tgen_run(Model*, int32_t kernel, const Program*, const Batch*);

Geometry* tgen_geometry_new(int32_t format, int32_t layers, const int32_t* kv_heads, const int32_t* head_dims);
void tgen_geometry_free(Geometry*);
int64_t tgen_page_bytes(const Geometry*);
Row* tgen_row_new(Geometry*, Row* source);
void tgen_row_free(Row*);
Row* tgen_row_copy(const Row*);
void tgen_row_truncate(Row*, int32_t length);
int32_t tgen_row_length(const Row*);
void tgen_row_grow(Row*, int32_t count);
int tgen_row_reserve(Row*, int32_t count);
uint8_t* tgen_row_page(const Row*, int32_t number);

// Packs rows [first, last), which are multiples of 16 or the end, into a matrix's panels.
void tgen_pack(int32_t kernel, int32_t format, int32_t source_format, int32_t rows, int32_t columns, const uint8_t* source, uint8_t* packed,
               int32_t first, int32_t last);
// Passes over the logits of one row on the calling thread; kernels/scans.h says what each one finds.
int32_t tgen_scan_finite(int32_t kernel, const float* logits, int64_t count);
void tgen_scan_maxima(int32_t kernel, const float* logits, int64_t count, int64_t groups, float* maxima);
int64_t tgen_scan_places(int32_t kernel, const float* logits, int64_t count, float border, int64_t* places);
void tgen_scan_sums(int32_t kernel, const float* logits, int64_t count, int64_t block, float highest, float factor, double* sums);

// The cosines and sines of angles, by the C library's functions for float, whose last bits NumPy's do not share.
void tgen_turns(const float* angles, int64_t count, float* cosines, float* sines);

// A checksum against damage by chance.
uint64_t tgen_checksum(Model*, const uint8_t* data, int64_t bytes);
// Whether all numbers are finite.
int32_t tgen_finite(Model*, int32_t format, const uint8_t* data, int64_t count);
// Memory at huge pages, if the system has them.
uint8_t* tgen_memory_new(int64_t bytes);
void tgen_memory_free(uint8_t*);
}
