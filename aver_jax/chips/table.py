"""An estimate as text for a terminal."""

from aver_jax.chips.catalog import GIB, Target
from aver_jax.chips.estimate import Estimate

_WHAT = {
    "bound": "a bound, not a measurement: every compiled kernel at its limit of bytes or FLOPs",
    "estimate": "an estimate, not a measurement: the cycles that the compiler expects",
}


def estimate_text(found: Estimate, target: Target, name: str, seconds: float, top: int) -> str:
    """Returns the estimate as lines.

    Args:
      found: the estimate.
      target: the chip and how many.
      name: of the program.
      seconds: that it took to trace and compile.
      top: costliest sources to list.
    """
    chip = target.chip
    a_device = f"{found.clips // target.devices} a device"
    memory = ", ".join(f"{use} {_short(size / GIB)}" for use, size in found.memory.items())
    total = sum(found.memory.values()) / GIB
    fits = "fits" if found.fits else "does not fit"
    again = found.done / found.needed - 1 if found.needed else 0
    slow, fast = found.clips_per_second
    speed = f"{slow:.0f}" if slow > 0.99 * fast else f"{slow:.0f} to {fast:.0f}"
    lines = [
        f"{_WHAT[found.kind]}, on {target}",
        f"{name}, {found.clips} clips ({a_device}); traced and compiled in {seconds:.0f} s",
        "",
        "of one device",
        f"  memory      {_short(total)} of {chip.memory / GIB:.1f} GiB: {fits} ({memory})",
        f"  FLOPs       {_short(found.needed / 1e12)} TFLOP needed, "
        f"{_short(found.done / 1e12)} done ({100 * again:+.0f}%)",
        f"  bytes       {_short(found.bytes / 1e9)} GB read and written",
        f"  time        {_short(1e3 * found.seconds)} ms; the needed FLOPs at the peak take "
        f"{_short(1e3 * found.floor)} ms",
    ]
    for each in found.collectives:
        lines.append(
            f"  {each.kind:<20}{each.count} of {each.bytes / 1e6:.1f} MB together, "
            f"{_short(1e3 * each.seconds)} ms on the links"
        )
    lines += [
        "",
        f"so {'about' if chip.clock else 'at most'} {speed} clips/s on {target}, "
        f"MFU {100 * found.mfu:.0f}%"
        + (" (collectives after, or beside, the other work)" if found.collectives else ""),
        "",
        f"  {'ms':>8} {'GB':>8} {'TFLOP':>7}  costliest sources",
    ]
    for source in found.sources[:top]:
        place = source.place or "(no source line)"
        lines.append(
            f"  {_short(1e3 * source.seconds):>8} {_short(source.bytes / 1e9):>8} "
            f"{_short(source.flops / 1e12):>7}  {place}  {source.path or source.what}"
        )
    if found.uncounted:
        lines.append(f"  {found.uncounted} kernels or loops whose cost the text does not tell")
    rates = [f"{key}: {origin}" for key, origin in chip.sources.items()]
    lines += ["", "rates: " + "; ".join(dict.fromkeys(rates))]
    return "\n".join(lines)


def _short(number: float) -> str:
    """Returns three digits, as 0.0123, 4.56 and 789."""
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}"
