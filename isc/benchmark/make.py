"""The making of a benchmark from photos: screening, near duplicates, the plan, and the pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from isc.benchmark.plan import HardNegatives, Nearest, Plan, check_hard_negatives, planned
from isc.benchmark.presets import Recipe
from isc.benchmark.render import Run, make_pictures
from isc.benchmark.screening import Screened, screened
from isc.benchmark.sizes import Sizes, Wanted
from isc.benchmark.work_folder import MADE, RECORD, finish, is_made, remove_leftover, workshop
from isc.config.benchmark import BenchmarkConfig
from isc.config.choices import Library, NearDuplicates
from isc.data.csv_files import write_csv, write_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.files import write_json, write_text
from isc.data.json_files import Fields, read_json
from isc.errors import InputError
from isc.photos.folders import list_images
from isc.photos.sources import list_photos
from isc.runtime.cpus import cores

log = logging.getLogger(__name__)

VERSION = 2  # to be raised whenever the same seed and photos give other files
MIN_PHOTO_SIDE = {Library.own: 32, Library.augly: 96}  # pixels; AugLy's chains need larger photos
SHOWN = 10  # near-duplicate pairs shown in the log


@dataclass(frozen=True)
class _Job:
    """The requested benchmark."""

    images: Path
    output: Path
    sizes: Sizes | Wanted
    seed: int
    max_side: int
    recipe: Recipe
    near_duplicates: NearDuplicates | None
    hard_negatives: int
    workers: int

    def made_with(self, photos_sha256: str) -> dict[str, Any]:
        return {
            "version": VERSION,
            "sizes": asdict(self.sizes),
            "seed": self.seed,
            "max_side": self.max_side,
            "preset": self.recipe.preset,
            "strength": self.recipe.strength,
            "edits": self.recipe.library.value,
            "near_duplicates": None if self.near_duplicates is None else self.near_duplicates.value,
            "hard_negatives": self.hard_negatives,
            "min_photo_side": MIN_PHOTO_SIDE[self.recipe.library],
            "photos_sha256": photos_sha256,
        }

    def name_of(self, photo: Path) -> str:
        return photo.relative_to(self.images).as_posix()


@dataclass(frozen=True)
class _Pool:
    """The usable photos, in the order of their ids.

    `groups` is the group of near duplicates by photo; `nearest` finds nearest photos by descriptor, None if no
    descriptors were made; `told` holds the counts for benchmark.json.
    """

    photos: tuple[Path, ...]
    groups: Mapping[Path, int]
    nearest: Nearest | None
    told: Mapping[str, Any]


def benchmark(config: BenchmarkConfig) -> Path:
    """Write the benchmark of this configuration, and return its folder."""
    wanted = Wanted(
        references=config.references,
        copied=config.copied,
        distractors=config.distractors,
        training=config.training,
        queries=config.queries,
        distractor_share=config.distractor_share,
    )
    output = Path(config.output)
    made = make_benchmark(
        Path(config.images),
        output,
        sizes=wanted,
        seed=config.seed,
        max_side=config.max_side,
        workers=config.workers,
        recipe=Recipe(config.preset, config.strength, config.edits),
        near_duplicates=config.near_duplicates,
        hard_negatives=config.hard_negatives,
    )
    log.info(
        "%s: %d references, %d training photos, %d copies and %d distractors",
        *(output, made.references, made.training, made.positive_queries, made.distractor_queries),
    )
    return output


def make_benchmark(
    images: Path,
    output: Path,
    *,
    sizes: Sizes | Wanted,
    seed: int,
    max_side: int = 320,
    workers: int | None = None,
    recipe: Recipe | None = None,
    near_duplicates: NearDuplicates | None = None,
    hard_negatives: int = 0,
) -> Sizes:
    """Write the benchmark to the folder `output`, with photos of at most `max_side` pixels, and return its sizes.

    The same photos and options give the same bytes for any number of `workers` (processes; None: one per core). The
    output appears only when it is complete; an interrupted run resumes, and an existing benchmark of the same
    configuration is left unchanged. `near_duplicates` says how to treat near-duplicate photos; None skips their search.
    `hard_negatives` of the distractor queries are made from photos similar to a reference. Unreadable and too small
    photos are left out and listed. Raises InputError if the output has another configuration, or if there are too few
    photos.
    """
    if seed < 0 or max_side < 64:
        raise InputError(f"seed={seed}, max_side={max_side}; expected a seed ≥ 0 and a side of at least 64 pixels")
    recipe = recipe or Recipe()
    _require(recipe.library)
    if isinstance(sizes, Wanted):
        sizes = replace(sizes, cells=len(recipe.cells) or None) if recipe.preset == "each" else sizes
    job = _Job(images, output, sizes, seed, max_side, recipe, near_duplicates, hard_negatives, workers or cores())
    return _made(job)


def _sizes_of(record: Path) -> Sizes:
    """Read the sizes of a benchmark that is there. Raises InputError if its record lacks them."""
    expected = "the record of a benchmark: remove its folder"
    try:
        sizes = Fields(read_json(record, expected=expected)).fields(MADE).fields("sizes")
        return Sizes(**{name: sizes.count(name) for name in (one.name for one in fields(Sizes))})
    except ValueError as error:
        raise InputError(f"{record}: {error}; expected {expected}") from error


def _made(job: _Job) -> Sizes:
    photos, output = list_images(job.images), job.output
    made_with = job.made_with(list_photos(job.images).sha256())
    if is_made(output, made_with):
        remove_leftover(output)
        log.info("%s is there already, made the same way", output)
        return _sizes_of(output / RECORD)
    check_hard_negatives(job.hard_negatives, _sizes(job, len(photos)))  # fail before any work if all photos are too few
    with workshop(output, made_with) as part:
        pool = _pool(job, photos, part)
        found = _sizes(job, len(pool.photos))
        plan = _plan(job, pool, found)
        _write(job, plan, part, made_with | {MADE: _told(pool, plan, found, job)})
        finish(part, output)
    _list_beside(output).unlink(missing_ok=True)
    return found


def _require(library: Library) -> None:
    if library is Library.augly:
        from isc.benchmark.edits.augly_draws import require_augly

        require_augly()


def _sizes(job: _Job, photos: int) -> Sizes:
    sizes = job.sizes.sizes(photos) if isinstance(job.sizes, Wanted) else job.sizes
    if photos < sizes.photos:
        raise InputError(
            f"images={job.images}: holds {photos:,} photos that can be used; expected at least {sizes.photos:,} = "
            f"{sizes.references:,} references + {sizes.distractors:,} distractors + {sizes.training:,} training"
        )
    return sizes


# --- the photos ------------------------------------------------------------------------------------------------------


def _pool(job: _Job, photos: Mapping[str, Path], part: Path) -> _Pool:
    folder = part / "benchmark"
    folder.mkdir(exist_ok=True)
    least = MIN_PHOTO_SIDE[job.recipe.library]
    seen = screened(photos, least=least, workers=job.workers, kept=part / "photos.csv")
    _list_unreadable(folder / "unreadable.csv", photos, seen)
    usable = {name: photos[name] for name in seen.sizes}
    told: dict[str, Any] = {"photos": len(photos), "unreadable": len(seen.problems)}
    if job.near_duplicates is None and not job.hard_negatives:
        return _Pool(tuple(usable.values()), {}, None, told)
    _sizes(job, len(usable))
    from isc.benchmark.near_duplicates import describe

    described = describe(usable, part)
    nearest = _nearest({path: row for row, path in enumerate(usable.values())}, described)
    if job.near_duplicates is None:
        return _Pool(tuple(usable.values()), {}, nearest, told)
    kept, groups, counts = _settled(job, usable, seen, described, part)
    return _Pool(tuple(kept.values()), groups, nearest, told | {"near_duplicates": counts})


def _list_unreadable(listing: Path, photos: Mapping[str, Path], seen: Screened) -> None:
    if seen.problems:
        write_csv(listing, ("id", "file", "reason"), ((name, photos[name], why) for name, why in seen.problems.items()))
        log.warning(
            "%d of %d photos cannot be used and are left out; unreadable.csv says why", len(seen.problems), len(photos)
        )


def _nearest(rows: Mapping[Path, int], described: Descriptors) -> Nearest:
    from isc.search.exact import nearest

    def found(photos: Sequence[Path], among: Sequence[Path]) -> tuple[Sequence[int], Sequence[float]]:
        ours, theirs = ([rows[path] for path in paths] for paths in (photos, among))
        row, distance = nearest(described.vectors[ours], described.vectors[theirs], k=1)
        return row[:, 0].tolist(), distance[:, 0].tolist()

    return found


def _settled(
    job: _Job, photos: Mapping[str, Path], seen: Screened, described: Descriptors, part: Path
) -> tuple[dict[str, Path], dict[Path, int], dict[str, int]]:
    """Find and list the near-duplicate photos, and treat them as configured.

    Returns the photos that stay, the groups that stay among them, and the counts. Raises InputError if near duplicates
    are refused.
    """
    from isc.benchmark.near_duplicates import groups_of, left_out, near_duplicates, write_near_duplicates

    names = {name: job.name_of(path) for name, path in photos.items()}
    kept = part / "near_duplicates.csv"
    pairs = near_duplicates(photos, described, names=names, workers=job.workers, kept=kept)
    write_near_duplicates(part / "benchmark" / kept.name, pairs)
    groups = groups_of(pairs)
    counts = {"pairs": len(pairs), "groups": len(set(groups.values())), "photos": len(groups), "left_out": 0}
    if not pairs:
        log.info("no two of %d photos show the same", len(photos))
        return dict(photos), {}, counts
    log.info("%d pairs of photos show the same, in %d groups:", counts["pairs"], counts["groups"])
    for pair in pairs[:SHOWN]:
        log.info("  %s", pair.in_words())
    if job.near_duplicates is NearDuplicates.refuse:
        write_near_duplicates(_list_beside(job.output), pairs)
        raise InputError(
            f"images={job.images}: {counts['pairs']} pairs of photos show the same, such as {pairs[0].file_a} and "
            f"{pairs[0].file_b}; {_list_beside(job.output)} lists them: remove them, or give near_duplicates=leave_out"
        )
    if job.near_duplicates is NearDuplicates.keep:
        log.warning(
            "near_duplicates=keep: %d photos that show the same as others stay; where two of them are references, a "
            "right answer may be counted as wrong (near_duplicates.csv lists them)",
            len(groups),
        )
        return dict(photos), {job.images / name: group for name, group in groups.items()}, counts
    gone = left_out(pairs, {names[name]: size for name, size in seen.sizes.items()})
    log.info("left out %d photos, all but the largest of each group; near_duplicates.csv lists the pairs", len(gone))
    stay = {name: path for name, path in photos.items() if names[name] not in gone}
    return stay, {}, counts | {"left_out": len(gone)}


def _list_beside(output: Path) -> Path:
    """Return the path of the list of pairs for a run that refuses near duplicates."""
    return output.with_name(f"{output.name}.near_duplicates.csv")


# --- the benchmark ---------------------------------------------------------------------------------------------------


def _plan(job: _Job, pool: _Pool, sizes: Sizes) -> Plan:
    hard = None
    if job.hard_negatives and pool.nearest is not None:
        hard = HardNegatives(job.hard_negatives, pool.nearest)
    return planned(pool.photos, sizes, seed=job.seed, cells=job.recipe.cells, groups=pool.groups, hard=hard)


def _write(job: _Job, plan: Plan, part: Path, record: Mapping[str, Any]) -> None:
    folder = part / "benchmark"
    run = Run(job.images, folder, job.seed, job.max_side, job.recipe)
    lines = make_pictures(run, plan, journal=part / "journal.jsonl", workers=job.workers)
    write_ground_truth(folder / "ground_truth.csv", [(query.id, query.reference_id) for query in plan.queries])
    write_text(folder / "edits.jsonl", "".join(f"{line}\n" for line in lines))
    write_csv(folder / "photos.csv", ("id", "file"), ((photo.id, job.name_of(photo.source)) for photo in plan.photos))
    write_json(folder / RECORD, record)


def _told(pool: _Pool, plan: Plan, sizes: Sizes, job: _Job) -> dict[str, Any]:
    """Return the results for benchmark.json: counts, sizes and hard negatives."""
    hard = [
        {"file": job.name_of(path), "reference_id": reference, "distance": round(distance, 4)}
        for path, (reference, distance) in plan.hard.items()
    ]
    return {**pool.told, "sizes": asdict(sizes), "hard_negatives": hard}
