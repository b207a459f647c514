#!/usr/bin/env bash
# Everything that needs a real NVIDIA GPU, in one command and without internet, in under 10 minutes:
#
#   benchmarks/on_gpu.sh [build] [tests] [sanitize] [time]      (no word: all of them, in this order)
#
# Needs nvcc and a Python with torch, pytest, hypothesis, pybind11, scikit-build-core, cmake and ninja;
# CuPy for its tests and for the peer, compute-sanitizer for its stage.
#   PYTHON        interpreter, default python3
#   ARCHITECTURES of CMAKE_CUDA_ARCHITECTURES, default native
#   OUT           folder of the JSON file, default benchmarks/results
#   USCONF_DATA   real pictures; ./data is taken when it exists
#
# Then `python benchmarks/gpu_table.py` puts the figures into README.md.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
logs=$(mktemp -d)
[ -n "${USCONF_DATA:-}" ] || { [ -d data ] && export USCONF_DATA=$PWD/data; }
export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
failed=()

# stage NAME SECONDS COMMAND...: runs it, keeps its log, prints its last lines and how long it took.
stage() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$logs/$name" 2>&1
  local status=$?
  tail -n "$([ $status = 0 ] && echo 6 || echo 60)" "$logs/$name"
  echo "== $name: exit status $status, $((SECONDS - start)) s"
  [ $status = 0 ] || failed+=("$name")
}

build() {
  for module in scikit_build_core pybind11; do
    "$PYTHON" -c "import $module" || { echo "needs $module: bring its wheel along"; return 1; }
  done
  "$PYTHON" -m pip install --no-build-isolation --no-deps --force-reinstall . \
    -Ccmake.define.USCONF_CUDA=ON \
    -Ccmake.define.CMAKE_CUDA_ARCHITECTURES="${ARCHITECTURES:-native}" &&
    "$PYTHON" -c "import usconf; usconf.show_config()"
}

# One pytest for every two files, as many at once as there are cores. Exit status 5: no test of these
# kinds is in them. Logs of those that fail come last, then how many tests passed in all.
tests() {
  mkdir -p "$logs/parts"
  printf '%s\n' tests/test_*.py | xargs -P "${JOBS:-$(nproc)}" -n 2 bash -c '
    log=$(mktemp "$logs/parts/XXXXXX")
    OMP_NUM_THREADS=2 "$PYTHON" -m pytest -q -p no:cacheprovider -m "cuda or cupy or torch" "$@" >"$log" 2>&1
    status=$?
    [ $status = 5 ] && exit 0
    [ $status = 0 ] || mv "$log" "$log.failed"
    exit $status' pytest
  local status=$?
  for log in "$logs"/parts/*.failed; do [ -f "$log" ] && tail -n 25 "$log"; done
  cat "$logs"/parts/* | awk '/ in [0-9.]+s/ {
    for (i = 2; i <= NF; ++i)
      if ($i ~ /^(passed|failed|skipped|errors?),?$/) { sub(",", "", $i); n[$i] += $(i - 1) }
  } END { for (kind in n) printf "%d %s ", n[kind], kind; print "" }'
  return $status
}

# All in one process, because torch takes longer to start than they take; its own allocator would
# hide what is written behind the end of a tensor. The learned method is cuDNN's kernels alone.
sanitize() {
  command -v compute-sanitizer || { echo "needs compute-sanitizer (CUDA toolkit)"; return 1; }
  for tool in memcheck racecheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH=benchmarks \
      compute-sanitizer --tool $tool --error-exitcode 9 "$PYTHON" -c '
import importlib, sys
for operator in sys.argv[1:]:
    errors = importlib.import_module(f"bench_{operator}_gpu").validate(small=True)
    print(f"{operator}: largest error {max(errors.values()):.1e}")' $kernels || return 1
  done
}

# One operator that fails or takes too long must not keep the others' figures away. The random walk
# comes last: its peer may take most of the time.
measure() {
  local status=0
  for operator in ${kernels#random_walk } learned random_walk; do
    timeout --foreground 50 "$PYTHON" benchmarks/bench_${operator}_gpu.py --seconds 0.3 \
      --output "$result-${operator//_/-}-gpu.json" || { echo "$operator failed"; status=1; }
  done
  return $status
}
export kernels="random_walk scan_conversion dag pgm uncertainty"
export -f build tests sanitize measure
export logs PYTHON ARCHITECTURES=${ARCHITECTURES:-native}

export result=$OUT/$(date -u +%Y-%m-%d)
for word in ${*:-build tests sanitize time}; do
  case $word in
    build) stage build 190 bash -c build ;;
    tests) stage tests 145 bash -c tests ;;
    sanitize) stage sanitize 130 bash -c sanitize ;;
    time) stage time 130 bash -c measure ;;
    *) echo "stages: build tests sanitize time, got $word" >&2; exit 2 ;;
  esac
done
[ ${#failed[@]} = 0 ] || echo "failed: ${failed[*]}"
# The table last, below whatever went wrong above it.
[ -f "$logs/time" ] && grep '^|' "$logs/time"
[ ${#failed[@]} = 0 ]
