"""Times the cases of tools/gpu_check.sh: aver_jax, beside the bound of its program, beside torch.

    python -m tools.gpu.fast --sizes full --seconds 270 --out DIR [--cases PATTERN]

First aver_jax does every case, in a process of its own; then the rates of the device are measured;
then, in the time that is left, tuned torch does one case after the other, from the same weights and
clips, its outputs compared. So the sides do not alternate: a GPU that nobody else uses has no need
of it, and a compiled program of ours is not compiled twice. DIR/fast.json is written after each.
"""

import dataclasses
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench import runner
from aver_jax.bench.agreement import Disagreement
from aver_jax.bench.cases import Case, matching_cases
from aver_jax.bench.results import failures, summary
from aver_jax.bench.worker.protocol import WorkerError
from aver_jax.errors import UserError
from aver_jax.runtime.atomic_files import write_whole
from tools.bench_throughput import WORKER, torch_implementations
from tools.gpu.sizes import SIZES, arguments

ROOT = Path(__file__).resolve().parents[2]
TORCH = "torch_tuned"
# Seconds: without as many left no case of ours, no case of torch's starts.
_LEAST, _LEAST_TORCH = 10.0, 30.0
# Of torch's part: a case gets at least this, if there is as much.
_SHARE = 90.0
# What the last case leaves for writing.
_END = 5.0


def sides(has_torch: bool) -> list[runner.Implementation]:
    """Returns ours, whose worker counts its program, and tuned torch where it is installed."""
    command = (sys.executable, "-m", "tools.gpu.worker")
    ours = dataclasses.replace(runner.our_implementation(), command=command, folder=ROOT)
    tuned = [each for each in torch_implementations(WORKER) if each.name == TORCH]
    return [ours, *(tuned if has_torch else [])]


def time_cases(
    cases: Sequence[Case],
    torch_order: Sequence[Case],
    implementations: Sequence[runner.Implementation],
    rounds: int,
    deadline: float,
    out: Path,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Times everything that time is left for, and returns what DIR/fast.json holds.

    Args:
      cases: of ours, in this order.
      torch_order: the same cases, in the order of torch.
      implementations: of `sides`.
      rounds: of timing.
      deadline: on the clock.
      out: the folder DIR.
      clock: returns seconds.

    Returns:
      "cases", records of `runner.run_case`; "rates", those measured, None without time;
      "torch", whether it is installed; "not_reached", lines of what no time was left for.
    """
    ours, *others = implementations
    results: dict[str, Any] = {"cases": [], "rates": None, "torch": bool(others), "not_reached": []}
    records, times = {}, {}

    def left() -> float:
        return deadline - _END - clock()

    def run(case: Case, side: runner.Implementation, seconds: float, folder: Path) -> None:
        record, end = records[case.name], time.monotonic() + seconds
        settings = runner.Settings(rounds, out / "logs", timeout=max(1.0, left()), deadline=end)
        try:
            times[case.name] |= runner.timed_group(case, [side], settings, folder, record, end)
        except (WorkerError, Disagreement) as error:
            record["error"] = str(error)

    def save(line: str) -> None:
        print(line, flush=True)
        write_whole(out / "fast.json", json.dumps(results, indent=1))

    with tempfile.TemporaryDirectory(prefix="aver_gpu_") as scratch:
        for case in cases:
            if left() < _LEAST:
                results["not_reached"].append(f"{case.name}: aver_jax")
                continue
            folder = Path(scratch, case.name)
            folder.mkdir()
            record = records[case.name] = runner.new_record(case, together=False)
            times[case.name] = {}
            results["cases"].append(record)
            began = clock()
            run(case, ours, left(), folder)
            record["seconds"] = clock() - began
            save(summary(record))
        if left() > _LEAST:
            results["rates"] = _rates(ours, cases, runner.Settings(1, out / "logs", timeout=left()))
        save(f"rates: {results['rates']}")
        for number, case in enumerate(torch_order if others else ()):
            record = records.get(case.name)
            if record is None or runner.OURS not in times[case.name]:
                continue
            if left() < _LEAST_TORCH:
                results["not_reached"].append(f"{case.name}: {TORCH}")
                continue
            share = left() / (len(torch_order) - number)
            began = clock()
            run(case, others[0], min(left(), max(share, _SHARE)), Path(scratch, case.name))
            if "did not reply" in record["sides"][TORCH].get("error", ""):
                del record["sides"][TORCH]
                results["not_reached"].append(
                    f"{case.name}: {TORCH}, after {clock() - began:.0f} s"
                )
            runner.add_ratios(record, times[case.name])
            record["seconds"] += clock() - began
            save(summary(record))
    save("not reached: " + (", ".join(results["not_reached"]) or "nothing"))
    return results


def _rates(side: runner.Implementation, cases: Sequence[Case], settings: runner.Settings) -> Any:
    dtypes = sorted({case.dtype for case in cases})
    try:
        with side.start(settings.logs / "rates.log") as worker:
            return worker.ask("rates", settings.timeout, dtypes=dtypes)
    except WorkerError as error:
        return {"error": str(error)}


def main() -> int:
    """Times; 1 if a case of ours was not reached, or something failed."""
    parser = arguments(__doc__)
    parser.add_argument("--cases", default="*", help="cases whose name matches this glob")
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    deadline, sizes = time.monotonic() + args.seconds, SIZES[args.sizes]
    try:
        cases = matching_cases(sizes.timed, args.cases)
    except UserError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    order = [sizes.timed[i] for i in sizes.beside_torch if sizes.timed[i] in cases]
    has_torch = importlib.util.find_spec("torch") is not None
    results = time_cases(cases, order, sides(has_torch), sizes.rounds, deadline, args.out)
    failed = failures(results) + [x for x in results["not_reached"] if TORCH not in x]
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
