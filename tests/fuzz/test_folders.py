"""A finished campaign, damaged in one place at random: it is told, or nothing that is printed or exported changes.

It has a study and its labels in it. What may come of damage: an error of ours in a sentence, which ``status --verify``
has, too; or the very output of the folder that is whole. Never a traceback, never another number in silence, and
nothing else in the folder changes. Run more with ``-m slow`` and
$ACTIVELEARN_FUZZ_FOLDERS.
"""

import hashlib
import io
import json
import os
import shutil
import traceback
from collections import Counter

import numpy as np
import pytest
from campaigns import in_process
from test_study import followed  # noqa: F401 - the fixture

import activelearn
from activelearn.errors import ActiveLearnError

N_CI = 60
N_SLOW = int(os.environ.get("ACTIVELEARN_FUZZ_FOLDERS", "1000"))
#: JSON that is valid, and something else.
OTHER_JSON = (
    *("null", "[]", "{}", "1", '"x"', "true", '{"a": 1}', "[[1]]", "[" * 5000 + "]" * 5000, "1e999", '{"pid": "x"}'),
    *('{"n": []}', '{"session": 1}', '{"format": 1}', '{"seal": 5}', '{"message": null}', "-0.0"),
)
#: Notes that a folder may have beside what is sealed: a fault in them is one of the kinds.
NOTES = {
    "submitted.json": {"launchpad": "db/x", "database": "y", "token": "z", "time": 1.0},
    "stopped.json": {"message": "a node died", "time": 1.0},
    "consent.json": {"n": 2, "text": "yes", "time": 1.0},
    "refused/1.json": {"task": "000-label-x", "time": 1.0},
    "failures/000-label-x.host-1-0123456789ab.json": {"session": "s", "task": "x", "host": "h", "time": 1.0},
    "claims/000-label-x.json": {"host": "elsewhere", "pid": 1, "started": "1", "token": "t", "since": 1.0},
}
#: What every sentence about damage has in it.
_TOLD = " - expected "
#: Ways to look at a campaign that is called c; x is a new folder.
WAYS = (
    *("status c", "status --json c", "status c/study-002", "status --json c/study-002"),
    *("labels list c", "export c --to x"),
)


# --- kinds of damage: (content, rng) -> content -----------------------------------------------------------------------


def flip(content, rng):
    at = rng.integers(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.integers(8))]) + content[at + 1 :]


def drop(content, rng):
    at = rng.integers(len(content))
    return content[:at] + content[at + 1 :]


def truncate(content, rng):
    return content[: rng.integers(len(content))]


def empty(content, rng):
    return b""


def garbage(content, rng):
    return rng.bytes(len(content))


def not_utf8(content, rng):
    at = rng.integers(len(content))
    return content[:at] + b"\xff\xfe" + content[at:]


def digit(content, rng):
    places = [k for k, byte in enumerate(content) if chr(byte).isdigit()]
    at = int(rng.choice(places))
    return content[:at] + str((int(chr(content[at])) + 1 + rng.integers(9)) % 10).encode() + content[at + 1 :]


def line_twice(content, rng):
    lines = content.splitlines(keepends=True)
    at = rng.integers(len(lines))
    return b"".join([*lines[: at + 1], *lines[at:]])


def other_json(content, rng):
    return str(rng.choice(OTHER_JSON)).encode()


def other_value(content, rng):
    """Change one value somewhere in a JSON document, and write it whole."""
    found = json.loads(content)
    place, key = None, None
    while isinstance(found if place is None else place[key], (dict, list)) and (found if place is None else place[key]):
        inner = found if place is None else place[key]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        place, key = inner, keys[rng.integers(len(keys))]
    if place is None:
        return b"7"
    others = (0, -1.5, None, "x", True, [], {}, 10**30)
    place[key] = place[key] + 1 if type(place[key]) in {int, float} else others[rng.integers(len(others))]
    return json.dumps(found, indent=1).encode()


def other_array(content, rng):
    """Change one number of one array of an archive, and write it whole."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    fit = [name for name, array in arrays.items() if array.dtype.kind in "fi" and array.size]
    if fit:
        arrays[name] = (array := arrays[name := fit[rng.integers(len(fit))]]).copy()
        arrays[name].flat[rng.integers(array.size)] += 1
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ANY = (flip, drop, truncate, empty, garbage, not_utf8)
OF_TEXT = (*ANY, digit, line_twice)
KINDS = {
    ".json": (*OF_TEXT, other_json, other_value, other_value),
    ".yaml": OF_TEXT,
    ".npz": (*ANY, other_array, other_array),
}


# --- what is looked at ------------------------------------------------------------------------------------------------


def asked(*arguments):
    """Return (exit code, output) of a command, in this process."""
    done = in_process(*arguments)
    return done.returncode, done.stdout + done.stderr


def tree(folder):
    """Return size and time of every file, and that there is a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else ()
        for path in sorted(folder.rglob("*"))
    }


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def viewed(folder):
    view, of_study = activelearn.open(folder), activelearn.open(folder / "study-002")
    parts = [*view.frames(), *view.held_out(), *(of_study.path(glass).frames for glass in of_study.glasses)]
    numbers = [array.tobytes() for part in parts for array in part.arrays().values()]
    numbers += [line.y.tobytes() for line in of_study.lines()]
    of_campaign = (view, view.errors(), view.counts(), view.seconds(), view.models(), view.ensemble())
    return repr((*of_campaign, of_study.study, of_study.results())), numbers


def look(folder, to):
    """Return what every way to look at a folder says: {way: (is an error of ours, what)}."""
    seen = {}
    for way in WAYS:
        places = {"c": folder, "c/study-002": folder / "study-002", "x": to}
        code, said = asked(*(places.get(word, word) for word in way.split()))
        seen[way] = (code != 0, said)
    if to.exists():
        seen["exported"] = (False, hashlib.sha256(repr(contents(to)).encode()).hexdigest())
        shutil.rmtree(to)
    try:
        seen["open"] = (False, viewed(folder))
    except ActiveLearnError as error:
        seen["open"] = (True, str(error))
    return seen


# --- the fuzzer -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def campaign_folder(followed, tmp_path_factory):  # noqa: F811 - the fixture
    """A finished campaign with every kind of file: products of its last station not packed, notes of all kinds."""
    from activelearn.store.files import publish_json, sealed

    folder = shutil.copytree(followed[0].folder, tmp_path_factory.mktemp("fuzz") / "c")
    for name, note in NOTES.items():
        publish_json(folder / name, sealed(note) if not name.startswith("claims") else note)
    return folder


def damages(folder, rng):
    """Return what to damage and how: (name of the kind, {path: new content, None: away, a folder: ...})."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    path = files[rng.integers(len(files))]
    kind = rng.choice(["content"] * 8 + ["removed", "folder", "swapped", "folder removed"])
    if kind == "folder removed":
        folders = [one for one in sorted(folder.rglob("*")) if one.is_dir() and any(one.rglob("*"))]
        return kind, {folders[rng.integers(len(folders))]: None}
    if kind == "swapped":
        alike = [one for one in files if one.suffix == path.suffix and one != path] or [path]
        other = alike[rng.integers(len(alike))]
        return kind, {path: other.read_bytes(), other: path.read_bytes()}
    if kind == "removed" and str(path.relative_to(folder)) in NOTES:
        kind = "folder"  # without a note nothing was noted: that is no damage
    if kind != "content" or not path.stat().st_size:
        return str(kind), {path: None if kind == "removed" else "a folder"}
    kinds = KINDS.get(path.suffix, ANY)
    how = kinds[rng.integers(len(kinds))]
    return how.__name__, {path: how(path.read_bytes(), rng)}


def take_away(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def damage(changes):
    for path, content in changes.items():
        if content == "a folder" or content is None:
            take_away(path)
        if content == "a folder":
            path.mkdir()
            (path / "x").write_text("mine")
        elif content is not None:
            path.write_bytes(content)


def restore(pristine, folder, changes):
    for path in changes:
        original = pristine / path.relative_to(folder)
        take_away(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if original.is_dir():
            shutil.copytree(original, path)
        else:
            shutil.copy2(original, path)


def judged(before, after, verified):
    """Return told, unharmed, or what changed in silence."""
    said = {
        way: is_error
        or f"{what}".startswith("no labels in")
        or f"{what}".count(_TOLD) > f"{before[way][1]}".count(_TOLD)
        for way, (is_error, what) in after.items()
    }
    is_error, status = after["status --json c"]
    if not is_error and json.JSONDecoder().raw_decode(status)[0]["state"] != "ended":
        return "told"  # it continues, and makes what is gone again
    changed = [way for way, found in after.items() if found != before[way]]
    if silent := [way for way in changed if not said[way]]:
        return f"silent: {', '.join(silent)}"
    if changed and verified == 0:
        return f"silent: status --verify, but not {', '.join(changed)}"
    return "told" if changed or verified else "unharmed"


def fuzz(pristine, tmp_path, n, seed):
    folder, to = shutil.copytree(pristine, tmp_path / "c"), tmp_path / "x"
    before = look(folder, to)
    assert not any(is_error for is_error, _ in before.values()), before
    assert asked("status", "--verify", folder)[0] == 0
    counts, bad = Counter(), []
    for k in range(n):
        kind, changes = damages(folder, np.random.default_rng((seed, k)))
        name = ", ".join(str(path.relative_to(folder)) for path in changes)
        damage(changes)
        was = tree(folder)
        try:
            after = look(folder, to)
            verdict = judged(before, after, asked("status", "--verify", folder)[0])
            if tree(folder) != was:
                verdict = f"silent: changed {set(tree(folder).items()) ^ set(was.items())}"
        except Exception:  # noqa: BLE001 - each is one to be counted
            verdict = "traceback: " + traceback.format_exc()[-600:]
            shutil.rmtree(to, ignore_errors=True)
        restore(pristine, folder, changes)
        counts[verdict.split(":")[0]] += 1
        if ":" in verdict:
            bad.append(f"{k}: {kind} of {name}: {verdict}")
    print(f"\ndamaged folders (seed {seed}): {n} tried, {dict(counts)}")
    assert not bad, "\n".join(bad)


@pytest.mark.engines
def test_a_damaged_folder_is_told_or_harmless(campaign_folder, tmp_path):
    fuzz(campaign_folder, tmp_path, N_CI, seed=15)


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.timeout(7200)
def test_many_damaged_folders(campaign_folder, tmp_path):
    fuzz(campaign_folder, tmp_path, N_SLOW, seed=int(os.environ.get("ACTIVELEARN_FUZZ_SEED", "1")))
