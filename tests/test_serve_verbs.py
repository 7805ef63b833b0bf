"""From verdicts to models: what a service exports is taken by `isc calibrate`, whose file the service takes again.

`isc fusion fit` takes it too, and says how many copies it lacks: it needs far more than the sample photos give.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from isc.cli.main import main
from isc.serve import schema
from isc.serve.kinds import Decision, Kind, SuggestionState
from isc.serve.votes import Reviewer, cast
from isc.serve.worker import Worker
from tests.serving import PHOTOS, Service, edited, settings_in

pytestmark = pytest.mark.slow
COPIES = 22  # `isc calibrate` needs 20


def _suggest_others(service, pairs):
    """Suggest pairs of pictures that are no copies, at low scores: the provider itself says nothing about them."""
    asked = service.rows(sa.select(schema.suggestion).where(schema.suggestion.c.kind == Kind.copy))[0]
    for at, (one, other) in enumerate(pairs):
        score = 0.05 + 0.4 * at / len(pairs)
        match = {"request_id": asked.request_id, "image_id": one, "other_id": other, "distance": 1.2 - score / 2,
                 "probability": score, "verdict": "perhaps", "mirrored": False,
                 "evidence": {"fused": score}}  # fmt: skip
        row = {"image_id": one, "request_id": asked.request_id, "provider_id": asked.provider_id, "kind": Kind.copy,
               "state": SuggestionState.unreviewed, "score": score, "priority": 0.5, "shuffle": 0.5,
               "created": time.time()}  # fmt: skip
        with service.database.writing() as connection:
            number = connection.execute(sa.insert(schema.copy_match).values(match)).inserted_primary_key[0]
            connection.execute(sa.insert(schema.suggestion).values(result_id=number, **row))


def test_verdicts_are_taken_by_the_verbs_and_the_service_takes_the_calibration(tmp_path, capsys):
    service = Service.made(settings_in(tmp_path))
    known = service.take(*PHOTOS[:COPIES])
    service.worker.drain()
    copies = service.take(*(edited(one, crop=0.05) for one in PHOTOS[:COPIES]))
    service.worker.drain()
    _suggest_others(service, [(one, known[at - 1]) for at, one in enumerate(copies)])
    match = schema.copy_match
    rows = service.rows(
        sa.select(schema.suggestion.c.id, match.c.image_id, match.c.other_id)
        .join(match, match.c.id == schema.suggestion.c.result_id)
        .join(schema.provider, schema.provider.c.id == schema.suggestion.c.provider_id)
        .where(schema.suggestion.c.kind == Kind.copy, schema.provider.c.name == "copy")
    )
    true = set(zip(copies, known, strict=True))
    decisions = {row.id: Decision.accept if (row.image_id, row.other_id) in true else Decision.reject for row in rows}
    assert min(list(decisions.values()).count(one) for one in (Decision.accept, Decision.reject)) >= COPIES - 2
    cast(service.database, service.settings, Reviewer("ann"), decisions)
    output = tmp_path / "out"
    main(["feedback", "export", "--data", str(service.settings.data), str(output)])

    made = tmp_path / "mine.json"
    main(["calibrate", "--run", str(output), "--ground-truth", str(output / "ground_truth.csv"), "--output", str(made)])
    other = Worker(replace(service.settings, calibration=made))
    assert other._providers["copy"].version.startswith(service.worker._providers["copy"].version + "-")
    other.database.close()

    fusion = tmp_path / "fusion.json"
    photos, truth = str(output / "photos"), str(output / "ground_truth.csv")
    with pytest.raises(SystemExit) as ended:
        main(["fusion", "fit", "--queries", str(output / "queries.h5"), "--references", str(output / "references.h5"),
              "--query-images", photos, "--reference-images", photos, "--ground-truth", truth, "--candidates", "5",
              "--output", str(fusion)])  # fmt: skip
    said = capsys.readouterr()
    assert ended.value.code == 2
    every = f"{COPIES // 2} copies and {COPIES // 2 * 4} other pairs; expected at least 20"
    assert every in said.err  # all files were taken
    assert "left out" not in said.out
    assert not fusion.exists()
    service.close()
