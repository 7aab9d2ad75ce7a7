"""One strict loader: what it takes, what it refuses, and where it says that something is wrong."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML

from activelearn.config import (
    load_campaign,
    load_glass,
    load_label,
    load_machine,
    load_potential,
    preset_names,
    shipped,
    yaml12,
)
from activelearn.config.messages import validated
from activelearn.config.section import Section
from activelearn.errors import ConfigError
from activelearn.seeds import read_seed


def refusal(read, *arguments):
    with pytest.raises(ConfigError) as caught:
        read(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("1e3", 1000.0), ("1e-3", 0.001), ("-.5E+2", -50.0), ("1.", 1.0), ("+5", 5), ("-0", 0), ("0x1F", 31),
        ("~", None), ("", None), ("Null", None), ("TRUE", True), ("false", False), ("tRUE", "tRUE"),
        ("y", "y"), ("N", "N"), ("2026-11-29", "2026-11-29"), ("3.2.0", "3.2.0"), ("8e", "8e"),
        ("'017'", "017"), ('"no"', "no"), ("! 5", "5"), ("|-\n  017", "017"), (".inf", float("inf")),
        ("[1, [2, {a: 3}], ]", [1, [2, {"a": 3}]]), ("{1: a, b: c, 1.5: d}", {1: "a", "b": "c", 1.5: "d"}),
        ("[&a 5, *a, &b [1, *a], *b]", [5, 5, [1, 5], [1, 5]]),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text, data):
    value = yaml12.load(f"k: {text}\n" if not text.startswith("[") else f"k:\n  {text}\n", "f.yaml")["k"]
    assert value == data
    assert type(value) is type(data)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: written twice, first in line 1 - expected it once"),
        ("a:\n- b: {c: 1,\n     'c': 2}\n", "f.yaml:3: a.0.b.c: written twice, first in line 2"),
        ("1: a\n1.0: b\n", "f.yaml:2: 1.0: written twice"),
        *((f"\na: {text}\n", f"f.yaml:2: a: {text} is a number in one version of YAML, and a text or another number")
          for text in ("017", "0o17", "0b11", "1_000", "1:30", "24:00:00", "-00.5", "1_0.5e3")),
        *((f"a: {text}\n", f"f.yaml:1: a: {text} is a boolean in YAML 1.1 and a text in 1.2")
          for text in ("no", "No", "ON", "off", "yes")),
        *((f"a: {text}\n", "f.yaml:1: a: ") for text in ("1e400", "1e-400", "9" * 20, "9" * 100_000)),
        ("a: .nan\n", "f.yaml:1: a: .nan is not a number"),
        ("no: 1\n", "f.yaml:1: no: no is a boolean"), ("~: 1\n", "f.yaml:1: key '~'"), ("true: 1", "key 'true'"),
        ("<<: {a: 1}\n", "f.yaml:1: <<: YAML 1.2 has no merge keys"), ("? [1]\n: 2\n", "a key that is not a word"),
        ("a: !!float 5\n", "f.yaml:1: a: tag tag:yaml.org,2002:float"), ("a: !!python/none 5\n", "tag"),
        ("a: *x\n", "f.yaml:1: a: *x - expected a complete &x before it"), ("a: &x [*x]\n", "expected a complete &x"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document"), ("%YAML 1.1\n---\na: 1\n", "f.yaml:1: %YAML 1.1"),
        ("a:\n\tb: 1\n", "f.yaml:2: found character that cannot start any token"),
        ("a: 1\nb: [1,\nc: 2\n", "(in what starts in line 2)"), ("a: 1\nb: '\0'\n", "f.yaml:2: control characters"),
        ("a: 1\n# x\x85b: 2\n", "f.yaml:2: U+0085"), ("a: \u2028b: 2\n", "f.yaml:1: U+2028"), ("\ud800", "surrogate"),
        ("[" * 1_000_000, "f.yaml:1: nested too deeply"), ("{a: " * 60, "f.yaml:1: nested too deeply"),
    ],
)  # fmt: skip
def test_what_could_be_read_otherwise_is_refused_with_its_line(text, sentence):
    assert sentence in refusal(yaml12.load, text, "f.yaml")


def test_a_billion_laughs_are_not_laughed():
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 10)]
    begun = time.perf_counter()
    assert "aliases expand to more than" in refusal(yaml12.load, "\n".join(lines), "f.yaml")
    assert time.perf_counter() - begun < 1.0


def test_a_file_that_is_too_long_or_no_text_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    with path.open("wb") as stream:
        stream.truncate(100_000_000)
    assert f"{path}: 100 MB - expected a YAML file of at most 2 MB" in refusal(load_campaign, path)
    path.write_bytes("name: x\nä: 1\n".encode("latin-1"))
    assert f"{path}:2: cannot be read, not UTF-8" in refusal(load_campaign, path)


@pytest.mark.parametrize("text", ["00:20:00", "01:00:00", "1-00:00:00", "2026-11-29"])
def test_times_that_no_version_reads_as_numbers_are_texts(text):
    assert yaml12.load(f"walltime: {text}\n", "f.yaml") == {"walltime": text}


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20)
tricky = st.sampled_from(
    ["1e3", "1e-5", "017", "0o17", "0x1F", "1:30", "00:20:00", "1_000", "no", "On", "y", "~", "", ".inf", "2026-11-29",
     "<<", "=", "1.", "+5", "- a", "a: b", "# c", "a\nb", "\x85", "\u2028", "\t", " x ", "null", "True", "*a", "&a",
     "!t", "%"]
)  # fmt: skip
data = st.recursive(
    scalars | tricky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data)
def test_what_is_written_is_read_alike_by_all(value):
    text = yaml12.dump({"k": value, "again": [value, value]})
    assert "&" not in text or "&" in repr(value)
    assert yaml12.load(text, "f.yaml") == {"k": value, "again": [value, value]}
    assert yaml.safe_load(text) == {"k": value, "again": [value, value]}


@pytest.mark.parametrize("name", preset_names("campaign"))
def test_a_resolved_campaign_is_read_alike_by_all(name):
    campaign = load_campaign(name)
    text = campaign.to_yaml()
    assert yaml12.load(text, name) == yaml12.as_written(text, name) == YAML(typ="safe", pure=True).load(text)
    assert validated(type(campaign), yaml12.load(text, name), name) == campaign


@pytest.mark.parametrize("path", [*shipped("params").rglob("*.yaml"), *shipped("seeds").glob("*.yaml")], ids=str)
def test_what_is_shipped_is_read_as_before(path):
    text = path.read_text(encoding="utf-8")
    assert yaml12.load(text, str(path)) == yaml.load(text, Loader=yaml.CSafeLoader)


class Kinds(Section):
    n: int = 1
    x: float = 1.0
    flag: bool = False
    word: str = ""
    either: float | str = 1.0
    many: tuple[int, ...] = ()
    by: dict[str, float] = Field(default={})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n: true", "n: got true - expected a number"), ("x: false", "x: got false - expected a number"),
        ("x: '300'", "x: got '300', a text - expected a number - remove the quotes"),
        ("n: '5'", "n: got '5', a text - expected a number"), ("by: {a: '1e3'}", "by.a: got '1e3', a text"),
        ("many: [1, true]", "many.1: got true - expected a number"), ("flag: 1", "flag: got 1 - expected true"),
        ("flag: 'no'", "flag: got 'no' - expected true or false"),
        ("flag: y", "flag: got 'y' - expected true or false"),
        ("word: 5", "word: got 5 - expected a valid string - put it in quotes if it is a text"),
        ("word: true", "word: got true - expected a valid string - put it"),
        ("n: 5.5", "n: got 5.5 - expected a valid integer"),
        ("x: 2026-11-29", "x: got '2026-11-29' - expected a valid number"),
        ("n: ~", "n: got null"),
    ],
)  # fmt: skip
def test_no_value_becomes_one_of_another_kind(tmp_path, text, sentence):
    path = tmp_path / "k.yaml"
    path.write_text(f"# a comment\n{text}\n")
    said = refusal(validated, Kinds, yaml12.load(path.read_text(), str(path)), str(path))
    assert said.startswith(f"{path}:2: {sentence}")


def test_what_is_the_same_is_taken():
    given = yaml12.load("{n: 1e3, x: 5, flag: true, word: '5', either: '300', many: [1], by: {a: 1}}", "f.yaml")
    made = validated(Kinds, given, "f.yaml")
    assert (made.n, made.x, made.flag, made.word, made.either) == (1000, 5.0, True, "5", "300")


def edited(tmp_path, name, old, new, section="campaign"):
    text = (shipped("params") / section / f"{name}.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path, path.read_text(encoding="utf-8").splitlines()


def line_of(lines, start):
    return next(i for i, line in enumerate(lines, 1) if line.strip().startswith(start))


def test_a_message_has_the_line_of_its_value_or_key_or_section(tmp_path):
    path, lines = edited(tmp_path, "copper_emt", "type_map:", "typ_map:")
    said = refusal(load_campaign, path)
    assert f"{path}:{line_of(lines, 'typ_map:')}: typ_map: unknown key" in said
    assert f"{path}: type_map: missing" in said
    path.write_text("name: x\ntype_map: [Cu]\nexplore:\n  preset: luo2024\n  stages:\n  - name: s\n    steps: 5\n")
    assert f"{path}:7: explore.stages.0.steps: unknown key" in refusal(load_campaign, path)


def test_the_line_of_a_value_of_a_preset_is_that_in_the_preset(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(f"preset: {tmp_path}/under.yaml\nname: mine\n")
    (tmp_path / "under.yaml").write_text("\npreset: quick\nn_atoms: some\n")
    said = refusal(load_glass, path)
    assert f"{tmp_path / 'under.yaml'}:3: n_atoms: got 'some'" in said


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (load_machine, "name: m\nkeep_scratch: 'yes'\n", "m.yaml:2: keep_scratch: got 'yes' - expected true or false"),
        (load_machine, "name: m\nenvironment:\n  OMP_NUM_THREADS: 1\n", "m.yaml:3: environment.OMP_NUM_THREADS: got 1"),
        (load_machine, "slots: 4\nslots: 8\n", "m.yaml:2: slots: written twice, first in line 1"),
        (load_label, "preset: emt\nreference: {functional: 5}\n", "m.yaml:2: reference.functional: got 5"),
        (load_potential, "name: p\nase:\n  preset: emt\n  functional: 5\n", "m.yaml:4: ase.functional: got 5"),
        (read_seed, "id: m\nn_atoms: '4'\n", "m.yaml: formula: missing"),
        (load_campaign, "", "m.yaml: not a mapping"),
    ],
)
def test_all_our_files_are_read_so(tmp_path, read, text, sentence):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    assert sentence in refusal(read, path)


def test_a_bom_and_windows_line_ends_change_nothing(tmp_path):
    text = (shipped("params") / "campaign" / "copper_emt.yaml").read_text(encoding="utf-8")
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_campaign(path) == load_campaign("copper_emt")
