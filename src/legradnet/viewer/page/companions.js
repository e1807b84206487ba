// Films of the same patient: the other knee and earlier films, one of them side by side with the film that is open.

import * as api from "./api.js";
import { byId, element, fill } from "./elements.js";
import { valuesOf } from "./films.js";
import { thumbnail } from "./row.js";
import { Surface } from "./surface.js";
import { markOf, probability, sideOf } from "./words.js";

const MOST = 12; // films of a patient that are offered
const WIDE = window.matchMedia("(min-width: 1200px)");

/** The line under a film: its side, and what was said of it as far as the reader may know. */
export function captionOf(film) {
  const answer = film.shown && film.grade !== null ? `grade ${film.grade} (${probability(film.probability)})` : "";
  const mark = film.mark ? `your mark ${markOf(film.mark)}` : "";
  return [sideOf(film), answer, mark].filter(Boolean).join(", ");
}

/** The panel "Same patient", and the second surface beside `main`, a figure. `onOpen(film)` opens another film. */
export class Companions {
  constructor(main, { onOpen }) {
    Object.assign(this, { main, onOpen });
    this.surface = new Surface("Film beside it");
    this.name = element("span", { class: "name" });
    this.caption = element("span", { class: "quiet" });
    this.openIt = element("button", { type: "button", class: "small", on: { click: () => this.onOpen(this.beside) } }, "Open");
    this.figure = element("figure", { class: "film second", hidden: true });
    this.figure.append(this.surface.element, element("figcaption", {}, this.name, this.caption, this.openIt));
    this.wanted = WIDE.matches; // side by side, until the reader says otherwise
    byId("beside").addEventListener("click", () => this.turn());
  }

  /** Follow to another film; its relatives are asked for. */
  async follow(film, keep = false) {
    this.film = film;
    if (!keep) {
      this.show(null);
      byId("patient-panel").hidden = true;
      byId("beside").hidden = true;
    }
    const kin = film ? [...film.other_knee.map((id) => [id, "other knee"]), ...film.earlier.map((id) => [id, "earlier"])] : [];
    const asked = await Promise.allSettled(kin.slice(0, MOST).map(([id]) => api.oneFilm(id)));
    if (film !== this.film) return;
    this.kin = asked.flatMap(({ value }, i) => (value ? [{ ...value, kinship: kin[i][1] }] : []));
    byId("patient-panel").hidden = !this.kin.length;
    byId("beside").hidden = !this.kin.length;
    this.drawList();
    if (this.wanted && !this.beside && this.kin.length) this.show(this.kin[0]);
    this.pressed();
  }

  drawList() {
    const items = this.kin.map((film) => {
      const chosen = film.id === this.beside?.id;
      const words = element("span", { class: "kin-words" }, element("span", { class: "name" }, film.name), element("span", { class: "quiet" }, [film.kinship, captionOf(film)].filter(Boolean).join(": ")));
      const act = () => this.show(chosen ? null : film);
      return element("button", { type: "button", class: "kin", "aria-pressed": String(chosen), on: { click: act } }, thumbnail(film), words);
    });
    fill(byId("patient"), ...items);
  }

  turn() {
    if (!this.kin?.length) return;
    this.wanted = !this.beside;
    this.show(this.beside ? null : this.kin[0]);
  }

  pressed() {
    byId("beside").setAttribute("aria-pressed", String(Boolean(this.beside)));
  }

  /** Stand `film` beside the one that is open; null for none. */
  async show(film) {
    this.beside = film;
    this.figure.hidden = !film;
    this.pressed();
    if (this.kin) this.drawList();
    if (!film) return;
    // as one looks at a patient: the right knee on the left, the earlier film on the left
    const before = film.kinship === "earlier" || (sideOf(film) === "right" && sideOf(this.film) === "left");
    if (before) this.main.before(this.figure);
    else this.main.after(this.figure);
    this.name.textContent = film.name;
    this.caption.textContent = captionOf(film);
    this.surface.element.setAttribute("aria-label", `${film.kinship}: ${film.name}`);
    this.surface.show(null);
    try {
      const values = await valuesOf(film.id);
      if (this.beside === film) this.surface.show({ ...values, box: film.box });
    } catch (error) {
      if (this.beside === film) this.caption.textContent = error.message;
    }
  }
}
