"""A preset from its first label to its last glass, by the command, with what it cost: passes, glasses, time, memory.

``python tests/performance/whole_preset.py FOLDER quickstart`` runs it in ``FOLDER/run`` (and continues it after
an interruption; time and memory are then of the last part, seconds at the stations of all) and prints the table that
tests/performance/README.md has. ``--seed N`` takes another ``random_seed``. Exit code 1 if it did not converge, or a
glass died, has not melted or left the window in a twentieth of its path.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent / "race"))
import meter

import activelearn as al
from activelearn.config.files import preset_file
from activelearn.status import as_dict
from activelearn.store import Store

#: A glass of a preset is good if fewer frames of its path than this lie outside the window.
OUTSIDE = 0.05


def write_campaign(preset: str, seed: int | None, folder: Path) -> Path:
    """Write the YAML that is run, unless it is there; return its path."""
    path = folder / f"{preset}.yaml"
    if not path.exists():
        text = preset_file("campaign", preset).read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
        if seed is not None:
            text = text.replace(f"random_seed: {raw['random_seed']}", f"random_seed: {seed}")
        path.write_text(text, encoding="utf-8")
    return path


def is_good(glass: Any) -> bool:
    """Return whether a glass lived, melted, and stayed in the window in 95 % of its path."""
    has_melted = glass.melt is not None and glass.melt.is_melted is True
    return glass.ended == "finished" and has_melted and (glass.outside_share or 0.0) < OUTSIDE


def lines(found: Mapping[str, Any], glasses: list[Any], errors: Mapping[int, float]) -> Iterator[str]:
    """Yield the passes of a ``status --json``, then the glasses, each with its true force error (eV/Å)."""
    yield "| iteration | stages | candidates, failed | frames, walks | labels | held-out RMSE, P99 | s |"
    yield "|---|---|---|---|---|---|---|"
    for one in found["iterations"]:
        counts, errors_of = one["counts"], one["held_out"] or {}
        shares = f"{100 * counts['candidate_share']:.1f}, {100 * counts['failed_share']:.1f} %" if counts else ""
        size = f"{counts['walked']}, {counts['walks']}" if counts else ""
        error = f"{errors_of.get('force_rmse', float('nan')):.3f}, {errors_of.get('force_p99', float('nan')):.3f}"
        wall = sum(station["wall"] for station in one["seconds"].values())
        yield (
            f"| {one['index']} | {', '.join(one['stages'])} | {shares} | {size} | {one['labelled']} | {error} "
            f"| {wall:.0f} |"
        )
    yield ""
    yield "| glass | g/cm³ | outside, at or above f_lo | P moved, Å | true force RMSE, eV/Å |"
    yield "|---|---|---|---|---|"
    for glass in glasses:
        if glass.ended != "finished" or glass.melt is None or glass.melt.msd_A2 is None:
            yield f"| {glass.replica} | | {glass.ended} | | |"
            continue
        shares = f"{100 * glass.outside_share:.1f}, {100 * glass.above_f_lo_share:.1f} %"
        error = errors.get(glass.replica, float("nan"))
        yield (
            f"| {glass.replica} | {glass.density_g_cm3:.2f} | {shares} | {glass.melt.msd_A2**0.5:.1f} in "
            f"{glass.melt.ps:g} ps | {error:.3f} |"
        )


def main() -> int:
    """Run the preset, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("preset")
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = write_campaign(given.preset, given.seed, folder)
    command = [str(Path(sys.executable).with_name("activelearn")), "run", str(path), "--folder", str(folder / "run")]
    cost = meter.measure(command, folder=folder, log=folder / "log.txt")
    campaign = al.open(folder / "run")
    study = campaign.studies[-1] if campaign.studies else None
    glasses = list(study.glasses) if study else []
    rows = study.results() if study else []
    of_each = [row for row in rows if row["name"] == "force_error_rmse" and row["replica"] is not None]
    errors = {int(row["replica"]): row["value"] for row in of_each}
    found = as_dict(Store(folder / "run"))
    print("\n".join(lines(found, glasses, errors)))
    at_stations = sum(row["wall"] for row in campaign.seconds())
    labels = sum(one["labelled"] for one in found["iterations"])
    print(f"\n{labels} labels; exit code {cost.exit_code}; at most {cost.peak_MB / 1000:.2f} GB (PSS)")
    print(f"{cost.wall_s:.0f} s in all, {at_stations:.0f} s at the stations of the loop; {cost.cpu_s:.0f} CPU-s")
    return 0 if cost.exit_code == 0 and glasses and all(map(is_good, glasses)) else 1


if __name__ == "__main__":
    sys.exit(main())
