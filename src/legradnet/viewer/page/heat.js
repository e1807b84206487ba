// The heat map: where the evidence for the grade lies, computed when it is asked for.

import * as api from "./api.js";
import { element, fill, setOptions } from "./elements.js";

// matplotlib's inferno, as the pictures of legradnet-explain have it, at ten even steps
const INFERNO = [
  [0, 0, 4], [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96],
  [207, 68, 70], [237, 105, 37], [251, 155, 6], [247, 209, 61], [252, 255, 164],
]; // prettier-ignore

const FUSED = "fused";

function inferno(strength) {
  const place = strength * (INFERNO.length - 1);
  const below = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[below].map((channel, i) => channel + (place - below) * (INFERNO[below + 1][i] - channel));
}

/** A picture of grays as a canvas of colours: the weaker the evidence, the more of the film is seen through it. */
export function coloured(picture) {
  const canvas = element("canvas", { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = Array.from({ length: 256 }, (_, gray) => [...inferno(gray / 255), 255 * Math.sqrt(gray / 255)]);
  let speaks = false;
  for (let at = 0; at < image.data.length; at += 4) {
    speaks ||= image.data[at] > 0;
    image.data.set(colours[image.data[at]], at);
  }
  context.putImageData(image, 0, 0);
  return { canvas, speaks };
}

/** The panel with its choices, which lays maps over `surface`. */
export class HeatMap {
  constructor(parent, surface, session) {
    Object.assign(this, { parent, surface });
    this.film = null;
    this.shown = false; // wanted for this film and those that follow
    this.method = "";
    this.backbone = FUSED;
    this.describe(session);
  }

  /** Offer what this session's model can explain. */
  describe({ methods, backbones, words }) {
    if (!methods.length) {
      this.offered = false;
      fill(this.parent, element("p", { class: "quiet" }, words.maps || "Heat maps come when the model is loaded."));
      return;
    }
    if (this.offered) return;
    this.offered = true;
    this.method ||= methods[0].name;
    this.toggle = element("button", { type: "button", "aria-pressed": "false", "aria-keyshortcuts": "h", class: "wide", on: { click: () => this.turn() } }, "Show heat map");
    const method = element("select", { name: "method", on: { change: () => this.choose({ method: method.value }) } });
    setOptions(method, methods.map(({ name, slow }) => [name, slow ? `${name} (slow)` : name]), this.method);
    const backbone = element("select", { name: "backbone", on: { change: () => this.choose({ backbone: backbone.value }) } });
    setOptions(backbone, [[FUSED, "all, fused"], ...backbones.map((key) => [key, key])], this.backbone);
    const opacity = element("input", { type: "range", name: "opacity", min: 0, max: 100, value: 100 * this.surface.opacity });
    opacity.addEventListener("input", () => {
      this.surface.opacity = opacity.value / 100;
      this.surface.redraw();
    });
    this.words = element("p", { class: "quiet", role: "status" });
    this.scale = element("div", { class: "heat-scale", hidden: true });
    const choices = element("div", { class: "fields" });
    choices.append(element("label", {}, "Method", method), element("label", {}, "Backbone", backbone));
    fill(this.parent, this.toggle, choices, element("label", { class: "range" }, "Opacity", opacity), this.scale, this.words);
  }

  /** Follow to another film, or to its answer; null while there is none. */
  follow(film) {
    this.film = film;
    this.surface.lay(null);
    this.asked?.abort();
    if (!this.offered) return;
    this.say("");
    this.scale.hidden = true;
    const why = film && (film.shown ? film.grade === null && "No heat map of a knee without a grade." : "Hidden until you have graded.");
    this.toggle.disabled = !film || Boolean(why);
    if (why) this.say(why);
    else if (film && this.shown) this.ask();
  }

  turn() {
    if (!this.offered || this.toggle.disabled) return;
    this.shown = !this.shown;
    this.toggle.setAttribute("aria-pressed", String(this.shown));
    this.toggle.textContent = this.shown ? "Hide heat map" : "Show heat map";
    this.follow(this.film);
  }

  choose(choice) {
    Object.assign(this, choice);
    if (this.shown) this.follow(this.film);
  }

  say(words) {
    this.words.textContent = words;
  }

  async ask() {
    const asked = new AbortController();
    this.asked = asked;
    const begin = performance.now();
    this.say("Computing the heat map …");
    try {
      const { picture, scale, share } = await api.heatMap(this.film.id, this.method, this.backbone, asked.signal);
      if (asked.signal.aborted) return;
      const { canvas, speaks } = coloured(picture);
      this.surface.lay(canvas);
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      const part = share !== null && this.backbone !== FUSED ? ` Its share of the fused map is ${share.toFixed(2)}.` : "";
      this.say(speaks ? `Computed in ${seconds} s.${part}` : "Nothing speaks for this grade here.");
      this.scale.hidden = !speaks;
      fill(this.scale, element("span", { class: "ramp", "aria-hidden": "true" }), element("span", {}, `0 to ${(scale ?? 0).toFixed(1)} times an even spread`));
    } catch (error) {
      if (!asked.signal.aborted) this.say(`No heat map: ${error.message}`);
    }
  }
}
