#!/usr/bin/env bash
# What aver_jax does on this host's GPU: the tests marked gpu, short real trainings, benchmarks.
#
#     tools/gpu_check.sh [WHEEL_DIR]
#
# The host needs no network. Packages it lacks are installed from the wheels in WHEEL_DIR into a
# temporary folder. A small prepared dataset is expected in WHEEL_DIR/dataset, or where DATA says
# (`aver prepare synthetic`, then `aver prepare crema_d --size 224`). Nothing here imports librosa,
# PyAV or pyarrow. Results go to the folder named by OUT (default: gpu_check): gpu_check.json,
# gpu_check.md, one log per step, and in bench/ the full sizes side by side with PyTorch, where that
# is installed. It takes SECONDS_IN_ALL (default: 540) at most: steps that no time is left for fail.
# Ends with 1 if a step failed, after running them all.
set -uo pipefail
cd "$(dirname "$0")/.."

wheels=${1:-}
data=${DATA:-${wheels:+$wheels/dataset}}
out=${OUT:-gpu_check}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

if [[ ! -f $data/dataset_info.json ]]; then
  echo "gpu_check: no prepared dataset in '${data:-WHEEL_DIR/dataset}'; set DATA to one" >&2
  exit 2
fi
if [[ -n $wheels ]] && compgen -G "$wheels/*.whl" > /dev/null; then
  python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" \
    "$wheels"/*.whl || exit 2
fi
export PYTHONPATH=$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}
export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
aver=(python3 -m aver_jax)
failed=0
in_all=${SECONDS_IN_ALL:-540}

# step NAME SECONDS COMMAND...: runs it with a limit, its output in a log, its end in a table.
step() {
  local name=$1 limit=$2 began=$SECONDS code=0 left=$((in_all - SECONDS))
  shift 2
  [[ $limit -le $left ]] || limit=$((left > 1 ? left : 1))
  timeout --kill-after=10 "$limit" "$@" > "$out/$name.log" 2>&1 || code=$?
  printf '%s\t%s\t%s\n' "$name" "$code" $((SECONDS - began)) >> "$work/steps.tsv"
  echo "$name: exit code $code after $((SECONDS - began)) s"
  [[ $code -eq 0 ]] || { failed=1; tail -n 15 "$out/$name.log"; }
}

train() {
  local name=$1 config=$2
  shift 2
  step "train_$name" 90 "${aver[@]}" train --config "$config" --config.data.path="$data" \
    --config.data.protocol=synthetic_fifths --workdir "$work/$name" "$@"
}

# What is short and tells whether all works comes first, then the benchmark, then the rest.
# The other test files need packages that a bare GPU host lacks.
step tests 90 python3 -m pytest -m gpu tests/test_gpu.py -W default
train demo timesformer.py:size=demo --config.epochs=5.0
train demo_device timesformer.py:size=demo --config.epochs=5.0 --config.data.cache=device \
  --config.data.cache_frames=16 --config.steps_per_dispatch=4
step attention 40 python3 tools/bench_attention.py --out "$out/attention.json"
if python3 -c 'import torch' 2> /dev/null; then
  step bench 270 python3 tools/bench_throughput.py --set full --minutes 4 --out "$out/bench"
else
  step bench 180 "${aver[@]}" bench --set full --minutes 2.5 --out "$out/bench"
fi
B=timesformer.py:size=B,dataset=crema_d
train B "$B" --config.batch_size=16 --config.epochs=4.0 --config.evaluation.every_epochs=4.0 \
  --config.log_every_steps=5 --profile 11:14
step hlo 60 python3 tools/hlo_report.py --config "$B" --batch_size 16 --trace "$work/B/profile"
train mrpn mrpn.py:network=n2,size=thesis --config.batch_size=16 --config.epochs=2.0 \
  --config.evaluation.every_epochs=2.0 --config.log_every_steps=5
step evaluate 60 "${aver[@]}" evaluate "$work/demo" --out "$work/evaluation"
step bench_input 40 python3 tools/bench_input.py --data "$data" --out "$out" --repeats 3

python3 tools/gpu_summary.py --steps "$work/steps.tsv" --runs "$work" --out "$out" || failed=1
exit "$failed"
