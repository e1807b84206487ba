"""Learning the detector from knees cut close: `python -m legradnet.localise.learn FOLDER OUTPUT.safetensors`.

FOLDER holds knees as PNG files, cut as networks learn them, in `0/` to `4/` below it; every one of them becomes
the knee of made-up legs (`composites.py`). Seeded: the same folder, machine and torch give the same weights.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save
from torch import Tensor, nn

from legradnet.data.film import Gray
from legradnet.files import written_whole
from legradnet.localise.composites import Place, compose, distracting
from legradnet.localise.detector import FIELD, LAYERS, STRIDE, WINDOW, centre_of, evened

_WIDTHS = (12, 24, 32, 32, 64, 4)
_PICTURE = 88  # pixels a side
_BATCH = 32
_NEAR, _FAR = 0.10, 0.22  # of a side: a window is a knee's up to the first distance, and none's from the second on
_REGRESSED = 0.25
_SCALE = 1.17, 1.45  # same, side of the knee by that of the window


def network() -> nn.Sequential:
    """The detector as torch knows it; parameters `0.weight`, `0.bias`, `1.weight` ..."""
    layers: list[nn.Conv2d] = []
    before = 1
    for (side, stride), width in zip(LAYERS, _WIDTHS, strict=True):
        layers.append(nn.Conv2d(before, width, side, stride))
        nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
        layers[-1].bias = nn.Parameter(torch.zeros(width))
        before = width
    with torch.no_grad():
        layers[-1].weight *= 0.1
    layers[-1].bias = nn.Parameter(torch.tensor([-4.0, 0.0, 0.0, 0.0]))  # most windows are no knee's
    return nn.Sequential(*layers)


def answers(convolutions: nn.Sequential, pictures: Tensor) -> Tensor:
    """What the network says [B, 4, h, w] of evened pictures [B, 1, H, W]."""
    for convolution in convolutions[:-1]:
        pictures = convolution(pictures).relu()
    return convolutions[-1](pictures)


def targets(knees: Sequence[Place], cells: int) -> npt.NDArray[np.float32]:
    """What is to be said [5, cells, cells]: a knee 1, none 0, nothing asked -1; x, y, log side; whether these count."""
    centres = centre_of(np.arange(cells, dtype=np.float32))
    wanted = np.zeros((5, cells, cells), np.float32)
    for knee in knees:
        x, y = np.broadcast_arrays((knee.x - centres[None, :]) / WINDOW, (knee.y - centres[:, None]) / WINDOW)
        scale = knee.side / WINDOW
        apart, unlike = np.maximum(abs(x), abs(y)), max(scale, 1 / scale)
        near = (apart <= _NEAR) & (unlike <= _SCALE[0])
        far = (apart >= _FAR) | (unlike >= _SCALE[1])
        asked = (apart <= _REGRESSED) & (unlike <= _SCALE[1])
        wanted[0] = np.where(near, 1, np.where(far, wanted[0], np.where(wanted[0] == 1, 1, -1)))
        wanted[1:] = np.where(asked, np.stack([x, y, np.full_like(x, np.log(scale)), np.ones_like(x)]), wanted[1:])
    return wanted


def picture(crops: Sequence[Gray], rng: np.random.Generator) -> tuple[Gray, list[Place]]:
    """A picture [_PICTURE, _PICTURE] to learn from, and the knees in it."""
    shape = (_PICTURE, _PICTURE)
    if rng.random() < 0.35:
        return distracting(crops[0], shape, rng), []
    side = WINDOW * np.exp(rng.uniform(-0.35, 0.35) if rng.random() < 0.7 else rng.uniform(-1.2, 1.1))
    x, y = rng.uniform(0.1, 0.9, 2) * _PICTURE
    places = [Place(x, y, side, float(rng.normal(0, 7)))]
    if rng.random() < 0.5:
        away = rng.choice([-1, 1]) * rng.uniform(1.05, 2.4) * side
        places.append(
            Place(x + away, y + rng.normal(0, 0.15) * side, side * rng.uniform(0.95, 1.05), float(rng.normal(0, 7)))
        )
    return compose(crops[: len(places)], places, shape, rng, replaced=0.08), places


def crops_of(folder: Path) -> npt.NDArray[np.uint8]:
    """The knees in `folder` [N, 112, 112]."""
    paths = sorted(folder.glob("[0-4]/*.png"))
    return np.stack(
        [np.asarray(Image.open(path).convert("L").resize((112, 112), Image.Resampling.BOX)) for path in paths]
    )


def _batches(folder: Path, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    crops = crops_of(folder)
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        pictures, wanted = [], []
        for _ in range(_BATCH):
            chosen = [crop[:, ::-1] if rng.random() < 0.5 else crop for crop in crops[rng.integers(len(crops), size=2)]]
            gray, knees = picture(chosen, rng)
            pictures.append(evened(gray))
            wanted.append(targets(knees, (len(pictures[-1]) - FIELD) // STRIDE + 1))
        yield torch.from_numpy(np.stack(pictures)[:, None]), torch.from_numpy(np.stack(wanted))


def loss_of(said: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of whether there is a knee, the few windows with one weighing more, and how far off it is told."""
    asked, knee = wanted[:, 0] >= 0, wanted[:, 0].clamp(min=0)
    entropy = F.binary_cross_entropy_with_logits(said[:, 0], knee, reduction="none")
    focus = (said[:, 0].sigmoid() - knee).abs().detach() ** 1.5
    classified = (entropy * focus * asked).sum() / knee.sum().clamp(min=1)
    counted = wanted[:, 4]
    off = F.smooth_l1_loss(said[:, 1:], wanted[:, 1:4], reduction="none", beta=0.02).sum(dim=1)
    return classified + 2 * (off * counted).sum() / counted.sum().clamp(min=1)


def learn(folder: Path, output: Path, steps: int = 1200, seed: int = 0) -> None:
    """Write the weights that `steps` batches of composites of the knees in `folder` lead to."""
    torch.manual_seed(seed)
    convolutions = network()
    optimiser = torch.optim.AdamW(convolutions.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.1)
    told = 0.0
    for step, (pictures, wanted) in enumerate(_batches(folder, steps, seed), start=1):
        loss = loss_of(answers(convolutions, pictures), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        told += float(loss.detach())
        if step % 50 == 0:
            print(f"{step}: {told / 50:.4f}", flush=True)
            told = 0.0
    tensors = {name: value.detach().numpy().astype(np.float16) for name, value in convolutions.state_dict().items()}
    with written_whole(output, shared=True) as file:
        file.write(save(tensors))


if __name__ == "__main__":
    learn(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
