"""Agreement of reviewers about captions, beyond chance: Cohen's kappa for two, Fleiss' for more.

Cohen, "A coefficient of agreement for nominal scales", 1960; Fleiss, "Measuring nominal scale agreement among many
raters", 1971, equations 3 to 7. "Can't tell" is an answer like yes and no. The interval is the percentile bootstrap
over the captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.captions import standing_answers
from isc.serve.kinds import Decision, Kind, Question
from isc.serve.schema import provider, suggestion
from isc.serve.statistics import Acceptance

Counts = npt.NDArray[np.int64]
CATEGORIES = (Decision.accept, Decision.reject, Decision.unsure)
DRAWS = 1_000
LEAST = 2  # captions that two people have answered, below which no agreement is told


@dataclass(frozen=True)
class Agreement:
    """The answers about the captions of one version of a provider to one question.

    `yes` is the share of yes among the answers yes and no. `kappa` is of the `captions` that two or more people have
    answered, None if there are too few or all answers are the same; -1 … 1, and 0 is what chance gives.
    """

    provider: str
    version: str
    question: Question
    yes: Acceptance
    unsure: int
    reviewers: int
    captions: int
    statistic: str
    kappa: float | None
    low: float | None
    high: float | None


def cohen(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Return Cohen's kappa of two raters' categories of the same items, None if chance alone gives all agreement."""
    table = np.zeros((len(CATEGORIES), len(CATEGORIES)))
    np.add.at(table, (np.asarray(first, int), np.asarray(second, int)), 1)
    table /= table.sum()
    chance = float(table.sum(axis=1) @ table.sum(axis=0))
    return None if chance >= 1 else (float(np.trace(table)) - chance) / (1 - chance)


def fleiss(counts: Counts) -> float | None:
    """Return Fleiss' kappa of counts [N, C]: how many raters put each item into each category, at least two an item.

    The items may have different numbers of raters: each counts by its own share of agreeing pairs.
    """
    raters = counts.sum(axis=1)
    agreeing = ((counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))).mean()
    shares = counts.sum(axis=0) / raters.sum()
    chance = float((shares**2).sum())
    return None if chance >= 1 else (float(agreeing) - chance) / (1 - chance)


def agreement_of(items: Sequence[Mapping[str, Decision]]) -> tuple[str, float | None, float | None, float | None]:
    """Return (statistic, kappa, low, high) of items that two or more people have answered: {reviewer: answer} each."""
    names = sorted({name for one in items for name in one})
    if len(items) < LEAST:
        return ("cohen" if len(names) <= 2 else "fleiss", None, None, None)
    place = {one: at for at, one in enumerate(CATEGORIES)}
    rng = np.random.default_rng(0)
    if len(names) == 2:
        rated = np.array([[place[one[name]] for name in names] for one in items])
        draws = [cohen(*rated[rng.integers(0, len(items), len(items))].T.tolist()) for _ in range(DRAWS)]
        return ("cohen", cohen(*rated.T.tolist()), *_interval(draws))
    counts = np.array([[sum(a is category for a in one.values()) for category in CATEGORIES] for one in items])
    draws = [fleiss(counts[rng.integers(0, len(items), len(items))]) for _ in range(DRAWS)]
    return ("fleiss", fleiss(counts), *_interval(draws))


def _interval(draws: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return the percentiles 2.5 and 97.5; samples in which all answers are the same have no kappa."""
    usable = [one for one in draws if one is not None]
    if not usable:
        return None, None
    low, high = np.percentile(usable, [2.5, 97.5])
    return float(low), float(high)


def agreements(connection: Connection) -> list[Agreement]:
    """Return the agreement by provider, version and question, of all providers whose captions people have answered."""
    rows = connection.execute(
        sa.select(provider.c.id, provider.c.name, provider.c.version)
        .join(suggestion, suggestion.c.provider_id == provider.c.id)
        .where(suggestion.c.kind == Kind.caption)
        .distinct()
        .order_by(provider.c.name, provider.c.id)
    ).all()
    found = []
    for number, name, version in rows:
        answers = standing_answers(connection, provider_id=number)
        for question in Question:
            items = [said for (_, about), said in answers.items() if about is question and said]
            if items:
                found.append(_agreement(name, version, question, items))
    return found


def _agreement(name: str, version: str, question: Question, items: Sequence[Mapping[str, Decision]]) -> Agreement:
    shared = [one for one in items if len(one) >= 2]
    statistic, kappa, low, high = agreement_of(shared)
    every = [answer for one in items for answer in one.values()]
    yes, no = (sum(one is category for one in every) for category in CATEGORIES[:2])
    return Agreement(
        provider=name,
        version=version,
        question=question,
        yes=Acceptance.of(yes, yes + no),
        unsure=len(every) - yes - no,
        reviewers=len({reviewer for one in items for reviewer in one}),
        captions=len(shared),
        statistic=statistic,
        kappa=kappa,
        low=low,
        high=high,
    )
