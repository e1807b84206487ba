"""Write what the pages tell of the shipped model: its card, and the first screen of README.

    python tests/shipped_pages.py        from what lies in models/oai: evaluation.json, knees.json, facts.yaml
    python tests/shipped_pages.py RUN    from a new evaluation of the shipped model, in the run folder of

    legradnet-evaluate checkpoint=oai data=csv data.dataset_path=FILMS data.csv_path=FILMS/knees.csv split=val \
        crossfit=true precision=f32 hydra.run.dir=RUN

Before it `python tests/shipped_knees.py` writes knees.json.
"""

import json
import re
import sys
from pathlib import Path

from legradnet import Grader
from legradnet.evaluation.card_page import NUMBERS, SHIPPED_NUMBERS, Evaluation, card_text, read_evaluation
from legradnet.evaluation.report import interval, number

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "src/legradnet/models/oai"
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- the shipped model:.*?-->\n).*?(<!-- end -->\n)", re.DOTALL)
LEFT_OUT = ("roc", "loss")  # a row a film; and what means nothing without the training's settings


def take(run: Path, model: Path) -> dict:
    """What `evaluation.json` of a model folder says: the numbers of its evaluation, none of a single film."""
    numbers = dict(read_evaluation(run).numbers)
    (digest,) = (network.digest for network in Grader.load(model).networks)
    if numbers["digests"] != [digest]:
        raise SystemExit(f"{run / NUMBERS} measured another model than {model}: {numbers['digests']}, not {digest}.")
    return {name: value for name, value in numbers.items() if name not in LEFT_OUT}


def first_screen(evaluation: Evaluation) -> str:
    """What README tells of the shipped model, in Markdown."""
    numbers, metrics = evaluation.numbers, evaluation.numbers["metrics"]
    film = next(film for film in numbers["examples"] if film["label"] == 2)
    values = {name: f"{number(metrics[name]['value'])} ({interval(metrics[name])})" for name in metrics}
    probabilities = ", ".join(f"{probability:.2f}" for probability in film["probabilities"])
    refer = "yes" if film["referred"] else "no"
    plausible = " or ".join(map(str, film["prediction_set"])) or "not known"
    referred = number(metrics["referral_rate"]["value"])
    crossed = "Calibration was crossfitted; epoch" if numbers["crossfit"] else "Calibration, epoch"
    return f"""
A model comes with it. What it says of a real knee of KL {film["label"]} that it was not trained on:

    legradnet-predict input=knee.png

> grade **{film["grade"]}**; probabilities of 0 to 4: {probabilities}; plausible: {plausible}; ask a
> reader: {refer}

On {numbers["films"]} validation knees ({numbers["patients"]} patients; {numbers["confidence_level"]:.0%} intervals):
**QWK {values["qwk"]}, accuracy {values["accuracy"]}**, MAE {values["mae"]},
F1 of KL 1 {values["f1_1"]}, calibration error {values["ece"]}, coverage of the sets
{values["coverage"]}, referred {referred}. {crossed} and settings were chosen on the same knees,
which flatters a little. [Its card](src/legradnet/models/oai/README.md) tells all, also what it can't do. It is for
research and no medical device.

"""


def readme(text: str, evaluation: Evaluation) -> str:
    """README with its block as it should be; what stands around it stays."""
    assert len(BLOCK.findall(text)) == 1
    return BLOCK.sub(lambda block: block[1] + first_screen(evaluation) + block[2], text)


def main(arguments: list[str], model: Path = MODEL, page: Path = README) -> None:
    """Write the pages, after taking a new evaluation if one is named."""
    if arguments:
        (run,) = map(Path, arguments)
        text = json.dumps(take(run, model), indent=1, allow_nan=False)
        (model / SHIPPED_NUMBERS).write_text(text + "\n", encoding="utf-8")
    evaluation = read_evaluation(model)
    (model / "README.md").write_text(card_text(evaluation), encoding="utf-8")
    page.write_text(readme(page.read_text(encoding="utf-8"), evaluation), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
