#!/bin/bash
# `dp --pt train --restart`: the PyTorch backend of DeePMD-kit repeats the last step of the checkpoint (it stores its number
# counted from 0 and begins again at it), with the first frames of the data and not the next ones. A training that has finished
# makes one more step when it is restarted and writes its last checkpoint again.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "deepmd-kit[torch]==3.2.0" numpy==2.4.6
cd "$work"
cat > write.py <<'END'
import json
import pathlib

import numpy as np

rng = np.random.default_rng(0)
folder = pathlib.Path("data/set.000")
folder.mkdir(parents=True)
coordinates = np.array([[0.0, 0, 0], [2.0, 0, 0], [0, 2.1, 0], [0, 0, 2.2]]) + rng.normal(0, 0.1, (8, 4, 3))
np.savetxt("data/type.raw", np.zeros(4, dtype=int), fmt="%d")
pathlib.Path("data/type_map.raw").write_text("Cu\n")
np.save(folder / "coord.npy", coordinates.reshape(8, 12))
np.save(folder / "box.npy", np.tile((10.0 * np.eye(3)).ravel(), (8, 1)))
np.save(folder / "energy.npy", rng.normal(-4, 0.1, 8))
np.save(folder / "force.npy", rng.normal(0, 1, (8, 12)))
setting = {
    "model": {
        "type_map": ["Cu"],
        "descriptor": {"type": "se_e2_a", "sel": [8], "rcut": 4.0, "rcut_smth": 1.0, "neuron": [4], "axis_neuron": 2, "seed": 1},
        "fitting_net": {"neuron": [8], "seed": 1},
    },
    "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-4, "decay_steps": 5},
    "loss": {"start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1},
    "training": {"training_data": {"systems": ["data"], "batch_size": 1}, "numb_steps": 20, "seed": 1, "disp_freq": 1, "save_freq": 20},
}
pathlib.Path("input.json").write_text(json.dumps(setting))
END
cat > updates.py <<'END'
import torch

found = torch.load("model.ckpt-20.pt", weights_only=True)
print(*{int(state["step"]) for state in found["optimizer"]["state"].values()})
END
export OMP_NUM_THREADS=1 NUM_WORKERS=0
venv/bin/python write.py
venv/bin/dp --pt train input.json --skip-neighbor-stat > train.log 2>&1
before="$(venv/bin/python updates.py)"
venv/bin/dp --pt train input.json --skip-neighbor-stat --restart model.ckpt-20.pt > restart.log 2>&1
after="$(venv/bin/python updates.py)"
echo "deepmd-kit 3.2.0, PyTorch backend: numb_steps 20, finished, then restarted from model.ckpt-20.pt with the same input"
echo "expected: 20 updates of the weights before and after, one row of step 20 in lcurve.out"
echo "seen:     $before updates before, $after after, $(grep -c '^ *20 ' lcurve.out) rows of step 20"
[ "$before" = 20 ] && [ "$after" = 21 ] || { echo "changed: see findings/README.md"; exit 1; }
