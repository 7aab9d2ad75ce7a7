"""YAML files spoilt by key and by hand: each is refused in one sentence a problem, or says what a second reader reads.

By default a seeded sample; all of them by ``-m slow``, and others by ``ACTIVELEARN_FUZZ_YAMLS=<random seed>``.
"""

import collections
import copy
import datetime
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from campaigns import TINY
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from activelearn.check import check, check_study, cost, inherits
from activelearn.config import (
    Campaign,
    Machine,
    Section,
    Study,
    load_benchmark,
    load_campaign,
    load_glass,
    load_label,
    load_machine,
    load_points,
    load_potential,
    load_series,
    load_study,
    shipped,
)
from activelearn.errors import ActiveLearnError
from activelearn.seeds import read_seed

SEED = int(os.environ.get("ACTIVELEARN_FUZZ_YAMLS", "0"))
N_SAMPLE = 400
#: CPU of one YAML and of its check, s.
LONGEST_S = 10.0

STUDY = """
name: study
random_seed: 3
potentials: [emt, {preset: emt, name: other}]
glass: {preset: quick, n_atoms: 60}
benchmark: {preset: quick}
cited:
- {property: density, value: 2.5, unit: g/cm3, source: "me, 2026", series: na2o_sio2, x: 0.2, status: user}
"""
CSV = """property,value,unit,uncertainty,source,series,x,bound,pair,crystal,temperature_K
density,2.5,g/cm3,0.1,"me, 2026",na2o_sio2,0.2,,,,300
# by eye
coordination_number,4,1,,you,na2o_sio2,0,above,Si-O,,
"""
MACHINE = Machine(name="m", min_free_disk_GB=0.0)
#: Sections of a campaign, each as a preset that a small one names by its file.
SECTIONS = ("initial", "explore", "select", "train")
READERS = {
    "campaign": load_campaign,
    "machine": load_machine,
    "glass": load_glass,
    "series": load_series,
    "label": load_label,
    "potential": load_potential,
    "benchmark": load_benchmark,
}
READ_ONLY = {"seed": read_seed, "study": load_study, "cited": load_points}
#: As they are written after a key.
NASTY = (
    "", "~", "true", "no", "on", "''", '"5"', "'300'", "-1", "0", "5", "1e3", "1e300", "1e400", ".nan", "-.inf", "[]",
    "{}", "[[[]]]", "{a: {b: 1}}", "x" * 3000, "2026-11-29", "1:30", "017", "0o17", "0x1F", "1_000", "9" * 400, "*x",
    "!!python/object/apply:os.getcwd []", "&x [*x]", "nan", "1.5 eV", "1,5", "../../etc/passwd", "a\\b", "$HOME", "é",
    "emt", "quick", "/", ".", "[1, a]", "{1: 2}", "- a", "'\\0'", '"\\0"', "!!int '5'", "1e-400", "[0, 0, 0]",
)  # fmt: skip


def documents():
    """Yield (kind, text) of what is shipped, seeds and a study."""
    for kind in READERS:
        yield from (
            (kind, path.read_text(encoding="utf-8")) for path in sorted((shipped("params") / kind).glob("*.yaml"))
        )
    yield from (("seed", (shipped("seeds") / f"{name}.yaml").read_text()) for name in ("Cu_Fm-3m", "Na3PS4_P-421c"))
    yield "study", STUDY
    yield "cited", CSV
    small = yaml.safe_load(TINY.read_text())
    for section in SECTIONS:
        for path in sorted((shipped("params") / section).glob("*.yaml")):
            whole = {**small, section: yaml.safe_load(path.read_text(encoding="utf-8"))}
            yield "campaign", yaml.safe_dump(whole, sort_keys=False)


# --- spoiling ---------------------------------------------------------------------------------------------------------


def places(data, at=()):
    """Yield the location of everything in a mapping or a list, outside in."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


def with_key(data, at, how):
    """Return YAML with one key removed, misspelt or twice, or with a nasty value; None where that is nothing."""
    spoilt = copy.deepcopy(data)
    inner = spoilt
    for key in at[:-1]:
        inner = inner[key]
    written = how
    if how == "removed":
        inner.pop(at[-1])
    elif how in {"misspelt", "twice"}:
        if isinstance(inner, list):
            return None
        inner["@@"], written = inner[at[-1]], f"{at[-1]}x" if how == "misspelt" else str(at[-1])
        if how == "misspelt":
            inner.pop(at[-1])
    else:
        inner[at[-1]] = "@@"
    return yaml.dump(spoilt, Dumper=yaml.CSafeDumper, sort_keys=False).replace("'@@'", written)


def lines_changed(change):
    """Return what changes the i-th line, or what follows it up to the j-th."""

    def changed(text, rng):
        lines = text.split("\n")
        i, j = sorted(rng.choices(range(len(lines)), k=2))
        return "\n".join([*lines[:i], *change(lines[i:j] or lines[i : i + 1], rng), *lines[max(j, i + 1) :]])

    return changed


def mark_changed(marks, n_gone):
    """Return what puts one of `marks` at a place of a text, in place of the next `n_gone`."""

    def changed(text, rng):
        at = rng.randrange(len(text))
        return text[:at] + rng.choice(marks) + text[at + n_gone :]

    return changed


#: What fingers and editors do to a text.
BY_HAND = {
    "cut": lambda text, rng: text[: rng.randrange(len(text))],
    "line cut": lines_changed(lambda block, rng: [block[0][: rng.randrange(len(block[0]) + 1)], *block[1:]]),
    "block twice": lines_changed(lambda block, rng: 2 * block),
    "block gone": lines_changed(lambda block, rng: []),
    "line gone": lines_changed(lambda block, rng: block[1:]),
    "line moved": lines_changed(lambda block, rng: [*block[1:], block[0]]),
    "indented": lines_changed(lambda block, rng: [rng.choice(" \t") + block[0], *block[1:]]),
    "outdented": lines_changed(lambda block, rng: [line.removeprefix(" ") for line in block]),
    "mark gone": mark_changed([""], 1),
    "mark put in": mark_changed(":#-'\"[]{},&*!|>%@`\t\n\r \0\x85\u2028é~?=", 0),
    "digit": mark_changed("0123456789._eE+-", 1),
    "colons gone": lambda text, rng: text.replace(":", rng.choice(["", "=", ";", ":\t"]), rng.randrange(1, 4)),
    "quotes gone": lambda text, rng: text.replace('"', "").replace("'", ""),
    "BOM": lambda text, rng: "\ufeff" * rng.randrange(1, 3) + text,
    "line ends": lambda text, rng: text.replace("\n", rng.choice(["\r\n", "\r", "\n\r", "\n\n"])),
    "two documents": lambda text, rng: text + rng.choice(["---\n", "...\n"]) + text,
    "tabs": lambda text, rng: text.replace("  ", "\t"),
    "nested": lambda text, rng: "[" * rng.randrange(10_000) + text,
}


# --- judging ----------------------------------------------------------------------------------------------------------


def differences(said, made, at=()):
    """Yield where a model is not what a second reader has read."""
    if isinstance(said, Mapping) and isinstance(made, Section | Mapping):
        for key, value in said.items():
            if key != "preset":
                own = made.get(key, math.nan) if isinstance(made, Mapping) else getattr(made, str(key), math.nan)
                yield from differences(value, own, (*at, key))
    elif isinstance(said, list) and isinstance(made, list | tuple):
        if len(said) > len(made) or (len(said) < len(made) and at != ("cited",)):  # a study gets the shipped ones, too
            yield f"{at}: {len(said)} values became {len(made)}"
        for i, (value, own) in enumerate(zip(said, made, strict=False)):
            yield from differences(value, own, (*at, i))
    elif not same(said, made):
        yield f"{at}: {said!r} became {made!r}"


def same(said, made):
    """Whether a value is what was read; a section for the name of a preset and a default for null are not looked at."""
    if isinstance(said, bool) or isinstance(made, bool):
        return said is made or said is None
    if isinstance(said, int | float):
        return isinstance(made, int | float) and said == made
    if isinstance(said, str):
        return isinstance(made, Section | Sequence) and (
            made == said or not isinstance(made, str) or is_a_path(said, made)
        )
    return True


def is_a_path(said, made):
    """Whether a text became absolute, a word of it or all of it."""
    return "/" in made and made.endswith(Path(said.split()[-1]).name)


def second_reading(text):
    reader = YAML(typ="safe", pure=True)
    return dated(reader.load(text))


def dated(data):
    """Return the same with dates as texts again, which is what they are in the core schema."""
    if isinstance(data, dict):
        return {key: dated(value) for key, value in data.items()}
    if isinstance(data, list):
        return [dated(value) for value in data]
    return data.isoformat() if isinstance(data, datetime.date) else data


def checked(made, folder):
    """Return what check says of a campaign, of a study, or of a tiny campaign on a machine: problems and doubts."""
    small = load_campaign(TINY)
    campaign, machine = (small, made) if isinstance(made, Machine) else (made, MACHINE)
    if isinstance(made, Study):
        found = check_study(made, machine, here=False)
    elif isinstance(campaign, Campaign):
        found = check(campaign, machine, folder / "c", here=False)
        if not found.problems:
            cost.lines(cost.estimate(campaign, machine, None, inherits(campaign, folder / "c")[2]))
    else:
        return []
    return [*found.problems, *found.unusual]


def judged(kind, text, folder):
    """Return what became of a YAML: refused, read, or what is wrong with that."""
    path = folder / "Cu_Fm-3m.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    begun = time.process_time()
    try:
        made = {**READERS, **READ_ONLY}[kind](path)
        said = checked(made, folder)
        if odd := [line for line in said if " - " not in line or len(line) > 10_000]:
            return f"wrong: {odd}"
    except ActiveLearnError as error:
        return "refused" if len(str(error)) < 100_000 else f"wrong: a message of {len(str(error))} characters"
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return f"wrong: {type(error).__name__}: {str(error)[:300]}"
    finally:
        took_s = time.process_time() - begun
        assert took_s < LONGEST_S, (kind, text)
    if kind == "cited":
        return "read"
    try:
        wrong = list(differences(second_reading(path.read_text(encoding="utf-8-sig")), made))
    except YAMLError:  # a tab after a colon, which YAML allows
        return "read, but refused by the second reader"
    return f"wrong: {wrong}" if wrong else "read"


def run(cases, folder):
    """Judge (kind, what was done, text) each, print the counts, and want none wrong."""
    counts, wrong = collections.Counter(), []
    for kind, what, text in cases:
        outcome = judged(kind, text, folder)
        counts[outcome.partition(":")[0]] += 1
        if outcome.startswith("wrong"):
            (folder / f"wrong-{len(wrong)}.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
            wrong.append(f"{len(wrong)} {kind}: {what[:60]}: {outcome}")
    print(f"\n{sum(counts.values())} YAMLs: {dict(counts)}")
    assert not wrong, "\n".join(wrong[:60])


def by_key(n_nasty, rng):
    """Yield each key of each document spoilt in each way, and by `n_nasty` of the nasty values."""
    for kind, text in documents():
        data = yaml.load(text, Loader=yaml.CSafeLoader) if kind != "cited" else None
        for at in places(data):
            for how in ("removed", "misspelt", "twice", *rng.sample(NASTY, n_nasty)):
                yield kind, data, at, how


def spoilt_by_key(cases):
    for kind, data, at, how in cases:
        if (text := with_key(data, at, how)) is not None:
            yield kind, f"{'.'.join(map(str, at))} {how}", text


def spoilt_by_hand(n_each):
    rng = random.Random(SEED)
    for kind, whole in documents():
        for _ in range(n_each):
            name = rng.choice(list(BY_HAND))
            yield kind, name, BY_HAND[name](whole, rng)


def test_what_is_shipped_is_what_a_second_reader_reads(tmp_path):
    for kind, text in documents():
        assert kind == "seed" or judged(kind, text, tmp_path) == "read"


def test_a_spoilt_yaml_is_refused_or_read_as_others_read_it(tmp_path):
    rng = random.Random(SEED)
    some = rng.sample(list(by_key(len(NASTY), rng)), N_SAMPLE)
    run([*spoilt_by_key(some), *spoilt_by_hand(N_SAMPLE // 40)], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_key_spoilt_in_every_way(tmp_path):
    run(spoilt_by_key(by_key(6, random.Random(SEED))), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_texts_spoilt_by_hand(tmp_path):
    run(spoilt_by_hand(60), tmp_path)
