"""Tables in which a row is a knee of a whole film: a file stands in them once for each of its knees."""

from legradnet.data.checks import KNEE, Draft
from legradnet.data.sides import SIDE_WORDS, Side

_BOX = "box"  # column of tables that predict, the reading room and evaluate write of whole films


def name_knees(draft: Draft) -> None:
    """Take the column `knee` of a draft, if there is one: R or L of the patient, which is the row's side; "" for all.

    Before the files are checked, so that each may be named once a knee.
    """
    if KNEE not in draft.table:
        return
    given, side = draft.table[KNEE], draft.table["side"]
    knees: list[Side | None] = [SIDE_WORDS.get(str(text).lower()) for text in given]
    odd = given.map(lambda text: str(text).lower() not in SIDE_WORDS)
    draft.add_cells("knee is not L, R, left, right or empty", given, odd)
    draft.knees = [knee or "" for knee in knees]
    named = given.where(given.isna(), draft.knees)
    other = side.isin(["L", "R"]) & named.ne("") & side.ne(named)
    draft.add_cells("side is not that of the knee", side, other)
    draft.table = draft.table.assign(knee=named, side=side.where(named.eq(""), named))


def refuse_squares(draft: Draft) -> None:
    """Note as a problem where rows of a draft have a `box` on a whole film, which nobody cuts here."""
    if {KNEE, _BOX} <= set(draft.table):
        draft.add_cells(f"film is a whole one; {draft.cutting}", draft.table[_BOX], draft.table[_BOX].ne(""))


def join_knees(draft: Draft) -> None:
    """Make the knees of each file those of one patient: the one that a row tells, else the film's name stands for it.

    After the files are checked; a file whose knees are of two patients, or in two splits, is noted as a problem.
    """
    rows: dict[str, list[int]] = {}
    for position, path in enumerate(draft.paths):
        if path:
            rows.setdefault(path, []).append(position)
    patient, split = (draft.table[name].tolist() for name in ("patient", "split"))
    two = {"patients": list[int](), "splits": list[int]()}
    for of_film in rows.values():
        if len(of_film) == 1:
            continue
        told = {patient[position] for position in of_film} - {""}
        name = told.pop() if told else draft.table["filename"].iat[of_film[0]]
        two["patients"] += of_film[1:] if told else []
        two["splits"] += of_film[1:] if len({split[position] for position in of_film}) > 1 else []
        for position in of_film:
            patient[position] = name
    for what, positions in two.items():
        draft.add_rows(f"knees of a film are in two {what}", positions, lambda i: f"{draft.knees[i]} and the other")
    draft.table = draft.table.assign(patient=patient)
