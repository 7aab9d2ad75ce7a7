"""Ledgers damaged by name and at random: what is lost is told of, what is read is what was written, nothing crashes.

By default a seeded sample; more of them by ``-m slow`` and ``ACTIVELEARN_FUZZ_LEDGERS=<number>``.
"""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import rattled_copper

from activelearn import exchange
from activelearn.cli.labels import summary
from activelearn.errors import ActiveLearnError, StoreError
from activelearn.frames import FrameLabel, make_origin
from activelearn.store import Ledger, LedgerWriter
from activelearn.store.journal import CLOSED
from activelearn.store.ledger import publish_labels

N_CI = 150
N_SLOW = int(os.environ.get("ACTIVELEARN_FUZZ_LEDGERS", "5000"))
PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
SCAN = exchange.declared("functional=SCAN,includes_dispersion=false,code=VASP-6.4.2")


def labels_of(part, identity):
    return {part.structure_key(k, identity["sha256"]): part.energy[k] for k in range(len(part))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A ledger of four journals: two imported, one closed, one of a writer that was killed; and what is in it."""
    folder = tmp_path_factory.mktemp("whole")
    expected = {}
    for k, (name, identity) in enumerate([("import", PBE), ("import", SCAN), ("me", PBE), ("you", PBE)]):
        part = rattled_copper(3, random_seed=k)
        part = replace(part, origin=make_origin(3, walk=f"w{k}"))
        expected |= labels_of(part, identity)
        if name == "import":
            publish_labels(folder, name, [part], identity)
            continue
        writer = LedgerWriter(folder, name)
        for i in range(3):
            label = FrameLabel(part.energy[i], part.forces[i], part.virial[i], started=1.0, finished=2.0)
            writer.append(part.structure_key(i, identity["sha256"]), label, part[i], identity)
        writer.close()
    (begun,) = folder.glob("you-*.seg")
    begun.write_bytes(begun.read_bytes().removesuffix(CLOSED))
    begun.with_name(f"{begun.name}.idx").unlink()
    return folder, expected


def opened(folder):
    ledger = Ledger(folder, warn=False)
    ledger.refresh()
    return ledger


def content_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def journal(folder, prefix):
    return sorted(folder.glob(f"{prefix}-*.seg"))[0]


def index(folder, prefix):
    return journal(folder, prefix).with_name(f"{journal(folder, prefix).name}.idx")


def reference(folder, identity=PBE):
    return folder / "references" / f"{identity['sha256'][:16]}.json"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def cut(path, n):
    path.write_bytes(path.read_bytes()[:-n])


def swap(one, two):
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def made_folder(path):
    path.unlink()
    path.mkdir()


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


KINDS = {
    "a byte of a header": (lambda f: flip(journal(f, "import"), 60), 1, "damaged"),
    "a byte of a payload": (lambda f: flip(journal(f, "me"), -len(CLOSED) - 20), 1, "damaged"),
    "a byte of an unended journal": (lambda f: flip(journal(f, "you"), -20), 1, "damaged"),
    "a byte in the middle of it": (lambda f: flip(journal(f, "you"), 500), 1, "damaged"),
    "a byte of an index": (lambda f: flip(index(f, "me"), 100), 0, "idx: damaged - expected the index"),
    "an index of another journal": (lambda f: swap(index(f, "me"), index(f, "import")), 0, "3 of the 3 labels that"),
    "an index that is a folder": (lambda f: made_folder(index(f, "me")), 0, "cannot be read"),
    "the end of an imported journal": (lambda f: cut(journal(f, "import"), 60), 1, "1 of the 3 labels that"),
    "the end of a closed journal": (lambda f: cut(journal(f, "me"), 60), 1, "1 of the 3 labels that"),
    "the closing note alone": (lambda f: cut(journal(f, "me"), len(CLOSED)), 0, "0 of the 3 labels that"),
    "two journals swapped": (lambda f: swap(journal(f, "me"), journal(f, "import")), 0, "3 of the 3 labels that"),
    "an empty journal": (lambda f: journal(f, "me").write_bytes(b""), 3, "3 of the 3 labels that"),
    "a journal that is a folder": (lambda f: made_folder(journal(f, "me")), 3, "cannot be read"),
    "a journal that is gone": (lambda f: journal(f, "me").unlink(), 3, "gone - expected the journal"),
    "something else as a journal": (lambda f: (f / "x.seg").write_text("no journal\n"), 0, "x.seg: damaged"),
    "a reference that is gone": (lambda f: reference(f).unlink(), 0, "gone - expected the identity"),
    "another functional": (lambda f: edited(reference(f), functional="LDA"), 0, "does not have the sha256"),
    "a damaged reference": (lambda f: cut(reference(f), 3), 0, "json: damaged"),
    "a reference with another name": (
        lambda f: shutil.copy(reference(f), reference(f, {"sha256": "0" * 64})), 0, "not the one in its name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told_of_and_costs_only_what_it_hit(whole, tmp_path, kind):
    damage, n_lost, sentence = KINDS[kind]
    folder = tmp_path / "ledger"
    shutil.copytree(whole[0], folder)
    damage(folder)
    before = content_of(folder)
    ledger = opened(folder)
    kept = {key for key in whole[1] if ledger.holds(key)}
    said = " ".join(ledger.damage())
    assert len(kept) == len(whole[1]) - n_lost
    assert sentence in said, said
    assert all(line.count(" - ") >= 2 for line in ledger.damage()), said
    assert all(ledger[key].energy == whole[1][key] for key in kept)
    assert content_of(folder) == before, "reading writes nothing"


def test_a_whole_ledger_and_a_cut_off_record_of_a_killed_writer_are_no_damage(whole, tmp_path):
    assert opened(whole[0]).verify() == []
    shutil.copytree(whole[0], tmp_path / "l")
    for n in (1, 30, 300):
        cut(journal(tmp_path / "l", "you"), n)
        ledger = opened(tmp_path / "l")
        assert (ledger.verify(), len(ledger)) == ([], len(whole[1]) - 1)


def test_a_copy_of_a_journal_and_a_label_that_is_not_of_its_structure_are_found_by_verify(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "l")
    shutil.copy(journal(tmp_path / "l", "me"), tmp_path / "l" / "me-copy.seg")
    part = rattled_copper(2, random_seed=9)
    label = FrameLabel(np.nan, part.forces[0], part.virial[0])
    with_wrong_key = LedgerWriter(tmp_path / "l", "wrong")
    with_wrong_key.append("0" * 64, replace(label, energy=1.0), part[0], PBE)
    with_wrong_key.append(part.structure_key(1, PBE["sha256"]), label, part[1], PBE)
    with_wrong_key.close()
    other = LedgerWriter(tmp_path / "l", "zz")
    first = rattled_copper(3, random_seed=2)
    other.append(first.structure_key(0, PBE["sha256"]), replace(label, energy=5.0), first[0], PBE)
    other.close()
    said = "\n".join(opened(tmp_path / "l").verify())
    for sentence in ("a copy of", "keys that do not match", "not finite", "differ from those of the same"):
        assert sentence in said


def test_a_damaged_label_is_computed_again_and_never_sealed_as_refused(whole, tmp_path):
    folder = tmp_path / "l"
    shutil.copytree(whole[0], folder)
    flip(journal(folder, "import"), 4 * 300)
    publish_labels(folder, "import", [rattled_copper(60, random_seed=8)], PBE)  # an index vouches for the middle
    big = max(folder.glob("import-*.seg"), key=lambda path: path.stat().st_size)
    flip(big, big.stat().st_size // 2)
    ledger = opened(folder)
    whole_keys = ledger.keys()
    lost = [key for key in whole_keys if not opened(folder).holds(key)]
    assert len(lost) == 1
    with pytest.raises(StoreError, match=r"a record is damaged.*run the same command again"):
        ledger[lost[0]]
    with pytest.raises(StoreError, match="a record is damaged"):
        ledger.find(lost[0])
    writer = LedgerWriter(folder, "me")
    writer.append(lost[0], FrameLabel(1.0, np.zeros((4, 3)), np.zeros((3, 3))))
    ledger.refresh()
    assert ledger.find(lost[0]).energy == 1.0
    fresh = opened(folder)
    assert fresh.holds(lost[0])
    assert fresh[lost[0]].energy == 1.0, "the damaged one comes first, and does not count"
    writer.close()
    fresh.compact("import")
    assert big.exists(), "what is damaged stays as it is"
    assert opened(folder)[lost[0]].energy == 1.0


# --- at random --------------------------------------------------------------------------------------------------------


def spoilt(folder, rng):
    """Damage one file at random; return what was done, and whether it may pass in silence."""
    path = rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "format.json"])
    content, is_open = path.read_bytes(), path.name.startswith("you-")
    at, n = (int(x) for x in rng.integers(1, len(content), size=2))
    kind = rng.choice(["flip", "drop", "insert", "cut", "zeros", "gone", "empty", "folder", "other", "twice"])
    others = {
        "flip": content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :],
        "drop": content[:at] + content[at + 1 + n % 50 :],
        "insert": content[:at] + rng.bytes(1 + n % 50) + content[at:],
        "cut": content[:at],
        "zeros": content[:at] + bytes(len(content[at : at + n])) + content[at + n :],
        "empty": b"",
        "other": rng.choice([p for p in sorted(folder.glob("*.seg")) if p != path]).read_bytes(),
        "twice": content + content,
    }
    if kind in others:
        path.write_bytes(others[kind])
    elif kind == "gone":
        path.unlink()
    else:
        made_folder(path)
    # Of a journal that nobody ended nothing says how long it was; an index that is gone costs nothing.
    is_end = kind in {"cut", "gone", "empty", "other", "twice"} or (kind == "drop" and 2 * at > len(content))
    may_be_silent = (is_open and is_end) or (kind == "gone" and path.suffix == ".idx")
    return f"{kind} {path.name.split('-')[0]}{path.suffix} at {at}, {n}", may_be_silent


def problem_of(folder, expected):
    """Return what is wrong with how a damaged ledger is read, or None, and whether it is told of."""
    ledger = opened(folder)
    try:
        summary(ledger)
        parts = {identity["sha256"]: ledger.structures(identity["sha256"]) for identity in (PBE, SCAN)}
        kept = {key for key in expected if ledger.holds(key)}
        said = ledger.damage()
        verified = opened(folder).verify()
    except ActiveLearnError as error:
        return None if " - " in str(error) else f"no sentence: {error}", True
    for sha, found in parts.items():
        for part in found:
            for k in range(len(part)):
                if expected.get(part.structure_key(k, sha)) != part.energy[k]:
                    return "another label was read", True
    if any(ledger[key].energy != expected[key] for key in kept):
        return "another label was read", True
    is_less = len(kept) < len(expected) or set(ledger.references()) != {PBE["sha256"], SCAN["sha256"]}
    return "fewer in silence" if is_less and not said else None, bool(said or verified)


def fuzz(whole, folder, n, seed):
    rng, counts, problems = np.random.default_rng(seed), Counter(), []
    pristine = content_of(whole[0])
    for _ in range(n):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole[0], folder)
        what, may_be_silent = spoilt(folder, rng)
        spoilt_content = content_of(folder)
        try:
            problem, is_told = problem_of(folder, whole[1])
        except Exception as error:  # noqa: BLE001 - a crash is what is looked for
            problem, is_told = f"{type(error).__name__}: {error}", False
        if content_of(folder) != spoilt_content:
            problem = "something was written"
        if problem is None and not is_told and spoilt_content != pristine and not may_be_silent:
            problem = "not told of"
        if problem is not None and not (may_be_silent and problem == "fewer in silence"):
            problems.append(f"{what}: {problem}")
        counts["told" if is_told else "may be silent"] += 1
    print(f"\n{n} damaged ledgers: {dict(counts)}, {len(problems)} wrong", *problems, sep="\n")
    return problems


def test_ledgers_damaged_at_random_are_told_of(whole, tmp_path):
    assert fuzz(whole, tmp_path / "l", N_CI, seed=0) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_ledgers_damaged_at_random_are_told_of(whole, tmp_path):
    assert fuzz(whole, tmp_path / "l", N_SLOW, seed=1) == []
