"""Findings of DeePMD-kit's own dargs on model blocks, and the backends that support their parts.

Started by path in an interpreter that has deepmd-kit; never imports activelearn, and neither TensorFlow nor torch:
0.4 CPU-s. The file that the first argument names has a JSON list of {"model": ..., "backend": name as in DeePMD-kit's
manual}; that of the second gets a list with a list of findings for each; a finding is {"at": [keys], "what": ..., ...}:

- "unknown" (a key; "near": another, or null), "missing" (a key), "choice" (of a type; "value", "near"), "kind" (of a
  value; "expected": names of types), "value" ("text") and "refused" ("said": text): the first at which dargs stop;
- "backend" ("value": the choice, or null for the key itself; "backends": those that support it), "activation" and
  "precision" ("value"; "expected": names): all, if dargs find nothing.
"""

import json
import re
import sys
from pathlib import Path

_LOCATION = re.compile(r"\[at (?:location `([^`]*)`|root location)\] ")
_NEAR = r"(?:Did you mean: (?P<near>[^?]*)\?)?"
#: Messages of dargs 0.5, and their kinds.
_SAID = (
    ("unknown", re.compile(r"undefined key `(?P<key>[^`]*)` is not allowed in strict mode\.\s*" + _NEAR)),
    ("missing", re.compile(r"key `(?P<key>[^`]*)` is required (?:in arguments|to choose variant) but not found")),
    ("choice", re.compile(r"get invalid choice `(?P<value>[^`]*)` for flag key `(?P<key>[^`]*)`\.\s*" + _NEAR)),
    ("kind", re.compile(r"key `(?P<key>[^`]*)` gets wrong value type, requires <?(?P<expected>[\w\[\]|, ]+)>? but")),
    (
        "value",
        re.compile(r"key `(?P<key>[^`]*)` gets bad value that fails to pass its extra checking\.\s*(?P<text>.*)"),
    ),
)
_BACKENDS = re.compile(r"\(Supported Backend: ([^)]*)\)")


def told(message):
    """Return one finding from a dargs error."""
    place = _LOCATION.match(message)
    at = [key for key in (place.group(1) or "").split("/") if key] if place else []
    text = message[place.end() :] if place else message
    for what, pattern in _SAID:
        if found := pattern.match(text):
            parts = found.groupdict()
            if "expected" in parts:
                parts["expected"] = sorted(parts["expected"].split("|"))
            return {"at": [*at, parts.pop("key")], "what": what, **parts}
    return {"at": at, "what": "refused", "said": " ".join(text.split())}


def backends_of(doc):
    """Return the backends named first in DeePMD-kit's own documentation of something, or None if all support it."""
    found = _BACKENDS.match(doc or "")  # later ones refer to one of its values
    return found.group(1).split(", ") if found else None


def unsupported(arguments, block, backend):
    """Return the findings of a block that dargs accept: what the backend lacks, and names unknown to all."""
    from deepmd.common import VALID_ACTIVATION, VALID_PRECISION

    found = []

    def lacks(doc, at, value):
        backends = backends_of(doc)
        if backends is not None and backend not in backends:
            found.append({"at": at, "what": "backend", "value": value, "backends": backends})

    def key_hook(argument, section, path):
        if argument.name not in section:
            return
        at, value = [*path, argument.name], section[argument.name]
        lacks(argument.doc, at, None)
        if argument.name == "activation_function" and isinstance(value, str):
            name = value.lower()
            if name not in VALID_ACTIVATION and not name.startswith(("silut", "custom_silu")):
                found.append({"at": at, "what": "activation", "value": value, "expected": sorted(VALID_ACTIVATION)})
        if argument.name == "precision" and value not in VALID_PRECISION:
            found.append({"at": at, "what": "precision", "value": value, "expected": sorted(VALID_PRECISION)})

    def variant_hook(variant, section, path):
        tag = section.get(variant.flag_name, variant.default_tag)
        choice = variant.choice_dict.get(tag) or variant.choice_dict.get(variant.choice_alias.get(tag))
        if choice is not None:
            lacks(choice.doc, [*path, variant.flag_name], tag)

    arguments.traverse_value(block, key_hook=key_hook, variant_hook=variant_hook)
    return found


def main():
    """Answer the requests of one file in another."""
    from dargs.dargs import ArgumentError
    from deepmd.utils.argcheck import model_args

    arguments = model_args()
    answers = []
    question, answer = map(Path, sys.argv[1:3])
    for one in json.loads(question.read_text()):
        try:
            value = arguments.normalize_value(one["model"], trim_pattern="_*")
            arguments.check_value(value, strict=True)
            answers.append(unsupported(arguments, one["model"], one["backend"]))
        except ArgumentError as error:
            answers.append([told(str(error))])
    answer.write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
