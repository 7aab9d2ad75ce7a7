"""``check`` of a thousand systems, 1.3 million atoms in all. Run with ``pytest -m performance -s``."""

import time
from itertools import product

import pytest
from campaigns import cli, tiny

pytestmark = pytest.mark.performance


def test_a_thousand_systems_are_checked_in_twenty_seconds(tmp_path):
    factors = sorted(product(range(3, 14), repeat=3), key=lambda f: (abs(4 * f[0] * f[1] * f[2] - 1000), f))[:1000]
    systems = [{"seed": "Cu_Fm-3m", "supercell": list(f)} for f in factors]
    stages = [{"name": "cold", "ensemble": "nvt", "temperatures_K": [100], "n_walks": 3000, "n_steps": 100, "every": 5}]
    path = tiny(tmp_path / "many.yaml", initial__systems=systems, initial__copies=1, explore__stages=stages)
    begin = time.perf_counter()
    done = cli("check", str(path), "--folder", str(tmp_path / "run"), cwd=tmp_path)
    seconds = time.perf_counter() - begin
    n_atoms = sum(4 * a * b * c for a, b, c in factors)
    print(f"\ncheck of 1000 systems, {n_atoms} atoms: {seconds:.1f} s")
    assert (done.returncode, done.stdout[:8]) == (0, "systems:"), done.stderr
    assert n_atoms > 1_000_000
    assert seconds < 20.0
