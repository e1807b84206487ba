// Window and level: which of a film's values are black, which white, and all between in a straight line
// (DICOM PS3.3 C.11.2.1.2, LINEAR_EXACT: level -+ half a width are the ends).

/** The window {level, width} kept where it means something for values of so many bits. */
export function bounded({ level, width }, bits) {
  const most = 2 ** bits;
  return { level: Math.min(Math.max(level, 0), most), width: Math.min(Math.max(width, 1), 2 * most) };
}

/**
 * What each value looks like: Uint32Array [2 ** bits] of opaque grays, as the bytes of an ImageData are laid out.
 * Inverted, black and white change places.
 */
export function grays({ level, width }, bits, inverted) {
  const table = new Uint32Array(2 ** bits);
  const lowest = level - width / 2;
  for (let value = 0; value < table.length; value += 1) {
    const part = Math.min(Math.max((value - lowest) / width, 0), 1);
    const gray = Math.round(255 * (inverted ? 1 - part : part));
    table[value] = 0xff000000 | (gray << 16) | (gray << 8) | gray; // of bytes alike, so either byte order will do
  }
  return table;
}
