// The C interface that Python loads with ctypes. A function that runs out of memory returns a null pointer or 1.
#pragma once

#include "model.h"

extern "C" {

// The version of this interface, which changes with it.
int32_t tgen_abi();

// The names of the kernels that were compiled in, the fastest first ("avx512", "avx2", "neon", "plain"); null past the last.
// `tgen_kernel_runs` says whether this processor can run a kernel.
const char* tgen_kernel_name(int32_t kernel);
int32_t tgen_kernel_runs(int32_t kernel);

// The caller owns the matrices, norms, ropes and distances, and must keep them as long as the model.
Model* tgen_model_new(int32_t threads);
void tgen_model_free(Model*);
int32_t tgen_model_threads(Model*);
void tgen_model_set(Model*, const int32_t* widths, Matrix*, Norm*, Rope*, Distances*);

int32_t tgen_run(Model*, int32_t kernel, const Program*, const Batch*);
// The bytes of all buffers that the model keeps after such a run. The run itself is left out, so the batch needs no ids and its rows no pages.
int64_t tgen_run_bytes(Model*, int32_t kernel, const Program*, const Batch*);

Geometry* tgen_geometry_new(int32_t format, int32_t layers, const int32_t* kv_heads, const int32_t* head_dims);
void tgen_geometry_free(Geometry*);
int64_t tgen_page_bytes(const Geometry*);
// The bytes of all memory that the cache's rows keep once they have so many more pages of their own.
int64_t tgen_cache_bytes(const Geometry*, int64_t pages);
Row* tgen_row_new(Geometry*, Row* source);
void tgen_row_free(Row*);
Row* tgen_row_copy(const Row*);
void tgen_row_truncate(Row*, int32_t length);
int32_t tgen_row_length(const Row*);
void tgen_row_grow(Row*, int32_t count);
int tgen_row_reserve(Row*, int32_t count);
// Copies of what a page holds, `tgen_page_bytes` bytes.
void tgen_row_read_page(const Row*, int32_t number, uint8_t* to);
void tgen_row_write_page(Row*, int32_t number, const uint8_t* from);

// Packs rows [first, last) into a matrix's panels; `first` is a multiple of 16, `last` is one too or the number of rows.
void tgen_pack(int32_t kernel, int32_t format, int32_t source_format, int32_t rows, int32_t columns, const uint8_t* source, uint8_t* packed,
               int32_t first, int32_t last);
// Reads whole megabytes of memory as fast as the model's threads can; returns a number that is among them.
float tgen_read(Model*, int32_t kernel, const uint8_t* data, int64_t bytes);
// Passes over the logits of one row on the calling thread; kernels/scans.h says what each one finds.
float tgen_scan_highest(int32_t kernel, const float* logits, int64_t count);
void tgen_scan_maxima(int32_t kernel, const float* logits, int64_t count, int64_t groups, float* maxima);
int64_t tgen_scan_places(int32_t kernel, const float* logits, int64_t count, float border, int64_t most, int64_t* places);
void tgen_scan_keep(int32_t kernel, const float* logits, const uint8_t* kept, int64_t count, float* result);
void tgen_scan_rough_sums(int32_t kernel, const float* logits, int64_t count, int64_t block, float highest, float factor, double* sums);
int64_t tgen_scan_exact_sums(int32_t kernel, const float* logits, int64_t count, int64_t block, double highest, double factor,
                             const float* ranges, double* sums, double* whole, float* kept, int64_t* places);
// `room` has 24 bytes for each number.
int64_t tgen_scan_fewest(int32_t kernel, const float* logits, int64_t count, int64_t block, double highest, double factor, double share,
                         int32_t typical, int64_t few, double* sums, float* kept, double* ends, int64_t* places,
                         void* room);

// The cosines and sines of angles by the C library's functions for float. NumPy's differ from them in the last bits.
void tgen_turns(const float* angles, int64_t count, float* cosines, float* sines);

// A checksum that detects accidental damage, but no forgery.
uint64_t tgen_checksum(Model*, const uint8_t* data, int64_t bytes);
// Whether all numbers are finite.
int32_t tgen_finite(Model*, int32_t format, const uint8_t* data, int64_t count);
// Memory in huge pages if the system has them; null if there is no memory. It takes whole huge pages.
uint8_t* tgen_memory_new(int64_t bytes);
void tgen_memory_free(uint8_t*);
}
