// Films that were read or will be in a moment: their values stay a while, so that going back and forth takes no time.

import * as api from "./api.js";

const KEPT = 4; // films: the one that is open, one beside it, the next and the last

const known = new Map(); // id -> promise of values, the last used last

/** The values of a film, as `api.pixels` has them. */
export function valuesOf(id) {
  const there = known.get(id) ?? api.pixels(id);
  known.delete(id);
  known.set(id, there);
  there.catch(() => known.delete(id)); // so that the next try asks again
  for (const old of [...known.keys()].slice(0, -KEPT)) known.delete(old);
  return there;
}

/** Have a film ready that will be wanted next. */
export function fetchAhead(id) {
  valuesOf(id).catch(() => {}); // told when it is looked at
}
