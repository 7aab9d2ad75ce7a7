#!/bin/bash
# DeePMD-kit couples the prefactors of the loss to the learning rate: start_pref_* at its start, limit_pref_* at its end. With
# a warm-up the rate begins at nothing, so the first step is weighted with the limits, and the start is met only when the
# warm-up is over: with the usual 1000 -> 1 of the force, the first forces count a thousandth of what was asked for.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "deepmd-kit[cpu]==3.2.0" numpy==2.4.6
cd "$work"
cat > write.py <<'EOF'
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
for name, warmup in (("plain", 0), ("warmup", 20)):
    setting = {
        "model": {
            "type_map": ["Cu"],
            "descriptor": {"type": "se_e2_a", "sel": [8], "rcut": 4.0, "rcut_smth": 1.0, "neuron": [4], "axis_neuron": 2, "seed": 1},
            "fitting_net": {"neuron": [8], "seed": 1},
        },
        "learning_rate": {"type": "cosine", "start_lr": 1e-3, "stop_lr": 1e-8, "warmup_steps": warmup},
        "loss": {"start_pref_e": 0, "limit_pref_e": 0, "start_pref_f": 1000, "limit_pref_f": 1, "start_pref_v": 0, "limit_pref_v": 0},
        "training": {
            "training_data": {"systems": ["data"], "batch_size": 8}, "numb_steps": 100, "seed": 1, "disp_freq": 1,
            "disp_file": f"{name}.out",
        },
    }
    pathlib.Path(f"{name}.json").write_text(json.dumps(setting))
EOF
cat > read.py <<'EOF'
import numpy as np

for name in ("plain", "warmup"):
    heads = open(f"{name}.out").readline().lstrip("# ").split()
    rows = np.loadtxt(f"{name}.out")
    weight = (rows[:, heads.index("rmse_trn")] / rows[:, heads.index("rmse_f_trn")]) ** 2
    print(f"{name}: prefactor of the force at step 1, 20 and 100: " + ", ".join(f"{weight[rows[:, 0] == k][0]:.0f}" for k in (1, 20, 100)))
EOF
export TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=1
venv/bin/python write.py
for name in plain warmup; do venv/bin/dp train "$name.json" --skip-neighbor-stat > "$name.log" 2>&1; done
echo "deepmd-kit 3.2.0, TensorFlow backend, start_pref_f 1000, limit_pref_f 1"
echo "expected: about 1000 at step 1 with and without a warm-up of 20 steps"
venv/bin/python read.py | tee seen
grep -Eq '^plain: .*: (9[0-9][0-9]|10[0-9][0-9]),' seen && grep -Eq '^warmup: .*: [0-9]{1,2}, (9[0-9][0-9]|10[0-9][0-9]),' seen ||
  { echo "changed: see findings/README.md"; exit 1; }
