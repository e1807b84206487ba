"""Learning the second look from knees cut close: `python -m legradnet.localise.learn_second_look FOLDER OUTPUT`.

FOLDER holds knees as PNG files, cut as networks learn them, in `0/` to `4/` below it; OUTPUT is a `.safetensors` file.
Seeded: the same folder, machine and torch give the same weights.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from legradnet.data.film import Gray
from legradnet.files import written_whole
from legradnet.localise.composites import Place, compose, distracting
from legradnet.localise.learn import crops_of
from legradnet.localise.second_look import CLOSER, EXACT, Glance, Square, evened, window

_WIDTHS = 16, 32, 48, 48, 64
_BATCH = 64
_FILM = 200  # pixels a side of composites; the crop in their middle is half as large
_STRANGE = 1500  # films without a knee
_BESIDE = 28  # pixels drawn on either side of a crop
_LOGIT_WEIGHT = 0.1
_STEPS = {CLOSER.name: 2500, EXACT.name: 3000}
_SEED = {CLOSER.name: 6, EXACT.name: 5}  # of what is drawn
_HE = {CLOSER.name: 6, EXACT.name: 4}  # layers that start as He et al. 2015 have it, the others as torch has

_Example = tuple[npt.NDArray[np.float32], tuple[float, float, float], int]  # window, answer, knee 1, none 0, untold -1


def network(glance: Glance, outputs: int) -> nn.Sequential:
    """A glance's network as torch knows it."""
    layers: list[nn.Conv2d] = []
    before = 1
    for number, ((height, width, stride), maps) in enumerate(zip(glance.kernels, (*_WIDTHS, outputs), strict=True)):
        layers.append(nn.Conv2d(before, maps, (height, width), stride))
        if number < _HE[glance.name]:
            nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
            layers[-1].bias = nn.Parameter(torch.zeros(maps))
        before = maps
    with torch.no_grad():
        layers[-1].weight *= 0.1
        layers[-1].bias = nn.Parameter(torch.zeros(outputs))
    return nn.Sequential(*layers)


def closer_examples(crops: npt.NDArray[np.uint8]) -> Callable[[np.random.Generator], _Example]:
    """Windows of composites of every second crop [N, 112, 112], and of films without a knee."""
    films = [Image.fromarray(_composite(crops, i)) for i in range(0, len(crops), 2)]
    others = crops[1::3]
    strange = [
        Image.fromarray(distracting(others[i % len(others)], (_FILM, _FILM), np.random.default_rng([12, i])))
        for i in range(_STRANGE)
    ]
    side = _FILM / 2

    def at(film: Image.Image, x: float, y: float, log_side: float) -> Gray:
        return window(film, Square(side * (1 + x), side * (1 + y), side * np.exp(log_side)), CLOSER)

    def drawn(rng: np.random.Generator) -> _Example:
        seen, answer, knee = placed(rng)
        return _otherwise_exposed(seen, rng), answer, knee

    def placed(rng: np.random.Generator) -> tuple[Gray, tuple[float, float, float], int]:
        kind = rng.random()
        if kind < 0.62:  # a knee
            film = films[rng.integers(len(films))]
            if rng.random() < 0.5:
                x, y, log_side = rng.normal(0, 0.06), rng.normal(0, 0.06), rng.normal(0, 0.08)
            else:
                x, y, log_side = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25), rng.uniform(-0.35, 0.35)
            seen, scale = at(film, x, y, log_side), np.exp(log_side)
            way = 1
            if rng.random() < 0.5:
                seen, way = seen[:, ::-1], -1
            is_near = max(abs(x), abs(y)) < 0.12 and abs(log_side) < 0.2
            return seen, (-way * x / scale, -y / scale, -log_side), 1 if is_near else -1
        if kind < 0.76:  # beside one, or far larger or smaller
            film = films[rng.integers(len(films))]
            if rng.random() < 0.6:
                angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.9)
                x, y, log_side = far * np.cos(angle), far * np.sin(angle), rng.uniform(-0.6, 0.4)
            else:
                x, y = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)
                log_side = rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
            return at(film, x, y, log_side), (0, 0, 0), 0
        film, size = strange[rng.integers(len(strange))], np.exp(rng.uniform(np.log(35), np.log(200)))
        x, y = rng.uniform(20, 180, 2)
        return window(film, Square(x, y, size), CLOSER), (0, 0, 0), 0

    return drawn


def _composite(crops: npt.NDArray[np.uint8], number: int) -> Gray:
    rng = np.random.default_rng([11, number])
    side = _FILM / 2
    turn = float(rng.normal(0, 5))
    chosen = [crops[number], crops[rng.integers(len(crops))]]
    if rng.random() < 0.5:
        chosen = [crop[:, ::-1] for crop in chosen]
    places = [Place(side, side, side, turn)]
    if rng.random() < 0.5:
        x = side + rng.choice([-1, 1]) * rng.uniform(105, 200)
        y, size = side + rng.normal(0, 15), side * rng.uniform(0.95, 1.05)
        places.append(Place(x, y, size, float(rng.normal(0, 5))))
    return compose(chosen[: len(places)], places, (_FILM, _FILM), rng, replaced=0.05)


def exact_examples(crops: npt.NDArray[np.uint8]) -> Callable[[np.random.Generator], _Example]:
    """Windows within crops [N, 112, 112]; what lies beside them is drawn on, above and below nothing is seen of."""
    films = [Image.fromarray(widened(crop, np.random.default_rng([3, i]))) for i, crop in enumerate(crops)]
    size = crops.shape[1]

    def drawn(rng: np.random.Generator) -> _Example:
        film, is_mirrored = films[rng.integers(len(films))], rng.random() < 0.5
        x, y = rng.uniform(-0.07, 0.07, 2)
        log_side = rng.uniform(-0.12, 0.1)
        scale, turn = np.exp(log_side), np.deg2rad(np.clip(rng.normal(0, 3), -6, 6))
        square = Square(size / 2 + _BESIDE + size * x, size / 2 + size * y, size * scale)
        right, down = -x / scale, -y / scale
        right, down = np.cos(turn) * right + np.sin(turn) * down, np.cos(turn) * down - np.sin(turn) * right
        answer = -right if is_mirrored else right, down, -log_side
        return _hazed(window(film, square, EXACT, turn, is_mirrored), rng), answer, -1

    return drawn


def widened(crop: Gray, rng: np.random.Generator) -> Gray:
    """A crop [S, S] with soft parts, and what may be beside them, on either side [S, S + 2 * _BESIDE]."""
    values = crop.astype(np.float32)
    far = np.arange(1, _BESIDE + 1)[None, :]
    sides = []
    for is_right in (False, True):
        inner = values[:, ::-1] if is_right else values  # the border first
        border = gaussian_filter(inner, (4, 0))[:, :1]
        kind = rng.integers(4)
        if kind == 0:
            beside = border + 0 * far
        elif kind == 1:
            beside = inner[:, 1 : _BESIDE + 1]
        elif kind == 2:
            beside = border - far * rng.uniform(0.3, 4)
        else:
            slope = (inner[:, :8].mean(axis=1) - inner[:, 8:16].mean(axis=1)) / 8
            beside = border + gaussian_filter(slope, 4)[:, None] * far * 0.8
        skin = rng.uniform(-5, 60)
        if rng.random() < 0.5:
            beside = np.where(far > skin, beside * np.exp(-(far - skin) / rng.uniform(1, 8)), beside)
        sides.append(beside)
    wide = np.concatenate([sides[0][:, ::-1], values, sides[1]], axis=1)
    return np.asarray(wide.clip(0, 255), np.uint8)


def _otherwise_exposed(seen: Gray, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.floating] = seen.astype(np.float32)
    if rng.random() < 0.3:
        values = 255 * (values / 255) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.3:
        values = values + rng.standard_normal(values.shape) * rng.uniform(0, 6)
    return np.asarray(values.clip(0, 255), np.float32)


def _hazed(seen: Gray, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.floating] = seen.astype(np.float32)
    height, width = values.shape
    if rng.random() < 0.4:
        values = 255 * (values / 255) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.3:
        values = gaussian_filter(values, rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        values = values + rng.standard_normal(values.shape) * rng.uniform(0, 5)
    if rng.random() < 0.3:
        across, down = rng.uniform(-40, 40, 2)
        values = values + across * np.linspace(-1, 1, width)[None, :] + down * np.linspace(-1, 1, height)[:, None]
    return np.asarray(values.clip(0, 255), np.float32)


def learned(glance: Glance, draw: Callable[[np.random.Generator], _Example], outputs: int) -> nn.Sequential:
    """A glance's network after its steps on examples; with four `outputs` the last says whether there is a knee."""
    torch.manual_seed(0)
    convolutions, steps = network(glance, outputs), _STEPS[glance.name]
    optimiser = torch.optim.AdamW(convolutions.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    told = 0.0
    for step in range(1, steps + 1):
        rng = np.random.default_rng([_SEED[glance.name], step])
        loss = _loss(convolutions, [draw(rng) for _ in range(_BATCH)], glance)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        told += float(loss.detach())
        if step % 100 == 0:
            print(f"{glance.name} {step}: {told / 100:.4f}", flush=True)
            told = 0.0
    return convolutions


def _loss(convolutions: nn.Sequential, examples: Sequence[_Example], glance: Glance) -> Tensor:
    seen = evened(np.stack([example[0] for example in examples]), glance.even)
    maps = torch.from_numpy(seen[:, None])
    for convolution in convolutions[:-1]:
        maps = convolution(maps).relu()
    said = convolutions[-1](maps)[:, :, 0, 0]
    wanted = torch.tensor([example[1] for example in examples], dtype=torch.float32)
    knee = torch.tensor([example[2] for example in examples], dtype=torch.float32)
    loss = F.smooth_l1_loss(said[knee != 0, :3], wanted[knee != 0], beta=0.02)
    if said.shape[1] == 3:
        return loss
    told = knee >= 0
    return loss + _LOGIT_WEIGHT * F.binary_cross_entropy_with_logits(said[told, 3], knee[told])


def learn(folder: Path, output: Path) -> None:
    """Write the weights of both networks that the knees in `folder` lead to."""
    crops = crops_of(folder)
    tensors = {}
    for glance, examples, outputs in ((CLOSER, closer_examples, 4), (EXACT, exact_examples, 3)):
        convolutions = learned(glance, examples(crops), outputs)
        for name, value in convolutions.state_dict().items():
            tensors[f"{glance.name}.{name}"] = value.detach().numpy().astype(np.float16)
    with written_whole(output, shared=True) as file:
        file.write(save(tensors))


if __name__ == "__main__":
    learn(Path(sys.argv[1]), Path(sys.argv[2]))
