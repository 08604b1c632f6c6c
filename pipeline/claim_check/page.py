"""The page of a claim check: the verdict, every cell, the controls and the cost.

Claim document and picture -> one HTML file that needs no other file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pipeline.claim_check.comparison import Verdict, points
from pipeline.claim_check.measures import MEASURES
from pipeline.html_page import page_head


def render_page(claim: Mapping[str, Any], picture_svg: str) -> str:
    """Return the HTML text with `picture_svg` in it."""
    return "\n".join(_parts(claim, picture_svg)) + "\n"


def sentence(claim: Mapping[str, Any]) -> str:
    """Return the verdict in the primary cell as text."""
    primary = claim["primary"]
    found = primary["difference"]
    return (
        f"Claim: pretraining on pairs beats SimCLR on {primary['task']} from {primary['inputs']} "
        f"with {100 * primary['fraction']:g} % of the labels ({primary['regime']}). "
        f"Verdict: {primary['verdict']}. "
        f"Difference in {claim['score']}: {points(found['value'])} points, "
        f"{claim['confidence']:.0%} interval {points(found['low'])} to {points(found['high'])}, "
        f"{claim['num_seeds']} seeds, {primary['num_units']} {primary['unit']}s."
        + _floor(primary, claim["score"])
        + _failures(claim)
    )


def _floor(primary: Mapping[str, Any], score: str) -> str:
    """Return why the cell cannot decide, or nothing."""
    if primary["verdict"] != "cannot decide":
        return ""
    return (
        " No arm is certainly better than always the same answer "
        f"({100 * primary['constant']:.1f} % {score}), than its own answers in random order, "
        "and than labels of other patches, so a difference between arms says nothing."
    )


def _failures(claim: Mapping[str, Any]) -> str:
    failed = [control["name"] for control in claim["controls"] if not control["ok"]]
    return (
        f" DO NOT TRUST THE VERDICT: controls that must not learn have learned "
        f"({'; '.join(failed)})."
        if failed
        else ""
    )


def _parts(claim: Mapping[str, Any], picture_svg: str) -> Iterator[str]:
    css = _css(claim["primary"]["verdict"])
    yield page_head(f"{claim['name']}: claim check")
    yield f"<p class='{css}'><strong>{escape(sentence(claim))}</strong></p>"
    yield "<p><small>The config fixed the cell, the arms and the settings before the run. "
    yield "The verdict depends only on the two intervals (over units and seeds, and over seeds "
    yield "alone): supported when both are above 0, not supported when both are below 0, "
    yield "otherwise inconclusive. It cannot decide when no arm is better than always the same "
    yield "answer, its answers in random order, and labels of other patches.</small></p>"
    yield picture_svg[picture_svg.index("<svg") :]
    yield "<h2>All cells</h2>"
    for task, names in claim["unscored_classes"].items():
        if names:
            yield f"<p>Not scored in {escape(task)}, because no test patch holds them: "
            yield f"{escape(', '.join(names))}.</p>"
    yield from _cells(claim)
    yield "<h2>Controls</h2><ul>"
    for control in claim["controls"]:
        mark = "supported'>ok" if control["ok"] else "not-supported'>failed"
        yield f"<li><strong class='{mark}</strong> {escape(control['text'])}</li>"
    yield "</ul><h2>Settings</h2>"
    yield "<p>Each arm's setting was chosen on the eval split with the first seed, by "
    yield f"{escape(claim['score'])} in the primary cell.</p><ul>"
    yield from (f"<li>{escape(line)}</li>" for line in claim["settings"])
    yield "</ul><h2>Cost</h2><ul>"
    yield from (
        f"<li>{escape(arm)}: {seconds / 60:.1f} minutes</li>"
        for arm, seconds in claim["seconds"].items()
    )
    data = escape(", ".join(claim["data"].values()))
    yield f"</ul><p><small>Config {claim['config_sha256']}; data {data}</small></p></html>"


def _cells(claim: Mapping[str, Any]) -> Iterator[str]:
    arms = list(claim["cells"][0]["arms"])
    heads = "".join(f"<th>{escape(arm)}</th>" for arm in arms)
    title = escape(claim["score"])
    yield f"<h3>{title}</h3><table><tr><th>cell</th><th>patches</th><th>constant</th>{heads}"
    yield "<th>multimodal minus simclr</th><th></th><th>interval over seeds</th></tr>"
    primary = claim["config"]["score"]
    for cell in claim["cells"]:
        means = f"<td>{100 * cell['constant']:.1f}</td>" + _means(cell, primary)
        found, verdict = cell["difference"], cell["verdict"]
        interval = f"{points(found['value'])} [{points(found['low'])}, {points(found['high'])}]"
        low, high = found["over_seeds"]
        yield (
            f"<tr><td>{escape(_cell_name(cell))}</td><td>{cell['num_patches']}</td>{means}<td>{interval}</td>"
            f"<td class='{_css(verdict)}'>{verdict}</td>"
            f"<td>[{points(low)}, {points(high)}]</td></tr>"
        )
    yield "</table>"
    for name, measure in MEASURES.items():
        if name != primary:
            yield f"<h3>{escape(measure.title)}</h3><table><tr><th>cell</th>{heads}</tr>"
            for cell in claim["cells"]:
                yield f"<tr><td>{escape(_cell_name(cell))}</td>{_means(cell, name)}</tr>"
            yield "</table>"


def _means(cell: Mapping[str, Any], name: str) -> str:
    return "".join(f"<td>{100 * arm[name]:.1f}</td>" for arm in cell["arms"].values())


def _cell_name(cell: Mapping[str, Any]) -> str:
    share = f"{100 * cell['fraction']:g} %"
    return ", ".join([cell["task"], cell["inputs"], cell["regime"], share])


def _css(verdict: Verdict) -> str:
    return verdict.replace(" ", "-")
