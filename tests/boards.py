"""Scoreboards made up for the tests of tables and figures: no engine has seen them, and they say so."""

import itertools

import numpy as np

from activelearn.records import Curve, Result, Scoreboard

POTENTIALS = ("SevenNet-0", "SevenNet-0 + D3", "CHGNet", "quickstart DeePMD")
UNTRUSTED = "UNTRUSTED: 34.2 % of frames outside the window"
NMR = "31P NMR as quoted by M. Bertani, A. Pedone, Solid State Sci. 174 (2026) 108204 (bounds)"
CRYSTALS = {"Na3PS4_P-421c": 170.99, "Na4P2O7_P212121": 170.15, "Na3PO3S_R3c": 120.8}
TEMPERATURES = (393.0, 423.0, 473.0)


def stamp_of(potential, x):
    if "DeePMD" not in potential:
        return "not judged"
    return UNTRUSTED if x < 2.0 else "0.4 % of frames outside the window"


def result(name, value, unit, condition, **more):
    potential, x = str(condition.get("potential")), float(condition.get("x", 0.0))
    given = {"uncertainty": 0.02 * abs(value), "n_samples": 5, "stamp": stamp_of(potential, x)} | more
    return Result(name=name, value=value, unit=unit, condition=condition, **given)


def glass_results(k, condition):
    """The numbers of one glass of the k-th potential."""
    x = float(condition["x"])
    cited = {"reference_source": "A. Author, J. Glass 1 (2020) 1"}
    yield result("density", 2.0 + 0.06 * x - 0.03 * k, "g/cm3", condition, reference_value=2.0 + 0.05 * x,
                 reference_uncertainty=0.02, **cited)  # fmt: skip
    yield result("volume_per_atom", 22.0 - x + k, "Å3", condition)
    yield result("free_volume", 31.0 - 2 * x + k, "%", condition)
    yield result("youngs_modulus", 18.0 + 2 * x + k, "GPa", condition, reference_value=17.0 + 2 * x, **cited)
    yield result("bulk_modulus", 14.0 + x + k, "GPa", condition)
    bounds = {"P1": (60.0, "above"), "P0": (30.0, "below"), "P2": (10.0, "below")} if x == 0.0 else {}
    p1 = 55.0 - 5 * x - 2 * k
    shares = {"P0": 95.0 - p1 - 12.0, "P1": p1, "P2": 12.0, "P3": 5.0, "P1P": 4.0 - x, "P3c": 6.0 - x, "P2ES": 2.0}
    shares |= {"BO": 3.0 * x, "BS": 12.0 - 2.5 * x, "NBO": 5.0 * x, "NBS": 80.0 - 6 * x, "free_O": 0.0, "free_S": 3.0}
    shares |= {"S_in_chains": 3.0 - 0.5 * x, "S_chains_of_three": 10.0, "Na_S_share": 100.0 - 10 * x}
    for name, value in shares.items():
        bound = bounds.get(name)
        more = {"reference_value": bound[0], "reference_bound": bound[1], "reference_source": NMR} if bound else {}
        yield result(name, value, "%", condition, uncertainty=1.0, **more)
    yield result("S_chain_length", 2.2, "1", condition)
    yield result("Na_coordination", 6.5 + 0.1 * k - 0.1 * x, "1", condition)
    yield result("C11", 40.0, "GPa", condition)
    for pair in ("P-S", "Na-S"):
        yield result("coordination_number", 3.9, "1", {**condition, "pair": pair, "within": "first minimum"})
    for T in TEMPERATURES:
        at = {**condition, "temperature_K": T}
        note = "not converged: MSD grows as t^0.4" if T == 393.0 else None
        sigma = 100.0 / T * np.exp(-0.45 / (8.617e-5 * T)) * (1.0 + x) * 1.5**k * 1e3
        yield result("conductivity_Na", float(sigma), "S/cm", at, uncertainty=0.2 * float(sigma), note=note)
        yield result("D_Na", float(sigma) * 1e-3, "cm2/s", at)
        yield result("D_P", float(sigma) * 1e-5, "cm2/s", at)


def line(name, label, axes, condition, xy, more=()):
    key = "/".join([name, *map(str, condition.values()), label])
    stamp = stamp_of(str(condition["potential"]), float(condition.get("x", 0.0)))
    curve = Curve(key=key, name=name, label=label, x_name=axes[0], y_name=axes[1], condition=condition, stamp=stamp)
    x, y = (np.asarray(one) for one in xy)
    return curve, {f"{key}/x": x, f"{key}/y": y} | {f"{key}/{k}": v for k, v in dict(more).items()}


def glass_lines(k, condition, rng):
    """The lines of one glass of the k-th potential."""
    r, x = np.arange(0.025, 9.0, 0.05), float(condition["x"])
    for a, b in itertools.combinations_with_replacement(("Na", "P", "S"), 2):
        d = {"P-S": 2.05, "Na-S": 2.85, "S-S": 3.35}.get(f"{a}-{b}", 3.6) + 0.02 * k
        g = 6 * np.exp(-(((r - d) / 0.12) ** 2)) + 1 / (1 + np.exp(-(r - d - 1.2) * 4)) * (1 + 0.1 * np.sin(3 * r + k))
        yield line("rdf", f"{a}-{b}", ("r (Å)", "g(r)"), condition, (r, g), {"error": 0.05 * g})
    for unit, start, end in (("P0", 70, 30), ("P1", 20, 55), ("P2", 10, 12), ("P3", 0, 3), ("P2_corner", 9, 12)):
        T = np.linspace(1800, 300, 40)
        y = np.interp(T, [300, 1800], [end, start]) + rng.normal(0, 1, 40)
        yield line("evolution", unit, ("T (K)", "share of P (%)"), {**condition, "segment": "quench"}, (T, y.clip(0)))
    shares = (np.arange(2, 5), [3.0, 0.5 + 0.1 * k, 0.1])
    yield line("chain_sizes", "S", ("atoms in the chain", "share of S (%)"), condition, shares)
    strain = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    at = {**condition, "temperature_K": 300.0}
    points = (strain, 0.03 * (14 + x + k) * strain)
    axes = ("linear strain (%)", "mean stress (GPa)")
    yield line("stress_strain", f"x = {x:g}", axes, at, points, {"error": np.full(5, 0.02)})
    for T, element in itertools.product(TEMPERATURES, ("Na", "P", "S")):
        at, t = {**condition, "temperature_K": T}, np.linspace(0, 20000, 300)
        msd = {"Na": 3e-3, "P": 3e-5, "S": 5e-5}[element] * t * (1 + 0.2 * x + 0.1 * k) * T / 400
        yield line("msd", element, ("t (ps)", "MSD (Å2)"), at, (t, msd), {"error": 0.05 * msd})
    yield from arrhenius(condition, k)
    yield from maps({**condition, "temperature_K": 473.0}, rng)


def arrhenius(condition, k):
    axes = ("1000/T (1/K)", "conductivity x T (S K/cm)")
    for label, T in (
        ("Na", np.array([423.0, 473.0])),
        ("Na (not converged)", np.array([393.0])),
        ("Na fit", np.array([423.0, 473.0])),
    ):
        y = 1e5 * np.exp(-0.45 / (8.617e-5 * T)) * (1 + float(condition["x"])) * 1.5**k
        yield line("arrhenius", label, axes, condition, (1000 / T, y), {} if "fit" in label else {"error": 0.1 * y})


def maps(condition, rng):
    cell = np.array([[25.0, 0, 0], [3.0, 24.0, 0], [0, 0, 26.0]])
    space, area = ("x, y, z (Å)", "displacement (Å)"), ("x, y (Å)", "atoms per area (1/Å2)")
    atoms = rng.random((200, 3)) @ cell
    steps = rng.normal(0, 0.8, (12, 60, 3)).cumsum(axis=1) + (rng.random((12, 1, 3)) @ cell)
    a, b = np.meshgrid((np.arange(50) + 0.5) / 50, (np.arange(48) + 0.5) / 48, indexing="ij")
    middles = (a[..., None] * cell[0] + b[..., None] * cell[1])[..., :2]
    for label, axes, points in (
        ("P displacement", space, (atoms, rng.gamma(2, 0.5, 200))),
        ("Na paths", space, (steps, np.linalg.norm(steps - steps[:, :1], axis=2))),
        ("Na density", area, (middles, rng.gamma(1.0, 0.5, (50, 48)))),
    ):
        yield line("map", label, axes, condition, points, {"cell": cell})


def board_of(n_potentials=4, xs=(0.0, 1.0, 2.0, 3.5), *, rates=(), porous=False):
    """A scoreboard with everything in it, and the arrays of its curves."""
    rng = np.random.default_rng(1)
    results, lines = [], []
    for k, potential in enumerate(POTENTIALS[-n_potentials:]):
        for seed, volume in CRYSTALS.items():
            at = {"potential": potential, "crystal": seed}
            results.append(
                Result(name="crystal_volume_A3", value=volume * (1.0 + 0.01 * (k - 1)), unit="Å3", uncertainty=None,
                       n_samples=1, condition=at, reference_value=volume, reference_source=f"cell of {seed}")
            )  # fmt: skip
        for x, rate in itertools.product(xs, rates or (None,)):
            condition = {"potential": potential, "x": x} | ({"cooling_rate_K_per_ps": rate} if rate else {})
            results += glass_results(k, condition)
            lines += glass_lines(k, condition, rng)
            if porous:
                results.append(result("bulk_modulus", 8.0 + x + k, "GPa", {**condition, "porous": "yes"}))
        for name, value, unit in (
            ("force_mae", 0.14, "eV/Å"),
            ("force_rmse", 0.21, "eV/Å"),
            ("energy_mae_shifted", 7.47, "meV/atom"),
        ):
            results.append(result(name, value, unit, {"potential": potential}, stamp=None))
        parities = (
            ("force", "force component"),
            ("energy", "energy less a shift per element"),
            ("virial", "virial component"),
        )
        for kind, what in parities:
            unit = "eV/Å" if kind == "force" else "eV/atom"
            axes = (f"reference: {kind} ({unit})", f"potential: {what} ({unit})")
            f = rng.normal(0, 1.5, 500)
            points = (f, f + rng.normal(0, 0.2, 500))
            curve, made = line(f"parity_{kind}", potential, axes, {"potential": potential}, points)
            lines.append((curve.model_copy(update={"stamp": None}), made))
    return (
        Scoreboard(
            study="made up",
            series="Na4P2S7-xOx",
            potentials=POTENTIALS[-n_potentials:],
            physics=dict.fromkeys(POTENTIALS[-n_potentials:], "PBE"),
            versions=dict.fromkeys(POTENTIALS[-n_potentials:], "toy 1.0"),
            results=tuple(results),
            curves=tuple(curve for curve, _ in lines),
            problems=("network of x = 1: the ring broke",),
        ),
        {key: array for _, arrays in lines for key, array in arrays.items()},
    )
