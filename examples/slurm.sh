#!/usr/bin/env bash
# One run on the GPUs of several SLURM nodes, as a Ray cluster that lives as long as the job.
#
#   sbatch --export=ALL,DATA=/shared/imagenet,OUT=/shared/results/imagenet examples/slurm.sh
#
# DATA and OUT lie on a file system that all nodes see. Where a node is lost the others do its work; a job that is
# preempted or comes to the end of its time is queued again, and goes on where it stopped.
#
# Without Ray, jobs that are given one folder share its batches: take out `srun ... --`, add `--array=0-15`, ask for one
# node and one GPU a job, and run with --executor local.
#SBATCH --job-name=reducerbench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

: "${DATA:?names no data; give a folder, tar or shards that all nodes see}"
: "${OUT:?names no folder for the results; give one that all nodes see}"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1 # two minutes before the time is up

# On every node: the first begins the cluster and runs the command, the others join it until that is done (Ray >= 2.49).
srun --no-kill --kill-on-bad-exit=0 \
  ray symmetric-run --address "${nodes[0]}:6379" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  python run_bench.py run \
  --task imagenet --data "$DATA" \
  --models 'deit_small_patch16_224,deit_base_patch16_224' \
  --reducers training-free --flops=-20%,-35%,-50%,-60% \
  --precision bf16 --batch-size 256 \
  --executor ray \
  --cache "${TMPDIR:-/tmp}/reducerbench-cache" \
  --out "$OUT" \
  "$@" &
wait $! # in the background, or the signal would wait for it
