// A row of the worklist.

import { element, fill } from "./elements.js";
import { markKey, markOf, probability, setOf, sideOf } from "./words.js";

let classes = [0, 1, 2, 3, 4];

/** Tell what all rows need to know: which grades there are. */
export const describeRows = (session) => (classes = session.classes);

/** Make `row` show `film`, or that it is still asked for where it is null. */
export function fillRow(row, film, chosen) {
  row.classList.toggle("chosen", chosen);
  row.classList.toggle("waiting", film === null);
  row.classList.toggle("failed", Boolean(film?.error));
  row.setAttribute("aria-selected", String(chosen));
  if (film === null) {
    fill(row, cell("film", "…"));
    return;
  }
  fill(
    row,
    cell("picture", thumbnail(film)),
    cell("film", element("span", { class: "name", title: film.name }, film.name)),
    cell("side", sideOf(film)),
    ...(film.error ? [cell("error", film.error)] : answer(film)),
    cell("mark", mark(film), others(film)),
  );
}

/** A small picture of a film, or a sign that there is none. */
export function thumbnail(film) {
  if (film.error) return element("span", { class: "thumbnail none", "aria-hidden": "true" }, "!");
  const knee = film.box ? `?knee=${film.box.join("-")}` : ""; // so that none of before it was found is shown again
  const src = `/api/films/${encodeURIComponent(film.id)}/thumbnail${knee}`;
  return element("img", { class: "thumbnail", src, alt: "", loading: "lazy", decoding: "async" });
}

function cell(kind, ...children) {
  return element("span", { role: "gridcell", class: `cell ${kind}` }, ...children);
}

function answer(film) {
  if (film.grade === null && film.status === "graded" && film.shown) {
    return [cell("grade", ""), cell("probability", ""), cell("set", ""), cell("referred", ...referral(film, "no grade"))];
  }
  if (film.grade === null) {
    const words = film.shown ? "not graded yet" : "hidden until you have graded";
    return [cell("grade", ""), cell("probability", ""), cell("set", ""), cell("referred quiet", words)];
  }
  return [
    cell("grade", String(film.grade)),
    cell("probability", probability(film.probability)),
    cell("set", predictionSet(film.prediction_set)),
    cell("referred", ...referral(film, film.referred ? "referred" : "")),
  ];
}

function referral({ reason }, flag) {
  return [
    flag ? element("span", { class: "flag", title: flag }, flag) : null,
    reason ? element("span", { class: "reason", title: reason }, reason) : null,
  ];
}

/** All grades in a line, those of the prediction set shaded. */
export function predictionSet(grades) {
  if (!grades?.length) return null;
  const boxes = classes.map((grade) =>
    element("span", { class: grades.includes(grade) ? "in" : "out", "aria-hidden": "true" }, String(grade)),
  );
  return element("span", { class: "set-boxes", role: "img", "aria-label": setOf(grades) }, ...boxes);
}

function mark({ mark }) {
  if (!mark) return null;
  return element("span", { class: "mark-box", role: "img", "aria-label": `your mark: ${markOf(mark)}` }, markKey(mark));
}

function others({ marks }) {
  const words = marks.map((mark) => `${mark.reader}: ${markOf(mark)}`).join(", ");
  return words ? element("span", { class: "quiet others", title: words }, words) : null;
}
