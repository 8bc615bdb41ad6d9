#!/bin/bash
# One run by the tasks of an array, on any machines that see its folder. Arguments are those of `fadrm-hf distill`:
#
#   sbatch recipes/launch/slurm_array.sh --config recipes/configs/imagenet1k/fadrm_ipc10.yaml --output /shared/run
#
# Each task takes what is left, and waits at the end of a stage for what others hold. With SHARES=yes each recovers its
# own share of the images and ends, which suits a queue that runs a few tasks at a time; the last one to end makes the
# artifact. A task that is taken away is queued again and resumes.
#SBATCH --job-name=fadrm
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --requeue
set -euo pipefail

share=()
if [[ ${SHARES:-no} == yes ]]; then
    share=(--shards "$SLURM_ARRAY_TASK_ID:$SLURM_ARRAY_TASK_COUNT")
fi
exec fadrm-hf distill "$@" "${share[@]}"
