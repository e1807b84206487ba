// A film at every scale: each level has half the pixels a side of the one before, so that drawing costs what is seen.

const SMALLEST = 64; // pixels of the shorter side that need no further level

/**
 * The levels of a film, the whole one first: [{values, width, height}]. `values` is a Uint16Array or Uint8Array, row by
 * row; a pixel of a smaller level is the rounded mean of four.
 */
export function pyramid(values, width, height) {
  const levels = [{ values, width, height }];
  while (Math.min(width, height) > SMALLEST) {
    ({ values, width, height } = halved(values, width, height));
    levels.push({ values, width, height });
  }
  return levels;
}

function halved(values, width, height) {
  const [w, h] = [width >> 1, height >> 1];
  const half = new values.constructor(w * h);
  for (let y = 0, to = 0; y < h; y += 1) {
    let from = 2 * y * width;
    for (let x = 0; x < w; x += 1, from += 2, to += 1) {
      half[to] = (values[from] + values[from + 1] + values[from + width] + values[from + width + 1] + 2) >> 2;
    }
  }
  return { values: half, width: w, height: h };
}

/** The level to draw from when a pixel of the film is `scale` pixels of the screen: none is drawn enlarged by need. */
export function levelFor(levels, scale) {
  const wanted = Math.floor(Math.log2(1 / scale) + 1e-6);
  return Math.min(Math.max(wanted, 0), levels.length - 1);
}
