// A film that is open: the film itself, the reader's grade, the model's answer, and the patient's other films.

import * as api from "./api.js";
import { showAnswer } from "./answer.js";
import { captionOf, Companions } from "./companions.js";
import { announce, byId, element, fill } from "./elements.js";
import { fetchAhead, valuesOf } from "./films.js";
import { HeatMap } from "./heat.js";
import { idOf } from "./marks.js";
import { Reader } from "./reader.js";
import { Surface } from "./surface.js";
import { sideOf } from "./words.js";

/** The view of one film at a time, out of `list`, a `Worklist`; `open(id)` leads to another. */
export class Reading {
  constructor(session, list, { open, onSaved }) {
    Object.assign(this, { session, list, open, onSaved });
    this.film = null;
    this.surface = new Surface("Film", { onChange: (surface) => this.readOut(surface) });
    this.caption = element("figcaption", {});
    this.figure = element("figure", { class: "film main" });
    this.figure.append(this.surface.element, this.caption);
    byId("surfaces").append(this.figure);
    this.companions = new Companions(this.figure, { onOpen: (film) => open(film.id) });
    this.heat = new HeatMap(byId("heat"), this.surface, session);
    this.reader = new Reader(session, { onSaved: (film, entry) => this.saved(film, entry), onNext: () => this.step(1) });
    const both = () => [this.surface, this.companions.surface];
    const buttons = {
      "tool-window": () => this.use("window"),
      "tool-move": () => this.use("move"),
      invert: () => both().forEach((surface) => surface.invert()),
      fit: () => both().forEach((surface) => surface.fit({ knee: false })),
      "fit-knee": () => both().forEach((surface) => surface.fit()),
      reset: () => both().forEach((surface) => surface.reset()),
      previous: () => this.step(-1),
      next: () => this.step(1),
    };
    for (const [id, act] of Object.entries(buttons)) byId(id).addEventListener("click", act);
  }

  use(tool) {
    for (const surface of [this.surface, this.companions.surface]) surface.tool = tool;
    for (const name of ["window", "move"]) byId(`tool-${name}`).setAttribute("aria-pressed", String(name === tool));
  }

  /** Show the film with this id, at `index` of the list where that is known. */
  async show(id, index = 0) {
    this.wanted = id;
    this.wantedAt = index;
    byId("film-trouble").hidden = true;
    if (this.film?.id !== id) this.clear(); // so that no key grades the film before
    try {
      const film = await api.oneFilm(id);
      if (this.wanted !== id) return;
      await this.list.film(index);
      if (this.wanted !== id) return;
      this.film = film;
      this.index = this.list.find(id, index);
      this.list.choose(id, Math.max(this.index, 0));
      this.describe();
      this.surface.element.focus({ preventScroll: true });
      announce([film.name, sideOf(film), film.status === "error" ? film.error : ""].filter(Boolean).join(", "));
      this.companions.follow(film);
      await Promise.all([this.showPixels(), this.lookAhead()]);
    } catch (error) {
      if (this.wanted === id) this.trouble(error.message);
    }
  }

  /** No film is open any more. */
  leave() {
    this.wanted = null;
    this.clear();
    this.list.choose(null);
  }

  clear() {
    this.film = null;
    for (const part of [this.reader, this.heat, this.companions]) part.follow(null);
    this.surface.show(null);
    for (const id of ["film-name", "film-place", "readout"]) byId(id).textContent = "";
    fill(byId("answer"));
    this.caption.textContent = "";
  }

  /** Try again to show a film that could not be had. */
  retry() {
    if (this.wanted && !this.film) this.show(this.wanted, this.wantedAt);
    else this.refresh().catch(() => {});
  }

  /** Say anew what is known of the film that is open. */
  describe() {
    const { film } = this;
    document.title = `${film.name} - LegRadNet reading room`;
    byId("film-name").textContent = film.name;
    byId("film-place").textContent = [
      this.index >= 0 ? `${(this.index + 1).toLocaleString("en")} of ${this.list.total.toLocaleString("en")}` : "",
      film.width ? `${film.width} × ${film.height}, ${film.depth} bit` : "",
    ].filter(Boolean).join(" · ");
    this.caption.textContent = captionOf(film) || "side unknown";
    byId("fit-knee").hidden = !film.box;
    showAnswer(byId("answer"), film, this.session);
    this.reader.follow(film);
  }

  async showPixels() {
    const { film } = this;
    if (film.status === "error") {
      this.heat.follow(film);
      return this.trouble(film.error);
    }
    const values = await valuesOf(film.id);
    if (this.film?.id !== film.id) return undefined;
    const { width, height, bits } = values;
    this.film = { ...this.film, width, height, depth: bits }; // the server may not have known before
    this.describe();
    this.surface.show({ ...values, box: film.box });
    this.heat.follow(this.film);
    return undefined;
  }

  async lookAhead() {
    const { film, index } = this;
    [this.before, this.after] = await Promise.all([this.list.film(index - 1), this.list.film(index + 1)]);
    byId("previous").disabled = !this.before;
    byId("next").disabled = !this.after;
    if (this.film === film && this.after && this.after.status !== "error") fetchAhead(this.after.id);
  }

  /** Go to the film after (1) or before (-1) in the list as it was when this one was opened. */
  step(way) {
    const film = way > 0 ? this.after : this.before;
    if (film) this.open(film.id, this.index + way);
    else announce(way > 0 ? "This is the last film." : "This is the first film.");
  }

  trouble(words) {
    byId("film-trouble").hidden = false;
    byId("film-trouble").textContent = words;
  }

  saved(film, entry) {
    this.onSaved(film);
    if (this.film?.id === film.id) {
      const wasShown = this.film.shown;
      this.film = { ...this.film, ...film };
      this.describe();
      if (film.shown !== wasShown) {
        this.heat.follow(this.film);
        this.companions.follow(this.film, true);
      }
    } else if (entry.kind === "undo") this.open(film.id); // so that it is seen what was taken back
  }

  /** Ask anew what is known of the film that is open, as when another reader has marked it. */
  async refresh() {
    const id = this.film?.id;
    if (!id) return;
    let film;
    try {
      film = await api.oneFilm(id);
    } catch (error) {
      const other = error.status === 404 ? await idOf(this.film) : null; // after a new start of the server
      if (other && this.film?.id === id) this.open(other, this.index);
      return;
    }
    if (this.film?.id !== id) return;
    const before = this.film;
    this.film = film;
    this.describe();
    if (before.status !== film.status) await this.showPixels();
    else if (before.shown !== film.shown || before.grade !== film.grade) this.heat.follow(film);
    if (before.patient_group !== film.patient_group) this.companions.follow(film);
  }

  readOut(surface) {
    byId("invert").setAttribute("aria-pressed", String(surface.inverted));
    const { level, width } = surface.window;
    const zoom = Math.round((100 * surface.placement.scale) / (window.devicePixelRatio || 1));
    byId("readout").textContent = `W ${Math.round(width)}  L ${Math.round(level)}  ${zoom} %`;
  }
}
