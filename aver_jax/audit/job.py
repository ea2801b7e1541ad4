"""What trivial models reach on a dataset, so that a score can be told from a triviality.

Tries logistic regression and an SVM on one small still, on the difference of two, on a spectrum
without time, on loudness, length and bytes, over actors that they have not seen.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aver_jax.audit.stored import (
    AUDIT_FILE,
    PAGE_FILE,
    audit_folder,
    folds_in_words,
)
from aver_jax.input import DEFAULT_PROTOCOLS, PROTOCOLS, open_dataset
from aver_jax.report.intervals import percent_with_interval
from aver_jax.runtime.atomic_files import check_writable, write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver audit`."""
    parser.add_argument("data", type=Path, help="prepared dataset, the --out of aver prepare")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        metavar="NAME",
        help="one of docs/protocols.md (default: the dataset's own)",
    )
    parser.add_argument(
        "--target",
        default="intended",
        help="whose labels: intended, voice, face or multimodal (default: intended)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the audit (default: within DATA, where evaluate finds it)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the audit there as well")


def run(args: argparse.Namespace) -> int:
    """Runs the audit and prints its tables."""
    from aver_jax.audit.audit import audited  # scikit-learn and matplotlib: --help is quick
    from aver_jax.audit.page import write_page

    dataset = open_dataset(args.data)
    protocol = args.protocol or DEFAULT_PROTOCOLS[dataset.name]
    out = args.out or audit_folder(args.data, protocol, args.target)
    check_writable(out, "--out")
    if args.json:
        check_writable(args.json.parent, "--json")
    with tqdm(total=len(dataset), unit="clip", desc="read", disable=None) as bar:
        audit, table, labels = audited(dataset, protocol, args.target, bar.update)
    text = json.dumps(audit, indent=1, allow_nan=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    write_page(out / PAGE_FILE, audit, dataset, table, labels)
    write_whole(out / AUDIT_FILE, text)
    if args.json:
        write_whole(args.json, text)
    print(audit_table(audit))
    print(f"\npage: {out / PAGE_FILE}")
    if audit["folds"] < 5:
        dealt = f"{audit['actors']} actors" if audit["actors_known"] else "so few clips of a class"
        print(f"note: {dealt} give {audit['folds']} folds", file=sys.stderr)
    return 0


def audit_table(audit: dict[str, Any]) -> str:
    """Returns the audit as compact text."""
    lines = [
        f"{audit['dataset']}, {audit['clips']} clips of {audit['actors'] or 'unknown'} actors, "
        f"{audit['target']} labels, {folds_in_words(audit)}; "
        f"chance {100 * audit['chance']:.1f}%",
        "",
        f"{'trivial baseline':<26}{'group':<9}{'logistic regression':<24}SVM",
    ]
    names = list(dict.fromkeys(entry["name"] for entry in audit["baselines"]))
    for name in names:
        both = [entry for entry in audit["baselines"] if entry["name"] == name]
        cells = "".join(f"{percent_with_interval(entry):<24}" for entry in both)
        lines.append(f"{name:<26}{both[0]['group']:<9}{cells}".rstrip())
    if not audit["has_sound"]:
        lines.append("no sound in this dataset: its baselines are left out")
    if audit["leaks"]:
        lines += ["", f"{'also told':<12}{'by':<30}{'accuracy':<24}chance"]
        for leak in audit["leaks"]:
            lines.append(
                f"{leak['told']:<12}{leak['by']:<30}{percent_with_interval(leak):<24}"
                f"{100 * leak['chance']:.1f}%"
            )
    classes = audit["classes"]
    lines += ["", f"clips of {audit['protocol']}, fold 1", f"{'':<12}"]
    widths = {name: max(5, len(name)) for name in classes}
    lines[-1] += "".join(f" {name:>{width}}" for name, width in widths.items())
    for part, counts in audit["balance"].items():
        cells = "".join(f" {counts[name]:>{width}}" for name, width in widths.items())
        lines.append(f"{part:<12}{cells}")
    for pair, actors in audit["shared_actors"].items():
        lines.append(f"{pair} share {len(actors)} actors: {', '.join(actors[:8])}")
    if not audit["shared_actors"]:
        known = audit["actors_known"]
        lines.append("no actor is in two parts" if known else "no actor is known")
    between = [pair for pair in audit["duplicates"] if len(set(pair["parts"])) > 1]
    lines.append(
        f"{len(audit['duplicates'])} pairs of clips are alike, {len(between)} of them in two parts"
    )
    for pair in between[:8]:
        (a, b), (here, there) = pair["clips"], pair["parts"]
        lines.append(f"  {a} ({here}) and {b} ({there}): {pair['alike']}")
    return "\n".join(lines)
