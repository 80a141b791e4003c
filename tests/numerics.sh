#!/usr/bin/env bash
# The tests whose outcome hangs on how floats are added, on every CPU capability and number of threads that is asked for:
#   tests/numerics.sh ["default avx2 native" ["1 2 4"]]
# `native` is whatever the processor has. Bounds and their reasons: tests/tolerances.py.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
TESTS=(
  tests/unit/test_processor.py
  tests/unit/test_train.py::test_parts_of_a_batch_add_up_to_the_whole_batch
  tests/unit/test_train_{captions,masks,objectives}.py tests/unit/test_training_{diffrate,pruners}.py
  tests/unit/test_{matching,soft_matching,soft_restoring,tokens}.py
  tests/golden/test_golden{,_dtem}.py
  tests/contract/test_numerics.py::test_double_precision_agrees_with_single_precision
  tests/contract/test_token_laws.py::test_a_sample_does_not_see_its_neighbours
)
failed=0
for capability in ${1:-default avx2 native}; do
  for threads in ${2:-1 2 4}; do
    echo "== capability $capability, threads $threads"
    workers=$(($(nproc) / threads))
    (
      if [ "$capability" = native ]; then unset ATEN_CPU_CAPABILITY; else export ATEN_CPU_CAPABILITY=$capability; fi
      OMP_NUM_THREADS=$threads "$PYTHON" -m pytest -v -n $((workers > 1 ? workers : 0)) "${TESTS[@]}"
    ) || failed=1
  done
done
exit $failed
