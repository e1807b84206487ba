// The worklist: only the rows in sight are elements, whether there are ten films or a hundred thousand.

import { element } from "./elements.js";
import { fillRow } from "./row.js";

const PAGE = 100; // films asked for at once
const BEYOND = 6; // rows drawn above and below those in sight

const pageOf = (index) => Math.floor(index / PAGE) * PAGE;

/**
 * A list that asks `load(offset, limit)` -> {total, items} for films when they come in sight, and calls `onOpen(film,
 * index)` for one that is chosen and `onTotal(total)` when their number is known. `rows` lies in `scroller`.
 */
export class Worklist {
  constructor(scroller, rows, { load, onOpen, onTotal }) {
    Object.assign(this, { scroller, rows, load, onOpen, onTotal });
    this.pages = new Map(); // offset -> [film], empty while they are asked for
    this.shown = new Map(); // index -> {row, film, chosen} as drawn
    this.total = 0;
    this.chosen = null; // id of the film that is open
    this.focused = 0; // index of the row that the keys move from
    this.question = 0; // counts how often all was asked anew: late answers to older questions are dropped
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroller);
    rows.addEventListener("keydown", (event) => this.onKey(event));
    rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.open(Number(row.dataset.index));
    });
  }

  /** Begin at the top of another list, as after a new order or filter. */
  async restart() {
    this.scroller.scrollTop = 0;
    this.focused = 0;
    await this.refresh();
  }

  /** Ask anew for what is in sight; the old stays until the answer is there. */
  async refresh() {
    this.question += 1;
    const [first, last] = this.inSight();
    const wanted = [...new Set([first, last, this.focused].map(pageOf))];
    const answers = wanted.map((offset) => this.ask(offset, { forget: true }));
    await Promise.all(answers);
  }

  async ask(offset, { forget = false } = {}) {
    const question = this.question;
    if (!this.pages.has(offset)) this.pages.set(offset, []);
    let answer;
    try {
      answer = await this.load(offset, PAGE);
    } catch (error) {
      if (!this.pages.get(offset)?.length) this.pages.delete(offset); // so that it is asked for again
      throw error;
    }
    if (question !== this.question) return;
    if (forget && this.answered !== question) this.pages.clear();
    this.answered = question;
    this.pages.set(offset, answer.items);
    this.total = answer.total;
    this.focused = Math.max(Math.min(this.focused, this.total - 1), 0);
    this.onTotal(answer.total);
    this.draw();
  }

  /** The film at this place of the list, or null where it is not known yet. */
  at(index) {
    return this.pages.get(pageOf(index))?.[index % PAGE] ?? null;
  }

  /** The film at this place of the list, asked for if need be; null beyond the list's ends. */
  async film(index) {
    if (index < 0 || index >= this.total) return null;
    if (!this.at(index)) await this.ask(pageOf(index));
    return this.at(index);
  }

  /** Where this film is, as far as the list is known; -1 where it is not. `near` is looked at first. */
  find(id, near = 0) {
    if (this.at(near)?.id === id) return near;
    for (const [offset, films] of this.pages) {
      const place = films.findIndex((film) => film.id === id);
      if (place >= 0) return offset + place;
    }
    return -1;
  }

  /** Change what is known of a film, as its mark. */
  update(id, changes) {
    const index = this.find(id);
    if (index < 0) return;
    this.pages.get(pageOf(index))[index % PAGE] = { ...this.at(index), ...changes };
    this.draw();
  }

  /** Show a film as the one that is open, and bring it into sight; null for none. */
  choose(id, index) {
    this.chosen = id;
    if (id !== null) this.focus(index, { only: true });
    this.draw();
  }

  open(index) {
    const film = this.at(index);
    if (film) this.onOpen(film, index);
  }

  /** Bring a row into sight, and the keyboard to it unless `only` sight is wanted. */
  focus(index, { only = false } = {}) {
    this.focused = index;
    const height = this.rowHeight();
    const { scrollTop, clientHeight } = this.scroller;
    if (index * height < scrollTop) this.scroller.scrollTop = index * height;
    else if ((index + 1) * height > scrollTop + clientHeight) this.scroller.scrollTop = (index + 1) * height - clientHeight;
    this.draw();
    if (!only) this.shown.get(index)?.row.focus({ preventScroll: true });
  }

  onKey(event) {
    const page = Math.max(Math.floor(this.scroller.clientHeight / this.rowHeight()) - 1, 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.total, End: this.total };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") this.open(this.focused);
    else if (event.key in steps) {
      this.focus(Math.min(Math.max(this.focused + steps[event.key], 0), Math.max(this.total - 1, 0)));
    } else return;
    event.preventDefault();
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.rows).getPropertyValue("--row-height"));
  }

  inSight() {
    const height = this.rowHeight();
    const first = Math.floor(this.scroller.scrollTop / height);
    return [first, Math.max(first, Math.min(first + Math.ceil(this.scroller.clientHeight / height), this.total - 1))];
  }

  draw() {
    if (!this.scroller.clientHeight) return; // it is hidden
    const height = this.rowHeight();
    const [first, last] = this.inSight();
    const drawn = new Set([this.focused]); // always there, so that the keyboard keeps its place
    for (let index = Math.max(first - BEYOND, 0); index <= last + BEYOND; index += 1) drawn.add(index);
    this.rows.style.height = `${this.total * height}px`;
    for (const [index, { row }] of this.shown) {
      if (!drawn.has(index) || index >= this.total) {
        row.remove();
        this.shown.delete(index);
      }
    }
    for (const index of drawn) if (index < this.total) this.drawRow(index, height);
  }

  drawRow(index, height) {
    const film = this.at(index);
    if (!film && !this.pages.has(pageOf(index))) this.ask(pageOf(index)).catch(() => {}); // told by the connection
    const chosen = film !== null && film.id === this.chosen;
    let drawn = this.shown.get(index);
    if (!drawn) {
      const row = element("div", { role: "row", class: "row", "data-index": index, "aria-rowindex": index + 2 });
      drawn = { row };
      this.shown.set(index, drawn);
      const after = [...this.shown.keys()].filter((other) => other > index).sort((a, b) => a - b)[0];
      this.rows.insertBefore(row, after === undefined ? null : this.shown.get(after).row); // in the order that is read
    }
    const { row } = drawn;
    row.tabIndex = index === this.focused ? 0 : -1;
    row.style.transform = `translateY(${index * height}px)`;
    if (drawn.film === film && drawn.chosen === chosen) return;
    Object.assign(drawn, { film, chosen });
    fillRow(row, film, chosen);
  }
}
