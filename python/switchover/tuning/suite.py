"""What was recommended, beside what was begun with, as a suite for `switchover compare`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from switchover.tuning.settings import link_word, word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from switchover.tuning.result import Tuning
    from switchover.tuning.space import Plan

REPEATS = 20
"""Moments at which each trace is entered."""


def text(found: Tuning, traces: Mapping[str, str]) -> str:
    """In TOML, for traces by name in files whose paths are told from the suite's folder."""
    plans = {"recommended": found.recommended.plan, "first": found.space.plan}
    codecs = dict.fromkeys(_codec(plan) for plan in plans.values())
    tables: dict[str, dict[str, Any]] = {
        "strategies": {name: word(plan.strategy.spec()) for name, plan in plans.items()},
        "policies": {name: _rules(plan) for name, plan in plans.items()},
        "links": {name: link_word(plan.link) for name, plan in plans.items()},
    }
    lines = [
        "# What `switchover tune` recommends, and what it began with: `switchover compare FILE --html report.html`.",
        'worlds = ["sim"]',
        f"repeats = {REPEATS}",
        f"zero_share = {found.zero_share}",
        f"codecs = {json.dumps(list(codecs))}",
    ]
    for title, table in tables.items():
        lines += ["", f"[{title}]", *(f"{name} = {json.dumps(told)}" for name, told in _different(table).items())]
    for name, path in traces.items():
        lines += ["", f"[guests.{json.dumps(name)}]", f"trace = {json.dumps(path)}"]
    return "\n".join([*lines, ""])


def _codec(plan: Plan) -> str:
    spec = plan.strategy.codec.spec()
    return "+".join(map(word, spec["parts"])) if spec["name"] == "chain" else word(spec)


def _rules(plan: Plan) -> str | list[str]:
    spec = plan.policy.spec()
    return [word(part) for part in spec["policies"]] if spec["name"] == "any-of" else word(spec)


def _different(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without the first plan's, where that is what is recommended."""
    return {name: told for name, told in table.items() if name == "recommended" or told != table["recommended"]}
