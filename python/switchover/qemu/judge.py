"""A policy in one run: it is shown rounds and samples, and keeps its own history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from switchover import _native, policies
from switchover.decision import Decision
from switchover.errors import PolicyError

if TYPE_CHECKING:
    from switchover.round import Round
    from switchover.sample import Sample


class Judge:
    """One policy, at its beginning."""

    def __init__(self, policy: policies.Judge) -> None:
        self.label = policies.label(policy)
        self._history: list[Round] = []
        self._policy = policy
        self._native = _native.Policy(json.dumps(policy.spec())) if isinstance(policy, policies.Policy) else None
        parts = policy.policies if isinstance(policy, policies.First) else ()
        self._parts = [Judge(part) for part in parts]

    def decide(self, round: Round) -> Decision:
        """What to do after `round`."""
        if self._parts:
            decisions = [part.decide(round) for part in self._parts]
            return next((decision for decision in decisions if decision.fires), Decision.proceed())
        if self._native is not None:
            earlier = [self._history[-1].to_json()] if self._history else []
            decision = _read(self._native.decide(round.to_json(), earlier))
        else:
            decision = self._own(self._policy, round, list(self._history))
        self._history.append(round)
        return decision

    def sample(self, sample: Sample) -> Decision | None:
        """What to do in the middle of a round, if anything."""
        if self._parts:
            decisions = [part.sample(sample) for part in self._parts]
            return next((decision for decision in decisions if decision is not None and decision.fires), None)
        if self._native is not None:
            text = self._native.sample(sample.to_json())
            return None if text is None else _read(text)
        ask = getattr(self._policy, "sample", None)
        return None if ask is None else self._own(ask, sample)

    def _own(self, ask: Any, *shown: Any) -> Any:
        try:
            decision = ask(*shown)
        except Exception as error:
            raise PolicyError(f"the policy {self.label} raised {type(error).__name__}: {error}") from error
        if isinstance(decision, Decision) or (decision is None and ask is not self._policy):
            return decision
        raise PolicyError(f"the policy {self.label} returned {decision!r}, which is no Decision")


def _read(text: str) -> Decision:
    return Decision.from_dict(json.loads(text))
