"""Errors of predictions: the same measures wherever they are taken; of whole ensembles see test_train."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import rattled_copper

from activelearn import finetune, prediction
from activelearn.config import Reference

EMT = Reference(calculator="ase.calculators.emt:EMT", functional="none", includes_dispersion=False)


def test_mae_rmse_and_percentiles_of_known_differences():
    assert prediction.mae_and_rmse(np.array([[3.0, -4.0], [0.0, 0.0]])) == (1.75, 2.5)
    lengths = np.zeros((101, 3))
    lengths[:, 1] = np.arange(101.0)
    assert prediction.force_percentiles(lengths) == (95.0, 99.0)


@pytest.mark.parametrize("n_frames", [3, finetune.MAX_JUDGED + 30])
def test_fine_tuning_is_judged_by_the_force_error_of_the_training_station(slot, n_frames):
    """Errors of the labels themselves, which the calculator does not make; of many frames fifty are looked at."""
    exact = rattled_copper(n_frames)
    off = exact.forces + np.array([0.3, -0.1, 0.2])
    parts = [
        replace(exact[: n_frames // 2], forces=off[: n_frames // 2]),
        replace(exact[n_frames // 2 :], forces=off[n_frames // 2 :]),
    ]
    assert finetune._force_rmse(EMT, parts, slot) == pytest.approx(np.sqrt(0.14 / 3.0))
    assert prediction.errors([exact], [replace(exact, forces=off)]).force_rmse == pytest.approx(np.sqrt(0.14 / 3.0))


def test_errors_of_no_frames_or_of_no_labels_are_no_numbers(copper):
    for reference in ([], [copper.without_labels()]):
        with pytest.raises(ValueError):  # noqa: PT011 - numpy's, or that of Frames
            prediction.errors_of(reference, reference)
