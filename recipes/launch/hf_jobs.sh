#!/bin/bash
# One run by N Jobs on Hugging Face's machines. They share no disk: each recovers its share of the images on its own and
# sends it to a bucket; when all have ended, one more Job fetches the images, labels them, makes the artifact and
# publishes it.
#
#   hf buckets create ORG/fadrm-run
#   IMAGE=ORG/IMAGE recipes/launch/hf_jobs.sh 8 ORG/fadrm-run ORG/NAME --config recipes/configs/imagenet1k/fadrm_ipc10.yaml
#
# IMAGE holds this repository, with the library installed, and begins in its folder. FLAVOR is the machine (`hf jobs
# hardware`), TIMEOUT the longest that a Job may take, DRY_RUN=yes shows what would be started. HF_TOKEN has to be set
# and may write. Teachers are those of the Hub, timm or torchvision, or lie in the bucket below `teachers/`: of
# `squeeze/...` each Job would train its own. `hf` is that of huggingface_hub 2: before, it knew no --attempts.
set -euo pipefail

number=$1 bucket=hf://buckets/$2 repository=$3
shift 3
run=$(printf ' %q' --output runs/run "$@")
how=(--detach --quiet)
if [[ ${DRY_RUN:-no} == yes ]]; then how=(--dry-run --format human); fi

start() { # start NAME COMMAND prints the Job's id
    hf jobs run "${how[@]}" --name "$1" --flavor "${FLAVOR:-a10g-large}" --timeout "${TIMEOUT:-12h}" --attempts 3 \
        --secrets HF_TOKEN "$IMAGE" bash -c "$2"
}

# What is in the bucket is not regenerated: another attempt, or the same call once more, does the rest. Not sent are
# files of which each Job has its own.
fetch="mkdir -p runs && hf buckets sync $bucket runs"
own="--exclude '*/locks/*' --exclude '*/log.jsonl' --exclude '*/costs.json' --exclude '*.tmp'"
send="code=\$?; hf buckets sync runs $bucket $own; exit \$code"

jobs=()
for ((share = 1; share <= number; share++)); do
    jobs+=("$(start "fadrm-$share" "$fetch && fadrm-hf distill$run --shards $share:$number; $send")")
done
if [[ ${DRY_RUN:-no} == yes ]]; then printf '%s\n' "${jobs[@]}"; else hf jobs wait "${jobs[@]}"; fi
start fadrm-publish "$fetch && fadrm-hf package$run && fadrm-hf publish runs/run $repository; $send"
