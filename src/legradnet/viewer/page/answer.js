// What the model says of a film: its grade, the five probabilities, the prediction set, gate weights, and why.

import { element, fill } from "./elements.js";
import { gradeWord, probability, setOf } from "./words.js";

/** Show the answer of `film` in `parent`, or why there is none. */
export function showAnswer(parent, film, session) {
  if (film.status === "error") fill(parent, element("p", { class: "error-words" }, film.error));
  else if (!film.shown) fill(parent, element("p", { class: "quiet" }, "Hidden until you have graded this film."));
  else if (film.status === "waiting") fill(parent, element("p", { class: "quiet" }, "Not graded yet."));
  else if (film.grade === null) fill(parent, element("p", {}, "The model gives no grade."), ...why(film));
  else fill(parent, verdict(film, session), probabilities(film, session), ...why(film), ...gate(film, session));
}

function verdict(film, { classes, coverage }) {
  const set = setOf(film.prediction_set);
  const held = coverage ? ` (${Math.round(100 * coverage)} % coverage)` : "";
  return element(
    "div",
    { class: "verdict" },
    element("span", { class: "verdict-grade" }, String(film.grade)),
    element(
      "div",
      {},
      element("p", {}, [gradeWord(film.grade, classes.length), `probability ${probability(film.probability)}`].filter(Boolean).join(", ")),
      element("p", { class: "quiet" }, set ? `prediction set ${set}${held}` : "no prediction set: the model is not calibrated"),
      element("p", { class: "quiet" }, `expected grade ${film.expected_grade.toFixed(2)}`),
    ),
  );
}

function probabilities(film, { classes }) {
  const rows = classes.map((grade) => {
    const value = film.probabilities[grade];
    const held = film.prediction_set?.includes(grade);
    const words = `grade ${grade}: ${probability(value)}${held ? ", in the prediction set" : ""}`;
    const kind = `bar-row${held ? " held" : ""}${grade === film.grade ? " given" : ""}`;
    return barRow(kind, String(grade), value, words, gradeWord(grade, classes.length));
  });
  return element("ul", { class: "bars", "aria-label": "Probability of each grade" }, ...rows);
}

function barRow(kind, name, value, words, more = "") {
  const bar = element("span", { class: "fill" });
  bar.style.width = `${100 * value}%`;
  const seen = [
    element("span", { class: "bar-name" }, name, more ? element("small", {}, more) : ""),
    element("span", { class: "track" }, bar),
    element("span", { class: "bar-value" }, probability(value)),
  ];
  for (const part of seen) part.setAttribute("aria-hidden", "true");
  return element("li", { class: kind }, element("span", { class: "unseen" }, words), ...seen);
}

function why(film) {
  const parts = film.reasons?.length ? film.reasons : film.reason ? [film.reason] : [];
  const head = film.referred ? element("p", { class: "flag-line" }, element("span", { class: "flag" }, "referred"), " ask a reader") : null;
  const list = parts.length ? element("ul", { class: "reasons" }, ...parts.map((part) => element("li", {}, part))) : null;
  return [head, list];
}

function gate(film, session) {
  const weights = Object.entries(film.gate_weights ?? {});
  if (!weights.length) return session.words.weights ? [element("p", { class: "quiet" }, session.words.weights)] : [];
  const rows = weights.map(([key, weight]) => barRow("bar-row gate", key, weight, `${key}: ${probability(weight)}`));
  return [element("h4", {}, "Gate weights"), element("ul", { class: "bars", "aria-label": "Gate weights" }, ...rows)];
}
