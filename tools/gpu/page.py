"""gpu_check.md: the results of tools/gpu_check.sh as tables. Imports no jax."""

from collections.abc import Iterator, Mapping
from typing import Any

from tools.gpu.findings import errors_text
from tools.gpu.machine import line_of

_LEGEND = """\
From the host: the batch goes to the device in every call, as torch's does; median of calls,
quartiles of rounds. On the device: the batch is there. Bound: every kernel of the very program that
was timed at its limit of bytes or FLOPs, by the rates of {chip} in `aver_jax.chips.catalog`. Floor:
the needed FLOPs at the peak. Torch is the fastest of the variants that time allowed, and the sides
did not alternate."""


def page(record: Mapping[str, Any]) -> str:
    """Returns the page of a record of `tools.gpu.check`."""
    machine = record["machine"]
    what = "a rehearsal on a CPU" if machine["gpu"] is None else machine["chip"]
    lines = [
        f"# `tools/gpu_check.sh {record['mode']}`: {what}, {record['date']}",
        "",
        f"{line_of(machine)}; sizes: {record['sizes']}",
        "",
        "| step | outcome | seconds |",
        "|---|---|---:|",
        *(f"| {s['step']} | {s['outcome']} | {s['seconds']:.0f} |" for s in record["steps"]),
    ]
    if record["checks"]:
        lines += ["", "| check | outcome | errors (of the allowed ones) |", "|---|---|---|"]
        for row in record["checks"]:
            found = (errors_text(row) + row.get("note", "")).rstrip("; ")
            lines.append(f"| {row['check']} | {row['outcome']} | {_cell(found)} |")
    if record["fast"]:
        lines += ["", *_timed(record["fast"], machine["gpu"] is None)]
    if record["trainings"]:
        lines += ["", "| training | clips/s (median) | waiting for data | steps | last loss |"]
        lines += ["|---|---:|---:|---:|---:|"]
        for name, found in record["trainings"].items():
            lines.append(
                f"| {name} | {found['clips_per_second']:.1f} | {100 * found['data_wait']:.1f}% "
                f"| {found['steps']} | {found['final_loss']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def _timed(fast: Mapping[str, Any], rehearsal: bool) -> Iterator[str]:
    yield (
        "| case | clips/s | from the host, ms | tuned torch, ms | torch / ours | on the device, ms "
        "| bound, ms | floor, ms | device / bound | compiled, s |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    notes, chip = [], "this GPU"
    for record in fast["cases"]:
        ours, torch = (record["sides"].get(name, {}) for name in ("aver_jax", "torch_tuned"))
        costs = record["costs"]
        predicted, device = costs.get("predicted"), costs.get("device_seconds")
        ratio = record["ratios"].get("torch_tuned", {}).get("median")
        cells = [
            f"{ours['clips_per_s']:.4g}" if "clips_per_s" in ours else "",
            _spread(ours),
            _spread(torch),
            f"{ratio:.2f}" if ratio else "",
            f"{1e3 * device:.4g}" if device else "",
            f"{1e3 * predicted['seconds']:.4g}" if predicted else "",
            f"{1e3 * predicted['floor']:.4g}" if predicted else "",
            f"{device / predicted['seconds']:.2f}" if predicted and device else "",
            f"{ours['compile_seconds']:.0f}" if ours.get("compile_seconds") else "",
        ]
        yield f"| {record['case']['name']} | {' | '.join(cells)} |"
        texts = [record["error"], *(side.get("error") for side in (ours, torch))]
        texts += [costs.get("note"), torch.get("notes") and f"torch: {torch['notes']}"]
        if predicted:
            chip = predicted["chip"]
            largest = ", ".join(f"{s['place'] or s['path']} {s['ms']:.3g}" for s in
                                predicted["sources"][:5])  # fmt: skip
            texts.append(
                f"{predicted['done'] / 1e12:.3g} TFLOP done of {predicted['needed'] / 1e12:.3g} "
                f"needed, {predicted['bytes'] / 1e9:.3g} GB, {predicted['memory'] / 2**30:.3g} GiB "
                f"held, {predicted['uncounted']} kernels or loops not counted; costliest by the "
                f"bound, ms: {largest}"
            )
        notes += [f"- {record['case']['name']}: {_cell(text)}" for text in dict.fromkeys(texts)
                  if text]  # fmt: skip
    yield ""
    yield _LEGEND.format(chip=chip)
    if rehearsal:
        yield "In this rehearsal bound and floor are of an H100, and mean nothing."
    if fast["rates"]:
        rates = fast["rates"]
        yield ""
        yield "Rates measured here: " + (rates.get("error") or (
            ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates["matmul"].items())
            + f", copy {rates['copy'] / 1e12:.3g} TB/s"
        ))  # fmt: skip
    if not fast["torch"]:
        yield ""
        yield "torch is not installed here."
    if fast["not_reached"]:
        yield ""
        yield "No time was left for: " + ", ".join(fast["not_reached"])
    yield ""
    yield from notes


def _spread(side: Mapping[str, Any]) -> str:
    if "seconds" not in side:
        return ""
    median, low, high = (1e3 * side["seconds"][name] for name in ("median", "low", "high"))
    return f"{median:.4g} ({low:.4g}-{high:.4g})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
