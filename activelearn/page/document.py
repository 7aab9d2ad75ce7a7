"""The page: verdict and what to do next, findings, pictures and tables, in one self-contained file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from activelearn import __version__
from activelearn.errors import typed
from activelearn.page.findings import RULES, PageFinding, bounds_of, findings_of, quantity
from activelearn.page.findings.costs import by_station
from activelearn.page.findings.exploration import last_pass
from activelearn.page.markup import Figure, Html, Numbers, coded, joined, rows_of, table, tag
from activelearn.page.pictures import costs, errors, exploration, glasses, structures, training
from activelearn.page.seen import Seen, SeenCampaign, SeenStudy
from activelearn.units import duration

#: What draws structures, as the npm package 3dmol 2.5.5 ships it; beside it stands its licence (BSD-3-Clause).
VIEWER: Final = "kept/3Dmol-min.js"


def page(seen: Seen, folder: Path, bounds: Mapping[str, float] | None = None, *, refresh_s: float | None = None) -> str:
    """Return the page of a folder.

    Parameters
    ----------
    seen
        Data read from it.
    folder
        The folder, for the commands shown.
    bounds
        Of findings, by key; None: the defaults.
    refresh_s
        Seconds after which it reloads; None: never.
    """
    limits = dict(bounds) if bounds is not None else bounds_of((), RULES)
    found = findings_of(seen, limits)
    sections = list(_sections(seen, found, limits))
    has_structures = any("data-shots=" in content for _, _, content in sections)
    style, script = (_beside(name) for name in ("page.css", "page.js"))
    has_viewer = has_structures and (Path(__file__).parent / VIEWER).is_file()
    scripts = [_beside(VIEWER), script] if has_viewer else [script]
    allowed = " ".join(f"'sha256-{_sha256(one)}'" for one in scripts)
    title = _title(seen)
    policy = (
        f"default-src 'none'; style-src 'sha256-{_sha256(style)}'; script-src {allowed}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", http_equiv="refresh", content=f"{refresh_s:.0f}") if refresh_s is not None else None,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"activelearn {__version__}"),
        tag("title", f"{title} - activelearn"),
        tag("style", style),
    )
    links = [tag("a", name, href=f"#{key}") for key, name, _ in sections]
    body = tag(
        "body",
        tag("a", "to the findings", href="#findings", class_="skip"),
        tag("header", _head(seen, folder, found), class_="top"),
        tag("nav", tag("div", links), aria_label="sections"),
        tag("main", [tag("section", tag("h2", name), content, id=key) for key, name, content in sections]),
        _foot(folder, refresh_s),
        [tag("script", one) for one in scripts],
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _beside(name: str) -> Html:
    """Return one of our files that is embedded in the page: style or script."""
    return Html("\n" + (Path(__file__).parent / name).read_text(encoding="utf-8"))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _title(seen: Seen) -> str:
    if seen.campaign is not None:
        return f"campaign {seen.campaign.campaign.name}"
    return f"study {seen.studies[0].name}"


def _foot(folder: Path, refresh_s: float | None) -> Html:
    now = datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    again = f"activelearn report {typed(folder.name)}"
    followed = f"It reloads every {refresh_s:.0f} s while the run is followed. " if refresh_s else ""
    return tag(
        "footer",
        followed,
        f"Written {now} by activelearn {__version__} from {folder.name}/; update it with ",
        tag("code", again),
    )


# --- the top ----------------------------------------------------------------------------------------------------------


def _head(seen: Seen, folder: Path, found: Sequence[PageFinding]) -> Html:
    verdict = _campaign_verdict(seen.campaign) if seen.campaign is not None else _study_verdict(seen.studies[0])
    n = sum(one.rule.stake == "trust" for one in found)
    doubts = (
        f" {n} of the findings below {'is' if n == 1 else 'are'} about whether the results can be trusted." if n else ""
    )
    about = seen.campaign.campaign.description if seen.campaign is not None else ""
    tiles = _campaign_tiles(seen.campaign) if seen.campaign is not None else {}
    tiles |= _study_tiles(seen.studies)
    return joined(
        tag("h1", _title(seen)),
        tag("p", about, class_="dim") if about else None,
        tag("p", verdict, doubts, class_="verdict"),
        tag("div", tag("b", "Next: "), joined(_next(seen, folder, found)), class_="next"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in tiles.items()], class_="tiles"),
    )


def _campaign_verdict(seen: SeenCampaign) -> Html:
    if seen.end is not None:
        word = "Converged: " if seen.end.converged else "Stopped: "
        parts = seen.end.message.removeprefix("converged: ").split("; ")
        message = "; ".join(part for part in parts if not part.startswith("WARNING"))  # these are findings
        return joined(tag("b", word, class_="good" if seen.end.converged else "bad"), message, ".")
    work = [f"{one.station} {one.done} of {one.total}" for one in seen.at_work if not one.is_sealed]
    at = f" ({', '.join(work)})" if work else ""
    last = next((r.selection.why for r in reversed(seen.records) if r.selection is not None), None)
    said = f" The last pass: {last}." if last else " No exploration pass has finished yet."
    return joined(tag("b", f"Not finished: {seen.next_phase or 'nothing'} comes next{at}."), said)


def _study_verdict(seen: SeenStudy) -> Html:
    made = sum(glass.is_finished for glass in seen.glasses)
    n = len(seen.board.results) if seen.board is not None else 0
    whole = made == len(seen.glasses) and seen.board is not None
    said = f"{made} of {len(seen.glasses)} glasses made, {n} values measured"
    state = "Finished" if whole else "Incomplete"
    return joined(tag("b", f"{state}: ", class_="good" if whole else "bad"), said, ".")


def _next(seen: Seen, folder: Path, found: Sequence[PageFinding]) -> Iterator[Html]:
    """Yield what to do next, the most important first."""
    here = typed(folder.name)
    campaign = seen.campaign
    grave = [one for one in found if one.rule.stake == "trust"]
    if campaign is not None and campaign.end is None:
        again = f"activelearn run {typed(f'{folder.name}/{campaign.file}')} --folder {here}"
        yield joined("continue with: ", tag("code", again), " (or the YAML that it was begun with). ")
    elif campaign is not None and campaign.end is not None and not campaign.end.converged:
        copy = tag("code", f"cp {typed(f'{folder.name}/{campaign.file}')} next.yaml")
        again = tag("code", f"activelearn run next.yaml --folder {here} --accept-changes")
        yield joined(
            "change what the verdict names in the YAML that it was begun with, or in a copy (", copy, "), then "
        )
        yield joined(again, ". ")
    if grave:
        yield joined(tag("a", grave[0].rule.key, href="#findings"), ": ", coded(grave[0].fix), ". ")
    elif campaign is not None and campaign.end is not None and campaign.end.converged:
        yield joined("export the models: ", tag("code", f"activelearn export {here} --to models"), ". ")
    elif campaign is None:
        yield joined("the numbers, with their sources, are in ", tag("code", f"{folder.name}/tables/"), ". ")


def _campaign_tiles(seen: SeenCampaign) -> dict[str, str]:
    tiles = {"iterations closed": str(len(seen.records))}
    if seen.records:
        last = seen.records[-1]
        tiles["training frames"] = f"{last.labelling.dataset_frames}"
        tiles["labels"] = f"{sum(r.labelling.labelled for r in seen.records)}"
        spent = by_station(seen)
        tiles["time at the stations"] = duration(sum(one.wall for one in spent.values()))
        if (held_out := last.ensemble.held_out) is not None:
            tiles["held-out force RMSE"] = f"{held_out.force_rmse:.3f} eV/Å"
            if held_out.force_p99 is not None:
                tiles["held-out P99 of |dF|"] = f"{held_out.force_p99:.3f} eV/Å"
    selection = last_pass(seen)
    if selection is not None:
        tiles["candidates, last pass"] = f"{100 * selection.counts.share('candidate'):.2f} %"
        tiles["failed, last pass"] = f"{100 * selection.counts.share('failed'):.2f} %"
        tiles["trust window"] = f"{selection.f_lo:g} to {selection.f_hi:g} eV/Å"
    return tiles


def _study_tiles(studies: Sequence[SeenStudy]) -> dict[str, str]:
    glasses_ = [glass for study in studies for glass in study.glasses]
    if not glasses_:
        return {}
    made = [glass for glass in glasses_ if glass.is_finished]
    trusted = sum(glass.is_trusted is True for glass in made)
    judged = sum(glass.is_trusted is not None for glass in made)
    found = {"glasses": f"{len(made)} of {len(glasses_)} made"}
    return found | ({"trusted glasses": f"{trusted} of {judged}"} if judged else {})


# --- sections ---------------------------------------------------------------------------------------------------------


def _sections(seen: Seen, found: Sequence[PageFinding], bounds: Mapping[str, float]) -> Iterator[tuple[str, str, Html]]:
    yield "findings", f"Findings ({len(found)})", _findings(seen, found, bounds)
    campaign = seen.campaign
    if campaign is not None and campaign.records:
        yield "exploration", "Exploration", joined(_figures(exploration.figures(campaign)), _matrix(campaign))
        held_out = errors.errors_table(campaign)
        by = table(held_out, "Held-out errors of the last ensemble, means over the members") if held_out else None
        yield "errors", "True errors", joined(_figures(errors.figures(campaign), structures.worst(campaign)), by)
        teacher = tag("ul", [tag("li", line) for line in campaign.teacher]) if campaign.teacher else None
        data = _figures(training.figures(campaign), structures.of_data(campaign))
        yield "training", "Training and data", joined(data, teacher)
        yield "time", "Time", _figures(costs.figures(campaign))
    for k, study in enumerate(seen.studies):
        name = "Glasses and benchmarks" if len(seen.studies) == 1 else f"Study {study.folder.name}"
        yield f"study-{k}", name, _study(study)
    yield "about", "About", _about(seen)


def _figures(*groups: Iterator[Figure]) -> Html:
    return tag("div", [figure.html() for figures in groups for figure in figures], class_="figures")


def _matrix(seen: SeenCampaign) -> Html | None:
    numbers = exploration.counts_table(seen)
    if not numbers.rows:
        return None
    return tag("details", tag("summary", f"counts of every pass and cell ({rows_of(numbers)})"), table(numbers))


def _study(seen: SeenStudy) -> Html:
    parts = [table(glasses.glasses_table(seen), "All glasses, with their trust")] if seen.glasses else []
    results = glasses.results_table(seen)
    if results.rows:
        parts.append(table(results, "All measured values"))
    if seen.board is not None and seen.board.problems:
        parts.append(tag("h3", "Could not be measured"))
        parts.append(tag("ul", [tag("li", problem) for problem in seen.board.problems]))
    return joined(_figures(glasses.figures(seen), structures.of_study(seen)), parts)


def _findings(seen: Seen, found: Sequence[PageFinding], bounds: Mapping[str, float]) -> Html:
    cards = [_card(one) for one in found]
    none = tag("p", f"None of the {len(RULES)} rules has findings.") if not found else None
    unread = tag("ul", [tag("li", line) for line in seen.unread])
    damaged = joined(tag("h3", "Could not be read"), unread) if seen.unread else None
    rows = [
        (rule.key, quantity(bounds[rule.key], rule.unit), rule.stake, rule.said(bounds[rule.key])) for rule in RULES
    ]
    numbers = Numbers("rules", ("key", "bound", "stake", "found when"), rows)
    rules = tag("details", tag("summary", f"all {len(RULES)} rules with their bounds"), table(numbers))
    return joined(none, tag("ul", cards, class_="findings") if cards else None, damaged, rules)


def _card(one: PageFinding) -> Html:
    rule = one.rule
    option = tag("code", tag("span", "--bound", class_="nb"), f" {rule.key}={one.bound:g}")
    bound = joined(rule.said(one.bound), " (", option, ")")
    rows = (
        ("number", quantity(one.number, rule.unit)),
        ("found when", bound),
        ("why", rule.why),
        ("what helps", coded(one.fix)),
    )
    return tag(
        "li",
        tag("span", rule.stake, class_="kind"),
        " ",
        tag("code", rule.key),
        tag("p", one.what, class_="what"),
        tag("dl", [joined(tag("dt", name), tag("dd", text)) for name, text in rows]),
        class_=rule.stake,
    )


def _about(seen: Seen) -> Html:
    parts: list[Html] = []
    if seen.campaign is not None:
        campaign = seen.campaign.campaign
        versions = seen.campaign.records[-1].versions if seen.campaign.records else {}
        what = campaign.label.reference
        rows: list[tuple[str, str]] = [
            ("elements", ", ".join(campaign.type_map)),
            (
                "reference",
                f"{what.name} ({what.functional}{', with dispersion' if what.labels_include_dispersion else ''})",
            ),
            ("sha256 of the campaign", campaign.sha256),
            *((f"version of {name}", version) for name, version in versions.items()),
        ]
        parts.append(table(Numbers("about", ("what", "is"), rows)))
    for study in seen.studies:
        if study.board is not None:
            physics = [
                (name, study.board.physics.get(name, ""), study.board.versions.get(name, ""))
                for name in study.board.potentials
            ]
            parts.append(table(Numbers("potentials", ("potential", "physics", "version"), physics)))
    parts.append(tag("p", "Words: ", _words()))
    return joined(parts)


def _words() -> str:
    return (
        "the force deviation of a frame is the largest, over its atoms, of the standard deviation of the force over "
        "the members; below f_lo a frame is accurate, from f_hi on failed, between them a candidate. Held-out errors "
        "are of trajectories that were never trained on; P99 is the 99th percentile of an atom's error vector."
    )
