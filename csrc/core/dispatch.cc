// Which instruction set is used: the best that this machine can run, or the one that was asked for.
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "environment.h"
#include "kernels.h"

namespace crossent {

#define CROSSENT_INSTRUCTION_SET(set, name, runs_here) \
  namespace set {                                      \
  extern const Kernels kernels;                        \
  extern const Standings standings;                    \
  }
#include "instruction_sets.inc"
#undef CROSSENT_INSTRUCTION_SET

namespace {

// Those that this machine can run, best first. Never destroyed: threads may be at work while the process ends.
const std::vector<InstructionSet>& usable_sets() {
  static const auto& usable = *new std::vector<InstructionSet>([] {
    const InstructionSet all[] = {
#define CROSSENT_INSTRUCTION_SET(set, name, runs_here) {name, runs_here, set::kernels, set::standings},
#include "instruction_sets.inc"
#undef CROSSENT_INSTRUCTION_SET
    };
    std::vector<InstructionSet> list;
    for (const InstructionSet& set : all) {
      if (set.runs_here) list.push_back(set);
    }
    return list;
  }());
  return usable;
}

std::atomic<const InstructionSet*> chosen{nullptr};

void choose_from_environment() {
  constexpr const char* kName = "CROSSENT_ISA";
  const char* const wanted = environment(kName);
  if (!wanted) {
    chosen.store(&usable_sets().front());
  } else if (!select_isa(wanted)) {
    std::string names;
    for (const InstructionSet& set : usable_sets()) names += std::string(set.name) + ", ";
    throw std::invalid_argument(quoted(kName, wanted) + " is not available here; choose one of " + names +
                                "or unset it");
  }
}

}  // namespace

const InstructionSet& instruction_set() {
  if (const InstructionSet* const known = chosen.load(std::memory_order_relaxed)) return *known;
  choose_from_environment();
  return *chosen.load();
}

const char* isa() { return instruction_set().name; }

const char* const* available_isas() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> list;
    for (const InstructionSet& set : usable_sets()) list.push_back(set.name);
    list.push_back(nullptr);
    return list;
  }();
  return names.data();
}

bool select_isa(const char* name) {
  for (const InstructionSet& set : usable_sets()) {
    if (std::strcmp(set.name, name) != 0) continue;
    chosen.store(&set);
    return true;
  }
  return false;
}

}  // namespace crossent
