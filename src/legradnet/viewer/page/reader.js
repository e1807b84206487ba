// The reader's own grade: six buttons and keys, a note, undo, and in a study the model's answer afterwards.

import { announce, byId, element, fill } from "./elements.js";
import * as marks from "./marks.js";
import { clock, count, gradeWord, markOf } from "./words.js";

const sameMark = (mark, { grade, ungradable }) => Boolean(mark) && mark.grade === grade && mark.ungradable === ungradable;

/** The panel of the reader's grade; `onSaved(answer, entry)` hears what the server wrote down, `onNext()` "go on". */
export class Reader {
  constructor(session, { onSaved, onNext }) {
    Object.assign(this, { session, onSaved, onNext });
    this.film = null;
    this.drafts = new Map(); // id -> note of a film without a mark, which goes with that
    this.since = 0; // when the film came into sight, or was marked, for the seconds that it was looked at
    this.looked = 0; // milliseconds before that, as of a hidden tab
    this.drawButtons();
    byId("undo").addEventListener("click", () => this.undo());
    byId("note").addEventListener("change", () => this.noteChanged());
    byId("note").addEventListener("keydown", (event) => {
      if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
        event.preventDefault();
        event.target.blur();
        document.querySelector("#surfaces .surface")?.focus({ preventScroll: true });
      }
    });
    document.addEventListener("visibilitychange", () => this.watch());
    marks.begin(session.reader, (news) => this.hear(news));
  }

  drawButtons() {
    const { classes } = this.session;
    this.buttons = [...classes.map((grade) => ({ grade, ungradable: false })), { grade: null, ungradable: true }].map((mark) => {
      const key = mark.ungradable ? "u" : String(mark.grade);
      const words = mark.ungradable ? "ungradable" : gradeWord(mark.grade, classes.length);
      const button = element(
        "button",
        { type: "button", class: "grade-button", "aria-pressed": "false", "aria-keyshortcuts": key, "data-key": key, "aria-label": mark.ungradable ? "ungradable" : `${key} ${words}`.trim() },
        element("b", {}, key.toUpperCase()),
        element("small", {}, words),
      );
      button.addEventListener("click", (event) => {
        this.give(mark);
        if (event.detail) document.querySelector("#surfaces .surface")?.focus({ preventScroll: true }); // a mouse's
      });
      return { button, mark };
    });
    fill(byId("grades"), ...this.buttons.map(({ button }) => button));
  }

  /** Show a film's mark; the clock begins anew with another film. */
  follow(film) {
    const other = film?.id !== this.film?.id;
    if (other && this.film) this.noteChanged();
    this.film = film;
    if (other) {
      this.lookAnew();
      byId("note").value = this.given?.note ?? this.drafts.get(film?.id) ?? "";
      byId("decide").hidden = true;
      this.accepting = null;
      if (!marks.unsaved()) this.say("", "");
    }
    const unreadable = film?.status === "error";
    for (const { button, mark } of this.buttons) {
      button.setAttribute("aria-pressed", String(sameMark(film?.mark, mark)));
      button.classList.toggle("pending", sameMark(this.onItsWay, mark));
      button.disabled = !film || (unreadable && !mark.ungradable);
    }
    const others = (film?.marks ?? []).map((mark) => `${mark.reader}: ${markOf(mark)}${mark.note ? ` (${mark.note})` : ""}`);
    byId("others").textContent = others.join(" · ");
  }

  /** The mark of this film that was sent and not answered for, or null. */
  get onItsWay() {
    return this.film && this.pending?.id === this.film.id ? this.pending : null;
  }

  /** What the reader has said of this film, saved or on its way. */
  get given() {
    return this.onItsWay ?? this.film?.mark;
  }

  lookAnew() {
    [this.since, this.looked] = [document.hidden ? 0 : performance.now(), 0];
  }

  watch() {
    if (document.hidden && this.since) [this.looked, this.since] = [this.looked + performance.now() - this.since, 0];
    else if (!document.hidden) this.since = performance.now();
  }

  get seconds() {
    return Math.round((this.looked + (this.since ? performance.now() - this.since : 0)) / 100) / 10;
  }

  /** Give the film that is open a mark {grade, ungradable}. */
  give({ grade, ungradable }) {
    if (!this.film || (this.film.status === "error" && !ungradable)) return;
    const { id, shown, status } = this.film;
    const note = byId("note").value.trim();
    this.pending = { id, grade, ungradable, note };
    this.drafts.delete(id);
    marks.give(this.film, { grade, ungradable, note, seconds: this.seconds, shown: shown && status === "graded" });
    this.lookAnew();
    this.follow(this.film);
  }

  noteChanged() {
    const note = byId("note").value.trim();
    if (!this.film) return;
    if (!this.given) this.drafts.set(this.film.id, note);
    else if (note !== this.given.note) this.give(this.given);
  }

  undo() {
    marks.takeBack();
  }

  hear(news) {
    if (news.state === "saving") this.say("saving", "Saving …");
    else if (news.state === "unknown") {
      this.say("lost", "Connection lost: whether the mark was taken back will be seen above; if it was not, undo again");
    } else if (news.state === "lost") {
      const waiting = `${count(news.count, "mark")} ${news.count === 1 ? "waits" : "wait"}`;
      const why = news.words ? `: ${news.words} Trying again` : ": trying again";
      this.say("lost", news.over ? `Not saved: open the address that legradnet-view prints; ${waiting}` : `Not saved yet${why}, ${waiting}`);
    } else {
      if (this.pending?.id === news.entry.id) this.pending = null;
      if (news.state === "refused") this.say("lost", `Not saved: ${news.words}`);
      else this.saved(news);
    }
  }

  saved({ entry, answer }) {
    const film = entry.kind === "undo" ? answer.item : answer;
    this.onSaved(film, entry);
    if (marks.unsaved()) this.say("saving", `Saving … ${count(marks.unsaved(), "mark")} to go`);
    else if (entry.kind === "undo") this.say("saved", `Taken back at ${clock(new Date())}`);
    else this.say("saved", `Saved at ${clock(new Date())}`);
    if (entry.kind === "mark") this.offer(film, entry);
  }

  /** In a study, once the answer may be seen: keep one's own grade, or take the model's. */
  offer(film, entry) {
    const first = this.session.study === "blind" && !entry.body.shown;
    if (!first || film.id !== this.film?.id || film.grade === null || !film.shown) return;
    const own = film.mark.ungradable ? "ungradable" : film.mark.grade;
    const box = byId("decide");
    box.hidden = false;
    if (own === film.grade) {
      fill(box, element("p", {}, `The model says ${film.grade} too.`), this.choice("Go on", "Space", () => this.onNext()));
      announce(`The model says ${film.grade} too.`);
      return;
    }
    this.accepting = { grade: film.grade, ungradable: false };
    fill(
      box,
      element("p", {}, `The model says ${film.grade}; you said ${own}.`),
      this.choice(`Accept ${film.grade}`, "a", () => this.accept()),
      this.choice(`Keep ${own}`, "Space", () => this.onNext()),
    );
    announce(`The model says ${film.grade}; you said ${own}. Press a to accept, space to keep yours.`);
  }

  choice(words, key, act) {
    return element("button", { type: "button", "aria-keyshortcuts": key, on: { click: act } }, words);
  }

  /** Take the model's grade instead of one's own, where that is offered. */
  accept() {
    if (!this.accepting) return;
    this.give(this.accepting);
    this.accepting = null;
    byId("decide").hidden = true;
  }

  say(state, words) {
    byId("saved").className = `saved ${state}`;
    byId("saved").textContent = words;
  }
}
