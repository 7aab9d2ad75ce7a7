"""Tables of every key of a YAML, from the JSON schema that validates it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]
_BOUNDS: Final = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
#: Longer defaults are those of a section, and stand in its own table.
_LONGEST_DEFAULT: Final = 40


def tables_of(schema: Schema, root: str) -> str:
    """Return Markdown: one heading and one table for each section, where it is met first."""
    return "\n".join(_Tables(schema, root).lines)


def _values_of(mapping: Schema) -> Any:  # noqa: ANN401 - a schema, a bool or None
    """Return the schema of the values of a mapping, if it has one."""
    return mapping.get("additionalProperties") or next(iter(mapping.get("patternProperties", {}).values()), None)


class _Tables:
    def __init__(self, schema: Schema, root: str) -> None:
        self._root = schema
        self._sections: Schema = schema.get("$defs", {})
        self._places: dict[str, str] = {}
        self._inline: set[str] = set()
        self.lines: list[str] = []
        self._add(root, schema)

    def _add(self, place: str, section: Schema) -> None:
        keys = section.get("properties", {})
        kind = f", {section['title']}" if section["title"] in self._inline else ""
        self.lines += [f"## `{place}`{kind}", "", " ".join(section.get("description", "").split()), ""]
        self.lines += ["| key | value | default | is |", "|---|---|---|---|"]
        below: list[tuple[str, Schema]] = []
        for name, key in keys.items():
            where = name if section is self._root else f"{place}.{name}"
            below += self._met(where, key)
            default = self._default(key, required=name in section.get("required", ()))
            cells = (f"`{name}`", self._value(key), default, " ".join(key.get("description", "").split()))
            self.lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        self.lines.append("")
        for where, one in below:
            self._add(where, one)

    def _met(self, place: str, key: Schema) -> Iterator[tuple[str, Schema]]:
        """Yield the sections that a key holds and that were not met before."""
        if name := key.get("$ref", "").rpartition("/")[2]:
            section = self._sections[name]
            if "properties" not in section:
                yield from self._met(place, section)
            elif name not in self._places:
                self._places[name] = place
                yield place, section
        elif "properties" in key:
            self._inline.add(key["title"])
            yield place, key
        for part in (*key.get("anyOf", ()), key.get("items"), _values_of(key)):
            if isinstance(part, dict):
                yield from self._met(place, part)

    def _value(self, key: Schema) -> str:
        if name := key.get("$ref", "").rpartition("/")[2]:
            section = self._sections[name]
            return f"section `{self._places[name]}`" if "properties" in section else self._value(section)
        if "properties" in key:
            return f"section of {key['title']}"
        if "enum" in key or "const" in key:
            return ", ".join(f"`{one}`" for one in key.get("enum", [key.get("const")]))
        if "anyOf" in key:
            return " or ".join(dict.fromkeys(self._value(part) for part in key["anyOf"]))
        kind = key.get("type", "anything")
        if kind == "array":
            parts = key.get("prefixItems") or [key.get("items", {})]
            return "[" + ", ".join(dict.fromkeys(self._value(part) for part in parts)) + " ...]"
        if kind == "object":
            part = _values_of(key)
            return f"mapping to {self._value(part)}" if isinstance(part, dict) else "mapping"
        bounds = " ".join(f"{sign} {key[bound]:g}" for bound, sign in _BOUNDS.items() if bound in key)
        return f"{kind} {bounds}".strip()

    def _default(self, key: Schema, *, required: bool) -> str:
        if required or "default" not in key:
            return "*required*" if required else ""
        said = json.dumps(key["default"], ensure_ascii=False)
        return f"`{said}`" if len(said) <= _LONGEST_DEFAULT else "its own"
