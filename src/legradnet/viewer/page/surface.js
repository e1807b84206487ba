// A film on a canvas: windowed, placed, with a heat map and the knee's square over it.

import { element } from "./elements.js";
import { listen } from "./gestures.js";
import { fitted, moved, zoomed } from "./placement.js";
import { levelFor, pyramid } from "./pyramid.js";
import { bounded, grays } from "./window_level.js";

const CRISP = 6; // pixels of the screen a pixel of the film, from where single pixels are shown as squares
const WHOLE_WINDOW = 600; // pixels of a drag over which the width doubles, or the level moves by a width
const KNEE_MARGIN = 0.06; // of the knee's square that is shown around it at first

/** One film. `tool` is what dragging does, "window" or "move"; `onChange` is called when its window or place changes. */
export class Surface {
  constructor(label, { onChange = () => {} } = {}) {
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.element = element("div", { class: "surface", tabindex: 0, role: "application", "aria-label": label });
    this.element.append(this.canvas);
    this.tool = "window";
    this.inverted = false;
    this.film = null;
    this.heat = null; // a canvas that is stretched over all of the film
    this.opacity = 0.5;
    this.onChange = onChange;
    this.drawn = 0;
    this.fits = null;
    this.part = document.createElement("canvas");
    new ResizeObserver(() => this.resize()).observe(this.element);
    listen(this.element, {
      tool: () => this.tool,
      window: (right, down) => this.dragWindow(right, down),
      move: (right, down) => this.place(moved, right, down),
      zoom: (factor, point) => this.place(zoomed, factor, point),
      whole: () => this.fit(),
    });
  }

  /**
   * Show a film: {values, width, height, bits, window: {level, width}, box: [x, y, side] of its knee, or null}; null
   * shows none. It is placed anew unless `keep` says that it is the same film.
   */
  show(film, { keep = false } = {}) {
    const [x, y, side] = film?.box ?? [];
    this.film = film && { ...film, box: film.box ? { x, y, side } : null };
    this.heat = null;
    if (film) {
      this.levels = pyramid(film.values, film.width, film.height);
      this.window = bounded(film.window, film.bits);
      if (!keep || !this.placement) this.fit();
    }
    this.redraw();
  }

  /** Lay a heat map over the film, a canvas; null takes it away. */
  lay(heat) {
    this.heat = heat;
    this.redraw();
  }

  /** Show all of the film, or its knee with `knee`. */
  fit({ knee = Boolean(this.film?.box) } = {}) {
    if (!this.film || !this.canvas.width) return;
    const { box, width, height } = this.film;
    const margin = knee ? KNEE_MARGIN * box.side : 0;
    const area = knee
      ? { x: box.x - margin, y: box.y - margin, width: box.side + 2 * margin, height: box.side + 2 * margin }
      : { x: 0, y: 0, width, height };
    this.placement = fitted(area, this.canvas);
    this.fits = { knee }; // until it is moved or zoomed
    this.redraw();
  }

  /** The window, placement and colours as they were when the film came. */
  reset() {
    if (!this.film) return;
    this.inverted = false;
    this.window = bounded(this.film.window, this.film.bits);
    this.fit();
  }

  invert() {
    this.inverted = !this.inverted;
    this.redraw();
  }

  setWindow(values) {
    this.window = bounded(values, this.film.bits);
    this.redraw();
  }

  dragWindow(right, down) {
    if (!this.film) return;
    const { level, width } = this.window;
    // by parts of what there is, so that films of 8 and of 16 bits feel alike: right widens, down darkens
    this.setWindow({ width: width * 2 ** (right / WHOLE_WINDOW), level: level + (down / WHOLE_WINDOW) * width });
  }

  place(change, ...by) {
    if (!this.film || !this.placement) return;
    this.placement = change(this.placement, ...by, this.film, this.canvas);
    this.fits = null;
    this.redraw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.element.clientWidth, this.element.clientHeight].map((side) => Math.round(side * ratio));
    if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
    const before = { width: this.canvas.width, height: this.canvas.height };
    Object.assign(this.canvas, { width, height });
    if (!this.placement || !before.width) this.fit();
    else if (this.fits) this.fit(this.fits);
    else {
      const scale = Math.min(width / before.width, height / before.height) || 1; // the middle stays in the middle
      const { left, top } = this.placement;
      this.placement = {
        scale: this.placement.scale * scale,
        left: width / 2 - (before.width / 2 - left) * scale,
        top: height / 2 - (before.height / 2 - top) * scale,
      };
    }
    this.redraw();
  }

  redraw() {
    if (!this.drawn) this.drawn = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawn = 0;
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.film || !this.placement || !this.canvas.width) return;
    const { scale, left, top } = this.placement;
    this.drawFilm(context, scale, left, top);
    if (this.heat) {
      context.globalAlpha = this.opacity;
      context.imageSmoothingEnabled = true;
      context.drawImage(this.heat, left, top, scale * this.film.width, scale * this.film.height);
      context.globalAlpha = 1;
    }
    if (this.film.box) this.drawSquare(context, scale, left, top);
    this.onChange(this);
  }

  /** The square of the knee that is graded, on its whole film: a light line between dark ones, seen on any gray. */
  drawSquare(context, scale, left, top) {
    const { x, y, side } = this.film.box;
    const ratio = window.devicePixelRatio || 1;
    for (const [width, colour] of [[4, "rgb(0 0 0 / 60%)"], [2, "#ffd54a"]]) {
      Object.assign(context, { lineWidth: width * ratio, strokeStyle: colour });
      context.strokeRect(left + scale * x, top + scale * y, scale * side, scale * side);
    }
  }

  drawFilm(context, scale, left, top) {
    const level = this.levels[levelFor(this.levels, scale)];
    const size = scale * (this.film.width / level.width); // of a pixel of the level, on the screen
    const first = (start) => Math.max(Math.floor(-start / size), 0);
    const last = (start, room, most) => Math.min(Math.ceil((room - start) / size), most);
    const [x0, y0] = [first(left), first(top)];
    const [x1, y1] = [last(left, this.canvas.width, level.width), last(top, this.canvas.height, level.height)];
    if (x1 <= x0 || y1 <= y0) return;
    const [width, height] = [x1 - x0, y1 - y0];
    const looks = grays(this.window, this.film.bits, this.inverted);
    const part = new ImageData(width, height);
    const pixels = new Uint32Array(part.data.buffer);
    for (let y = 0, to = 0; y < height; y += 1) {
      for (let x = 0, from = (y + y0) * level.width + x0; x < width; x += 1, from += 1, to += 1) {
        pixels[to] = looks[level.values[from]];
      }
    }
    Object.assign(this.part, { width, height });
    this.part.getContext("2d").putImageData(part, 0, 0);
    context.imageSmoothingEnabled = scale < CRISP;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.part, left + size * x0, top + size * y0, size * width, size * height);
  }
}
