# What .ci/run and .ci/full share; they source it in the repository's root, with -euo pipefail.
export CI=true
work=$(mktemp -d)

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

# The command in the fenced block that follows a marker comment of the README.
readme_command() {
  awk -v marker="<!-- $1 -->" '
    $0 == marker { found = 1; next }
    found && /^```/ { if (inside) exit; inside = 1; next }
    inside { print }' README.md
}

fresh_environment() {
  step "system packages"
  if ! command -v chromium >/dev/null; then
    apt-get update -qq && apt-get install -y -qq chromium >/dev/null
  fi
  step "a fresh virtual environment"
  python3 -m venv "$work/venv"
  # shellcheck disable=SC1091
  source "$work/venv/bin/activate"
  python -m pip install -q --upgrade pip
}

# build NAME OPTION: the library in $work/NAME, built with a CMake option of ours.
build() {
  pip install -q --no-deps --target "$work/$1" . -C build-dir="$work/build-$1" -C cmake.define."$2"=ON
}

# The tests of the core with the build that the address and undefined-behaviour sanitizers watch.
# Left out: a fork while other threads allocate. The allocator of g++ 12's sanitizer is not made for it.
sanitized() {
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS=detect_leaks=0 PYTHONPATH="$work/sanitized" \
    python -m pytest -q -p no:cacheprovider tests/test_edge_cases.py tests/test_errors.py tests/test_layouts.py \
    tests/test_defects.py tests/test_changed_arguments.py tests/test_against_reference.py tests/test_threads.py tests/test_standings.py \
    tests/test_accumulator.py tests/test_readers.py tests/test_fuzz.py \
    -k "not fork_while_other_threads" 2>&1 | tee "$work/sanitized.log"
}

# races SECONDS: many threads call the build that the thread sanitizer watches.
races() {
  LD_PRELOAD="$(g++ -print-file-name=libtsan.so) $(g++ -print-file-name=libstdc++.so)" \
    PYTHONPATH="$work/races" python tests/racing_calls.py "$1"
}

# The last line, whatever happens: what all runs of pytest say in their summaries.
count() {
  grep -hE "^(=+ )?[0-9]+ (passed|failed|skipped|error).* in [0-9.]+s" "$work"/*.log 2>/dev/null |
    grep -oE "[0-9]+ $1" | awk '{ n += $1 } END { print n + 0 }'
}
finish() {
  local code=$?
  echo "$(count passed) passed, $(count '(failed|error)') failed, $(count skipped) skipped"
  rm -rf "$work"
  exit $code
}
trap finish EXIT
