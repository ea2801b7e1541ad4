"""A training step of each model, and relevance, on this accelerator beside the CPU's.

    python -m tools.gpu.steps --sizes full --out FILE.jsonl

Both in one process, of the same weights and clips. float32 multiplies at the highest precision on
either side. bfloat16 is compared with the CPU's float32, and may be off as the CPU's bfloat16 is.
Without an accelerator the CPU is compared with itself: a rehearsal, which proves nothing, and says
so.
"""

import sys
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from aver_jax import relevance
from aver_jax.bench.cases import Case
from aver_jax.bench.worker.inputs import case_config, case_model, noisy_variables, synthetic_batch
from aver_jax.frontend import evaluation_inputs
from aver_jax.runtime.data_parallel import AXIS, replicated
from aver_jax.training.settings import StepSettings
from aver_jax.training.step import train_step
from tools.gpu.findings import NOT_HERE, Findings
from tools.gpu.sizes import SIZES, arguments, with_dtype

# In float32. Losses relative; gradients, updates and statistics of batch norms by the norm of the
# difference over all of them. The first update of AdamW has the sign of the gradient, also where
# that is nothing but rounding: a thousandth of all signs makes 0.06.
_STEP = {"loss": 1e-4, "gradient norm": 1e-3, "gradients": 1e-3, "updates": 6e-2,
         "statistics": 1e-3}  # fmt: skip
# In bfloat16 the gradients of ResNets are off by a fifth, on CPUs as well: no farther than so many
# times the CPU's, and this.
_TIMES = 2.0
_ROUGHLY = {"loss": 2e-3, "gradient norm": 1e-2, "gradients": 2e-2, "updates": 1e-1,
            "statistics": 2e-3}  # fmt: skip
# The largest difference of maps of 0..1, and what their correlation lacks of 1.
_MAPS = {
    "float32": {"maps": 5e-3, "correlation": 1e-4},
    "bfloat16": {"maps": 2e-1, "correlation": 2e-2},
}


def one_step(case: Case, device: jax.Device) -> dict[str, Any]:
    """Returns what a training step gives on a device, as numpy arrays and numbers."""
    # Arrays that nobody places belong there as well.
    with jax.default_device(device), jax.default_matmul_precision(_precision(case)):
        mesh = Mesh(np.array([device]), (AXIS,), axis_types=(AxisType.Auto,))
        settings = StepSettings.from_config(case_config(case))
        training = train_step(case_model(case), settings, 1, mesh)
        state = training.init(noisy_variables(case), 0)
        before = jax.device_get(state.variables)
        state, metrics = training.step(
            jax.device_put(state, replicated(mesh)), synthetic_batch(case)
        )
        after, metrics = jax.device_get((state.variables, metrics))
        # The first moment after one step is a tenth of the gradient.
        moment = jax.device_get(optax.tree_utils.tree_get(state.opt_state, "mu"))
    difference = jax.tree.map(np.subtract, after["params"], before["params"])
    rest = {name: tree for name, tree in after.items() if name != "params"}
    return {
        "loss": float(metrics["loss"]),
        "gradient norm": float(metrics["grad_norm"]),
        "gradients": _flat(moment),
        "updates": _flat(difference),
        "statistics": _flat(rest),
        "devices": {str(x.platform) for x in jax.tree.leaves(state)[0].devices()},
    }


def maps_of(case: Case, device: jax.Device) -> np.ndarray:
    """Returns relevance maps [B, T, h, w] computed on a device, of class 1."""
    config = case_config(case)
    with jax.default_device(device), jax.default_matmul_precision(_precision(case)):
        placed = jax.device_put((noisy_variables(case), synthetic_batch(case)), device)
        inputs = jax.jit(lambda batch: evaluation_inputs(config, batch))(placed[1])
        return np.asarray(relevance.explain(case_model(case), placed[0], inputs, target=1).maps)


def _precision(case: Case) -> str | None:
    return "highest" if case.dtype == "float32" else None


def _flat(tree: Any) -> np.ndarray:
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(1)


def _difference(found: Any, expected: Any) -> float:
    """Returns the norm of a difference over that of what is expected; 0 for two zeros."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def compare_step(findings: Findings, case: Case, here: jax.Device, cpu: jax.Device) -> None:
    """Compares a step of a float32 case, in both dtypes, with the CPU's in float32."""
    rough = with_dtype(case, "bfloat16")

    def checked(case: Case) -> dict[str, Any]:
        found = one_step(case, here)
        if found["devices"] != {here.platform}:
            raise ValueError(f"the step ran on {found['devices']}, not on {here.platform}")
        return found

    def errors_of(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
        return {key: _difference(found[key], expected[key]) for key in _STEP}

    expected = None
    with findings.checking(f"step of {case.name}, float32", _STEP) as errors:
        expected = one_step(case, cpu)
        errors |= errors_of(checked(case), expected)
    limits: dict[str, float] = {}
    with findings.checking(f"step of {case.name}, bfloat16", limits) as errors:
        errors |= errors_of(checked(rough), expected or one_step(case, cpu))
        usual = errors_of(one_step(rough, cpu), expected or one_step(case, cpu))
        limits |= {key: _TIMES * usual[key] + _ROUGHLY[key] for key in _STEP}


def compare_maps(findings: Findings, case: Case, here: jax.Device, cpu: jax.Device) -> None:
    """Compares TIBAV's maps of a float32 case, in both dtypes, with the CPU's in float32."""
    expected = None
    for dtype, tolerances in _MAPS.items():
        with findings.checking(f"TIBAV of {case.name}, {dtype}", tolerances) as errors:
            if expected is None:
                expected = maps_of(case, cpu)
            found = maps_of(with_dtype(case, dtype), here)
            errors["maps"] = float(np.abs(found - expected).max())
            each = [
                np.corrcoef(x.ravel(), y.ravel())[0, 1]
                for x, y in zip(found, expected, strict=True)
            ]
            errors["correlation"] = 1 - float(np.min(each))


def main() -> int:
    """Compares; 1 if something differs."""
    args = arguments(__doc__).parse_args()
    findings, sizes = Findings(args.out), SIZES[args.sizes]
    here, cpu = jax.devices()[0], jax.devices("cpu")[0]
    if here == cpu:
        findings.add("steps and TIBAV of a GPU", NOT_HERE, note="below, the CPU beside itself")
    first, *others = sizes.steps
    compare_step(findings, first, here, cpu)
    compare_maps(findings, sizes.explained, here, cpu)
    for case in others:
        compare_step(findings, case, here, cpu)
    return int(findings.failed)


if __name__ == "__main__":
    sys.exit(main())
