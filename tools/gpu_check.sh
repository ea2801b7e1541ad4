#!/usr/bin/env bash
# What aver_jax does on this machine's NVIDIA GPU, in two calls of at most five minutes each:
#
#     tools/gpu_check.sh works [WHEEL_DIR]   does it compute what the CPU does
#     tools/gpu_check.sh fast [WHEEL_DIR]    how fast, beside torch and beside the predicted bound
#
# No network is needed: packages that the machine lacks are installed from the wheels in WHEEL_DIR
# into a temporary folder. The most important comes first, and what is known is written at once to
# the folder OUT/MODE (OUT: gpu_check): gpu_check.md, gpu_check.json, logs. Ends with 1 if a step
# failed or was cut off. Variables: SECONDS_IN_ALL (290); DATA, a prepared dataset (default:
# WHEEL_DIR/dataset, if there), with which `works` trains a little too; CASES, a glob of the cases of
# `fast` (those that a first call had no time for); SIZES=small, a rehearsal on a CPU.
set -uo pipefail

mode=${1:-}
if [[ $mode != works && $mode != fast ]]; then
  echo "usage: tools/gpu_check.sh works|fast [WHEEL_DIR]" >&2
  exit 2
fi
wheels=${2:+$(cd "$2" && pwd)} || exit 2
out=$(realpath -m "${OUT:-$(dirname "$0")/../gpu_check}")/$mode
[[ -z ${DATA:-} ]] || DATA=$(realpath -m "$DATA")
cd "$(dirname "$0")/.." || exit 2
if [[ -z ${DATA:-} && -f $wheels/dataset/dataset_info.json ]]; then DATA=$wheels/dataset; fi
export DATA=${DATA:-}

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [[ -n $wheels ]] && compgen -G "$wheels/*.whl" > /dev/null; then
  python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" \
    "$wheels"/*.whl || exit 2
fi
export PYTHONPATH=$PWD:$site${PYTHONPATH:+:$PYTHONPATH}
python3 -m tools.gpu.check "$mode" --seconds $((${SECONDS_IN_ALL:-290} - SECONDS)) \
  --out "$out"
