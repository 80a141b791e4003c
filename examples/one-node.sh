#!/usr/bin/env bash
# Every GPU of this machine works on one run: three models, their methods at four costs, one table over all.
#
#   DATA=/data/imagenet OUT=results/imagenet examples/one-node.sh [more flags of run, which come last and so count]
#
# Needs `pip install -e '.[ray]'`, or the environment that `make` makes. A worker a GPU is begun, and ends with
# the run. The same command again goes on where this one stopped. What it will take: `plan` in the place of `run`.
set -euo pipefail

: "${DATA:?names no data; give the folder, tar or shards of ImageNet, such as DATA=/data/imagenet}"

exec python run_bench.py run \
  --task imagenet --data "$DATA" \
  --models 'deit_tiny_patch16_224,deit_small_patch16_224,deit_base_patch16_224' \
  --reducers training-free --flops=-20%,-35%,-50%,-60% \
  --precision bf16 --batch-size 256 \
  --executor ray \
  --cache "${CACHE:-${TMPDIR:-/tmp}/reducerbench-cache}" \
  --out "${OUT:-results/imagenet}" \
  "$@"
