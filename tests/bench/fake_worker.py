"""A worker without any model, for the tests of the runner: `fake_worker.py HOW [FILE]`.

HOW: "ours" is the reference; "same" agrees with it, "slow" as well, in calls twice as long, and
"sleepy" in calls ten times as long, which it does sleep; "other" disagrees; "raises", "dies" and
"silent" fail; "crowded" runs out of memory where another lives, "squeezed" in one of its ways;
"skips" does nothing. FILE gets a line for every request.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

HOW, NOTES = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
SECONDS = {"slow": 0.2, "sleepy": 1.0}.get(HOW, 0.1)


def prepare(request):
    folder = Path(request["folder"])
    if HOW == "raises":
        raise ValueError("no such\nlayer")
    if HOW == "dies":
        print("Segmentation fault", file=sys.stderr)
        os._exit(3)
    if HOW == "silent":
        time.sleep(60)
    if HOW == "skips":
        return {"skip": "not my task"}
    notes = ""
    if HOW in ("crowded", "squeezed"):
        lives = Path(folder, "alive").read_text().split() if Path(folder, "alive").exists() else []
        if any(Path(f"/proc/{pid}").exists() for pid in lives):
            notes = "eager; graph failed: OutOfMemoryError: CUDA out of memory"
            if HOW == "crowded":
                raise MemoryError("RESOURCE_EXHAUSTED: out of memory")
    if HOW == "ours":
        Path(folder, "alive").write_text(str(os.getpid()))
    logits = np.arange(12, dtype=np.float32).reshape(2, 6) + (HOW == "other")
    clips = request.get("clips", 2)
    np.savez(folder / f"outputs_{request['implementation']}.npz", logits=logits[:clips])
    return {
        "first_call_seconds": 1.0,
        "compile_seconds": None,
        "peak_bytes": 1,
        "notes": notes,
        **({"clips": request["clips"]} if "clips" in request else {}),
    }


def answer(request):
    if request["do"] == "prepare":
        return prepare(request)
    if request["do"] == "time":
        time.sleep(SECONDS if HOW == "sleepy" else 0)
        return {"seconds": [SECONDS] * request["repeats"]}
    if request["do"] == "metadata":
        return {
            "peak_bytes": 2**20,
            "peak_kind": "resident set",
            "device": "none",
            "versions": {HOW: "1"},
        }
    if request["do"] == "costs":
        return {"flops": 2e9, "bytes": {"inputs": 10**6}, "xla_flops": 2.2e9}
    if request["do"] == "rates":
        return {"matmul": {"float32": 1e11, "bfloat16": 1e11}, "copy": 1e10}
    raise ValueError(request["do"])


for line in sys.stdin:
    request = json.loads(line)
    if NOTES:
        with NOTES.open("a") as file:
            file.write(f"{request.get('implementation') or HOW} {request['do']}\n")
    if request["do"] == "quit":
        break
    try:
        said = answer(request)
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    print(json.dumps(said), flush=True)
