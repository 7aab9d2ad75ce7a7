"""Errors of predictions: the same measures wherever they are taken; of whole ensembles see test_train."""

import numpy as np
import pytest
from conftest import rattled_copper

from activelearn import finetune, prediction


def test_mae_rmse_and_percentiles_of_known_differences():
    assert prediction.mae_and_rmse(np.array([[3.0, -4.0], [0.0, 0.0]])) == (1.75, 2.5)
    lengths = np.zeros((101, 3))
    lengths[:, 1] = np.arange(101.0)
    assert prediction.force_percentiles(lengths) == (95.0, 99.0)


@pytest.mark.parametrize("n_frames", [3, finetune.MAX_JUDGED + 30])
def test_fine_tuning_is_judged_by_fifty_frames_at_most(n_frames):
    parts = [rattled_copper(n_frames // 2), rattled_copper(n_frames - n_frames // 2)]
    chosen = finetune.judged(parts)
    assert len(chosen) == min(n_frames, finetune.MAX_JUDGED)
    assert chosen[0].positions.tolist() == parts[0][0].positions.tolist()
    assert chosen[-1].positions.tolist() == parts[1][len(parts[1]) - 1].positions.tolist()


def test_errors_of_no_frames_or_of_no_labels_are_no_numbers(copper):
    for reference in ([], [copper.without_labels()]):
        with pytest.raises(ValueError):  # noqa: PT011 - numpy's, or that of Frames
            prediction.errors_of(reference, reference)
