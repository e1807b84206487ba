// Order and filters of the worklist: one of each for every column.

import { element, fill, setOptions } from "./elements.js";
import { gradeWord } from "./words.js";

const COLUMNS = [
  // its class, heading, what it is sorted by, and which way first
  ["picture", "", "listed", "asc"],
  ["film", "Film", "name", "asc"],
  ["side", "Side", "side", "asc"],
  ["grade", "Grade", "grade", "desc"],
  ["probability", "Probability", "probability", "asc"],
  ["set", "Prediction set", "set", "desc"],
  ["referred", "Referred", "referred", "desc"],
  ["mark", "Your mark", "mark", "asc"],
];
const ORDERS = [
  ["uncertainty asc", "most uncertain first"],
  ["listed asc", "as listed"],
  ["name asc", "name"],
  ["side asc", "side"],
  ["grade desc", "highest grade first"],
  ["grade asc", "lowest grade first"],
  ["probability desc", "most probable first"],
  ["set desc", "largest prediction set first"],
  ["referred desc", "referred first"],
  ["reason asc", "reason"],
  ["mark asc", "your mark"],
];
const STUDY = new Set(["order", "name", "side", "mark"]); // what a blind study may be sorted by
const OF_MODEL = new Set(["grade", "probability", "set", "referred", "reason", "status"]); // what a study may not ask

/** What the list is asked for, {sort, order, and filters}; the elements that change it call `onChange` then. */
export class Choice {
  constructor({ headings, sort, form, toggle, clear }, session, onChange) {
    Object.assign(this, { headings, select: sort, form, toggle, clear, session, onChange });
    this.blind = session.study === "blind";
    [this.sort, this.order] = this.blind ? ["order", "asc"] : ["uncertainty", "asc"];
    this.filters = {};
    this.drawSort();
    this.drawForm();
    this.drawHeadings();
  }

  /** As the server wants it. */
  get query() {
    return { sort: this.sort, order: this.order, ...this.filters };
  }

  get isFiltered() {
    return Object.values(this.filters).some((value) => value !== "");
  }

  by(sort, order) {
    [this.sort, this.order] = [sort, order];
    this.drawSort();
    this.drawHeadings();
    this.onChange();
  }

  drawSort() {
    const study = [["order asc", "order of the study"]];
    const offered = this.blind ? [...study, ...ORDERS.filter(([value]) => STUDY.has(value.split(" ")[0]))] : ORDERS;
    const now = `${this.sort} ${this.order}`;
    const named = offered.some(([value]) => value === now) ? offered : [...offered, [now, `${this.sort}, turned round`]];
    setOptions(this.select, named, now);
    this.select.onchange = () => this.by(...this.select.value.split(" "));
  }

  drawHeadings() {
    const cells = COLUMNS.map(([kind, words, sort, first]) => {
      const sorted = this.sort === sort;
      const state = sorted ? (this.order === "asc" ? "ascending" : "descending") : null;
      const cell = element("span", { role: "columnheader", class: `cell ${kind}`, "aria-sort": words && state });
      if (!words) return cell.append(element("span", { class: "unseen" }, "Picture")), cell;
      if (this.blind && !STUDY.has(sort)) return cell.append(words), cell;
      const other = this.order === "asc" ? "desc" : "asc";
      const act = () => {
        this.by(sort, sorted ? other : first);
        this.headings.querySelector(`.${kind} button`).focus();
      };
      const arrow = sorted ? element("span", { class: "arrow", "aria-hidden": "true" }, this.order === "asc" ? "↑" : "↓") : null;
      cell.append(element("button", { type: "button", on: { click: act } }, words, ...(arrow ? [arrow] : [])));
      return cell;
    });
    fill(this.headings, ...cells);
  }

  drawForm() {
    const { classes } = this.session;
    const any = ["", "any"];
    const grades = classes.map((grade) => [grade, [grade, gradeWord(grade, classes.length)].filter(String).join(" ")]);
    const fields = [
      ["q", "Film", "search", "part of its name"],
      ["side", "Side", [any, ["R", "right"], ["L", "left"], ["none", "unknown"]]],
      ["grade", "Grade", [any, ...grades]],
      ["probability", "Probability", [any, ["0-0.4", "up to 0.40"], ["0-0.6", "up to 0.60"], ["0.6-1", "from 0.60"], ["0.8-1", "from 0.80"]]],
      ["set", "Prediction set holds", [any, ...grades]],
      ["referred", "Referred", [any, ["yes", "yes"], ["no", "no"]]],
      ["reason", "Reason", "search", "part of it"],
      ["mark", "Your mark", [any, ["none", "none yet"], ["any", "marked"], ...classes.map((grade) => [grade, String(grade)]), ["ungradable", "ungradable"], ...(this.blind ? [] : [["differs", "differs from the model"]])]],
      ["status", "Grading", [any, ["graded", "graded"], ["waiting", "waiting"], ["error", "error"]]],
    ];
    const shown = fields.filter(([name]) => !this.blind || !OF_MODEL.has(name));
    fill(this.form, ...shown.map((field) => this.field(...field)));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.toggle.addEventListener("click", () => {
      this.form.hidden = !this.form.hidden;
      this.toggle.setAttribute("aria-expanded", String(!this.form.hidden));
      if (!this.form.hidden) this.form.querySelector("input, select").focus();
    });
    this.clear.addEventListener("click", () => {
      this.form.reset();
      this.filters = {};
      this.changed();
    });
  }

  field(name, words, choices, hint) {
    let input;
    if (choices === "search") {
      let later;
      const wait = () => {
        clearTimeout(later);
        later = setTimeout(() => this.filter(name, input.value), 200); // while a person types
      };
      input = element("input", { type: "search", name, placeholder: hint, autocomplete: "off", spellcheck: "false", on: { input: wait } });
    } else {
      input = element("select", { name, on: { change: () => this.filter(name, input.value) } });
      setOptions(input, choices, "");
    }
    return element("label", {}, words, input);
  }

  filter(name, value) {
    this.filters[name] = value;
    this.changed();
  }

  changed() {
    this.clear.hidden = !this.isFiltered;
    this.toggle.classList.toggle("active", this.isFiltered);
    this.onChange();
  }
}
