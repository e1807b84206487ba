"""Settings of `legradnet-train` that follow from what was measured, and from nothing else."""

from collections.abc import Mapping

from legradnet.benchmark.speed import Speed

_FASTER = 1.05  # less is noise


def advise_precision(speeds: Mapping[str, Mapping[str, Speed]]) -> tuple[str, dict[str, str | None]]:
    """The trainer's precision and each backbone's own, from {key: {f32, bf16: its speed}}.

    bf16-mixed if training any backbone was faster in bf16; those that were not then stay in f32 (None: as the trainer).
    """
    faster = {key: _is_faster(rates.get("bf16"), rates.get("f32")) for key, rates in speeds.items()}
    if not any(faster.values()):
        return "32-true", dict.fromkeys(speeds)
    return "bf16-mixed", {key: None if is_faster else "f32" for key, is_faster in faster.items()}


def _is_faster(bf16: Speed | None, f32: Speed | None) -> bool:
    if bf16 is None or f32 is None or bf16.train is None:
        return False
    return f32.train is None or bf16.train >= _FASTER * f32.train


def advise_batch(wanted: int, largest: int | None) -> tuple[int, int] | None:
    """(films a batch, batches a step of the optimiser), together about `wanted` films; None if not one film fits."""
    if largest is None or largest >= wanted:
        return wanted, 1
    return (largest, -(-wanted // largest)) if largest else None


def advise_workers(loading: Mapping[int, float], training: float | None) -> int | None:
    """The fewest reading processes with which training is as fast as with any, within 5 %; None if nothing tells.

    With none, a batch is read and then trained on; with some, the slower of the two decides.
    """
    if not loading or not training:
        return None
    rates = {
        workers: min(films, training) if workers else 1 / (1 / films + 1 / training)
        for workers, films in loading.items()
    }
    return min(workers for workers, rate in rates.items() if _FASTER * rate >= max(rates.values()))


def overrides(
    trainer_precision: str,
    backbone_precision: Mapping[str, str | None],
    batch: tuple[int, int],
    workers: int | None,
    compiled: bool,
) -> list[str]:
    """The advice as words for a `legradnet-train` command line."""
    words = [f"trainer.precision={trainer_precision}"]
    words += [f"backbone.{key}.precision={precision}" for key, precision in backbone_precision.items() if precision]
    words.append(f"data.batch_size={batch[0]}")
    if batch[1] > 1:
        words.append(f"trainer.accumulate_grad_batches={batch[1]}")
    if workers is not None:
        words.append(f"data.num_workers={workers}")
    return [*words, "compile=true"] if compiled else words
