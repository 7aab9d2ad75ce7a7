"""Pictures of true errors: held-out by training, by composition, the calibration, forces before they were learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from activelearn.frames import FloatArray
from activelearn.page.findings.accuracy import by_composition
from activelearn.page.findings.exploration import last_pass
from activelearn.page.markup import Figure, Numbers
from activelearn.page.products import Residual
from activelearn.page.seen import SeenCampaign
from activelearn.page.svg import Axis, Plot, axis_of
from activelearn.records import Ensemble, Errors

#: Squares of a parity plot along each axis.
_BINS: Final = 48
#: Maximum number of calibration frames drawn, of the last and of earlier iterations.
_MOST_DOTS: Final = 1000
#: The columns of held-out errors, and their fields in a record.
COLUMNS: Final = (
    ("energy MAE (meV/atom)", "energy_mae_meV_per_atom"),
    ("energy RMSE (meV/atom)", "energy_rmse_meV_per_atom"),
    ("force MAE (eV/Å)", "force_mae"),
    ("force RMSE (eV/Å)", "force_rmse"),
    ("force P95 (eV/Å)", "force_p95"),
    ("force P99 (eV/Å)", "force_p99"),
    ("virial MAE (meV/atom)", "virial_mae_meV_per_atom"),
    ("virial RMSE (meV/atom)", "virial_rmse_meV_per_atom"),
)


def figures(seen: SeenCampaign) -> Iterator[Figure]:
    """Yield the figures."""
    trained = [r.ensemble for r in seen.records if r.ensemble.trained_in == r.index and r.ensemble.held_out is not None]
    if trained:
        yield _held_out(seen, trained)
    if any(record.labelling.calibration for record in seen.records):
        yield _calibration(seen)
    if seen.residual is not None:
        yield _parity(seen.residual)


def errors_table(seen: SeenCampaign) -> Numbers | None:
    """Return the held-out errors of the last ensemble by composition; None without any."""
    ensemble = seen.records[-1].ensemble if seen.records else None
    if ensemble is None or ensemble.held_out is None:
        return None
    found = {**by_composition(ensemble), "all": ensemble.held_out}
    rows = [(name, errors.n_frames, *_values(errors)) for name, errors in found.items()]
    return Numbers("held-out", ("cell", "frames", *(name for name, _ in COLUMNS)), rows)


def _values(errors: Errors) -> list[float | None]:
    return [getattr(errors, key) for _, key in COLUMNS]


def _numbers(found: Sequence[Errors | None], key: str) -> FloatArray:
    """Return a figure of some errors, NaN where it is not known."""
    values = [None if errors is None else getattr(errors, key) for errors in found]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _held_out(seen: SeenCampaign, trained: list[Ensemble]) -> Figure:
    x = np.array([one.trained_in for one in trained], dtype=np.float64)
    lines: dict[tuple[str, str], FloatArray] = {}
    members = sorted({m.index for one in trained for m in one.members})
    for name, key in (("RMSE", "force_rmse"), ("P99", "force_p99")):
        lines[name, "mean"] = _numbers([one.held_out for one in trained], key)
        for k in members:
            each = [next((m.held_out for m in one.members if m.index == k), None) for one in trained]
            lines[name, f"member {k}"] = _numbers(each, key)
    y = axis_of("held-out force error (eV/Å)", list(lines.values()), zero=True)
    plot = Plot(Axis("iteration", float(x.min()) - 0.3, float(x.max()) + 0.3), y, "Held-out force errors by training")
    last = last_pass(seen)
    if last is not None and last.f_lo < y.high:
        plot.window(last.f_lo, last.f_hi, along="y")
    for (name, who), values in lines.items():
        style = "c0" if name == "RMSE" else "c1"
        is_mean = who == "mean"
        plot.line(x, values, style if is_mean else f"{style} thin", f"{name}, {who}", label=name if is_mean else None)
        if is_mean:
            told = [
                f"iteration {int(i)}: {name} {v:.3f} eV/Å, mean over the members"
                for i, v in zip(x, values, strict=True)
            ]
            plot.points(x, values, "f0" if name == "RMSE" else "f1", told, r=4.0)
    rows = [
        (one.trained_in, m.index, m.n_steps, m.held_out.n_frames, *_values(m.held_out))
        for one in trained
        for m in one.members
        if m.held_out is not None
    ]
    columns = ("iteration", "member", "steps", "frames", *(name for name, _ in COLUMNS))
    return Figure(
        name="held-out",
        title="Held-out force errors",
        caption="RMSE of a component and 99th percentile of an atom's error vector |dF| on trajectories that were "
        "never trained on: thick: mean over the members; thin: each member. Shaded: the trust window.",
        picture=plot.svg(),
        numbers=Numbers("held-out-by-training", columns, rows),
    )


def _calibration(seen: SeenCampaign) -> Figure:
    pairs = [(r.index, d, e) for r in seen.records for d, e in r.labelling.calibration if d > 0.0 and e > 0.0]
    last = max((index for index, _, _ in pairs), default=0)
    earlier = [pair for pair in pairs if pair[0] < last]
    shown = earlier[:: -(-len(earlier) // _MOST_DOTS) or 1] + [pair for pair in pairs if pair[0] == last][:_MOST_DOTS]
    found = np.array(shown, dtype=np.float64).reshape(-1, 3)
    drawn = "" if len(shown) == len(pairs) else f" {len(shown)} of {len(pairs)} are drawn, evenly over the iterations."
    selection = last_pass(seen)
    ends_of_window = np.array([selection.f_lo, selection.f_hi] if selection is not None else [])
    x = axis_of("force deviation (eV/Å)", [found[:, 1], ends_of_window], is_log=True)
    plot = Plot(x, axis_of("largest true force error of the frame (eV/Å)", [found[:, 2]], is_log=True), "Calibration")
    if selection is not None:
        plot.window(selection.f_lo, selection.f_hi, along="x")
    plot.mark(seen.campaign.select.max_error, along="y", name="select.max_error")
    ends = np.array([max(x.low, plot.y.low), min(x.high, plot.y.high)])
    if ends[0] < ends[1]:
        plot.line(ends, ends, "c6", "error = deviation", label="error = deviation")
    for is_last, style, name in ((False, "f5 faint", "earlier"), (True, "f1", f"iteration {last}")):
        mine = found[(found[:, 0] == last) == is_last]
        told = [f"iteration {int(i)}: deviation {d:.3f}, error {e:.3f} eV/Å" for i, d, e in mine]
        if len(mine):
            plot.points(mine[:, 1], mine[:, 2], style, told, r=2.6)
            plot.name(name, style)
    return Figure(
        name="calibration",
        title="Deviation and true error",
        caption="Every labelled frame of a walk: the force deviation it was selected by, and the largest error of the "
        f"force on an atom according to its label (member 0).{drawn}",
        picture=plot.svg(),
        numbers=Numbers(
            "calibration", ("iteration", "deviation (eV/Å)", "error (eV/Å)"), [(int(i), d, e) for i, d, e in shown]
        ),
    )


def _parity(found: Residual) -> Figure:
    far = float(np.percentile(np.abs(np.concatenate([found.model, found.reference])), 99.9)) * 1.05 or 1.0
    x = Axis("force component of the reference (eV/Å)", -far, far)
    plot = Plot(x, Axis("of the model that drove (eV/Å)", -far, far), "Forces against the reference", height=470.0)
    edges = np.linspace(-far, far, _BINS + 1)
    counts, _, _ = np.histogram2d(found.reference.ravel(), found.model.ravel(), bins=(edges, edges))
    top = np.log1p(counts.max())
    for i, j in np.argwhere(counts > 0):
        n = int(counts[i, j])
        box = (float(edges[i]), float(edges[i + 1])), (float(edges[j]), float(edges[j + 1]))
        plot.box(*box, "heat", f"{n} components", fill_opacity=round(0.15 + 0.85 * float(np.log1p(n) / top), 2))
    plot.line(np.array([-far, far]), np.array([-far, far]), "c6", "model = reference")
    elements = list(dict.fromkeys(found.symbols.tolist()))
    rows = [(e, int((found.symbols == e).sum()), found.rms(found.symbols == e)) for e in elements]
    said = ", ".join(f"{e} {rms:.3f}" for e, _, rms in rows)
    return Figure(
        name="parity",
        title="Forces before they were learnt",
        caption=f"Frames labelled in iteration {found.iteration}: forces of the model that drove the walk versus the "
        f"reference. Errors (component RMSE): {said} eV/Å.",
        picture=plot.svg(),
        numbers=Numbers("errors-by-element", ("element", "atoms", "force error, rms (eV/Å)"), rows),
    )
