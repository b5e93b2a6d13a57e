// PyTorch's own threads, and memory as PyTorch hands it out. No header and no library of PyTorch is needed: its threads
// are reached through a C function of the library that is loaded already (its stable C interface, from 2.10), and a
// tensor is described by its address, type and strides (bind/arrays.h), twenty times quicker than by DLPack.
#include "bind/torch.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "core/threads.h"

namespace nb = nanobind;

namespace crossent {
namespace {

using TorchBody = void (*)(int64_t begin, int64_t end, void* context);
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, TorchBody, void* context);
using TorchNumThreads = int32_t (*)(uint32_t* count);

std::atomic<TorchParallelFor> torch_parallel_for{nullptr};
std::atomic<TorchNumThreads> torch_get_num_threads{nullptr};

int64_t most_torch_threads() {
  uint32_t threads = 1;
  return torch_get_num_threads.load()(&threads) == 0 ? std::max<int64_t>(threads, 1) : 1;
}

// PyTorch's threads take pieces one by one: a thread that another program holds up does not hold up the rest.
void on_torch_threads(int64_t count, int64_t workers, void (*body)(void*, int64_t, int64_t), void* context) {
  Work work(count, body, context);
  const TorchBody take_pieces = [](int64_t, int64_t, void* self) { static_cast<Work*>(self)->take_pieces(); };
  if (torch_parallel_for.load()(0, workers, 1, take_pieces, &work) != 0) {
    throw std::runtime_error("crossent: torch_parallel_for failed");
  }
  work.finish();
}

// Whether loops run on PyTorch's threads from here on. path: of the libtorch_cpu that this process has loaded.
bool use_torch_threads(const char* path) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  if (!library) return false;
  const auto loop = reinterpret_cast<TorchParallelFor>(dlsym(library, "torch_parallel_for"));
  const auto count = reinterpret_cast<TorchNumThreads>(dlsym(library, "torch_get_num_threads"));
  if (!loop || !count) return false;
  torch_get_num_threads.store(count);
  torch_parallel_for.store(loop);
  return true;
}

// Asks for huge pages under fresh memory, on which a first write then takes a fifth of the time.
void advise_huge_pages([[maybe_unused]] int64_t address, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), static_cast<size_t>(end - begin), MADV_HUGEPAGE);
#endif
}

}  // namespace

ParallelFor torch_threads() {
  constexpr double kTorchWorthwhile = 1e4;  // its threads stay awake for a while
  if (torch_parallel_for.load()) return {&on_torch_threads, &most_torch_threads, kTorchWorthwhile};
  return our_threads;
}

void bind_torch(nb::module_& module) {
  module.def("use_torch_threads", &use_torch_threads, nb::arg("path"));
  module.def("advise_huge_pages", &advise_huge_pages, nb::arg("address"), nb::arg("bytes"));
}

}  // namespace crossent
