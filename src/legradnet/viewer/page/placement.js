// Where a film lies on its surface: a pixel (x, y) of the film is at (left + scale * x, top + scale * y), in pixels of
// the screen. Each function gives a new placement and changes none.

const MOST = 32; // pixels of the screen a pixel of the film
const MARGIN = 48; // pixels of a film that always stay in sight

/** The whole of `area` {x, y, width, height}, of the film's pixels, in the middle of a surface. */
export function fitted(area, surface) {
  const scale = Math.min(surface.width / area.width, surface.height / area.height);
  return {
    scale,
    left: (surface.width - scale * area.width) / 2 - scale * area.x,
    top: (surface.height - scale * area.height) / 2 - scale * area.y,
  };
}

/** `factor` times as large, with what is at `point` {x, y} of the surface staying there. */
export function zoomed(placement, factor, point, film, surface) {
  const least = Math.min(fitted({ x: 0, y: 0, ...film }, surface).scale, 1) / 2;
  const scale = Math.min(Math.max(placement.scale * factor, least), MOST);
  const ratio = scale / placement.scale;
  const moved = {
    scale,
    left: point.x - ratio * (point.x - placement.left),
    top: point.y - ratio * (point.y - placement.top),
  };
  return kept(moved, film, surface);
}

/** Moved by pixels of the screen. */
export function moved(placement, right, down, film, surface) {
  return kept({ ...placement, left: placement.left + right, top: placement.top + down }, film, surface);
}

function kept(placement, film, surface) {
  const within = (start, length, room) => Math.min(Math.max(start, MARGIN - length), room - MARGIN);
  return {
    scale: placement.scale,
    left: within(placement.left, placement.scale * film.width, surface.width),
    top: within(placement.top, placement.scale * film.height, surface.height),
  };
}
