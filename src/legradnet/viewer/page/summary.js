// The summary of a study: how readers agree with each other and with the model, and how long a film takes.

import * as api from "./api.js";
import { element, fill } from "./elements.js";
import { count } from "./words.js";

const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${Math.round(100 * value)}\u00a0%`);
const interval = ({ qwk, low, high }) => (low === null ? number(qwk) : `${number(qwk)} (${number(low)} to ${number(high)})`);

/** Ask for the summary and show it in `parent`. */
export async function showSummary(parent, session) {
  let found;
  try {
    found = await api.summary();
  } catch (error) {
    fill(parent, element("p", { class: "error-words" }, `No summary: ${error.message}`));
    return;
  }
  const { readers, model, changed, pace, films, marked, waiting } = found;
  const lead = `You have marked ${marked.toLocaleString("en")} of ${count(films, "film")}.`;
  const confidence = `${Math.round(100 * found.confidence)} %`;
  fill(
    parent,
    element("p", { class: "lead" }, lead),
    part("Readers among each other", readers, ["Readers", "Films", `QWK (${confidence} interval)`, "Same grade"], (row) => [
      `${row.first} and ${row.second}`, row.films, interval(row), percent(row.agreement),
    ], waiting || "No two readers have graded the same film yet."),
    part("Readers and the model", model, ["Reader", "Answer", "Films", `QWK (${confidence} interval)`, "Same grade"], (row) => [
      row.reader, row.when === "before" ? "before it was shown" : "as it stands now", row.films, interval(row), percent(row.agreement),
    ], "No graded film has a mark yet."),
    part("Changed after seeing the model's answer", changed, ["Reader", "Films", "Changed", "Towards the model"], (row) => [
      row.reader, row.films, row.changed, row.towards,
    ], "Nothing was changed yet."),
    part("Pace", pace, ["Reader", "Films", "Minutes a film (mean)", "Median"], (row) => [
      row.reader, row.films, number(row.minutes), number(row.median),
    ], "Nothing was graded yet."),
    element("p", { class: "quiet" }, `QWK is quadratic weighted kappa; its interval is from ${found.resamples.toLocaleString("en")} bootstrap samples of patients. Ungradable films count nowhere.`),
    element("h3", {}, "Export"),
    element("div", { class: "exports" }, ...exportLinks(session)),
  );
}

function part(title, rows, headings, cells, none) {
  const section = element("section", { class: "panel" }, element("h3", {}, title));
  if (!rows.length) {
    section.append(element("p", { class: "quiet" }, none));
    return section;
  }
  const head = element("tr", {}, ...headings.map((words) => element("th", { scope: "col" }, words)));
  const body = rows.map((row) => element("tr", {}, ...cells(row).map((cell) => element("td", {}, String(cell)))));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  const scroller = element("div", { class: "table-scroller", tabindex: 0, role: "region", "aria-label": title }, table);
  section.append(scroller);
  return section;
}

/** Links to the tables that legradnet-train and legradnet-evaluate take, with a line for why one can't be had. */
export function exportLinks({ reader, study }) {
  const of = `?${new URLSearchParams({ reader })}`;
  const own = [["/api/export" + of, `Grades of ${reader}`], ["/api/export/ungradable" + of, `Ungradable of ${reader}`]];
  const all = [["/api/export", "Grades of most readers"], ["/api/export/ungradable", "Ungradable films"]];
  const refused = element("p", { class: "error-words refused", role: "alert" });
  const link = ([href, words]) => {
    const act = async (event) => {
      if (!event.isTrusted) return; // our own, below
      event.preventDefault(); // a browser would only say that it failed
      refused.textContent = "";
      try {
        await api.table(href);
        made.click();
      } catch (error) {
        refused.textContent = error.message;
      }
    };
    const made = element("a", { href, download: true, class: "button", on: { click: act } }, words);
    return made;
  };
  return [...(study === "blind" ? [...own, ...all] : [...all, own[0]]).map(link), refused];
}
