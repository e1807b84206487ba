// What a hand does on a film's surface: drag, wheel, pinch, keys; told in pixels of the screen.

const KEY_STEP = 40; // pixels that an arrow key moves a film, or a drag that it stands for
const KEY_ZOOM = 1.25;
const WHEEL_ZOOM = 0.0015; // a pixel of the wheel

/**
 * Listen on `surface`, an element, and tell `acts`: {tool(): "window" | "move", window(right, down), move(right, down),
 * zoom(factor, point), whole()}. The left button does what the tool says; another button, or Shift, does the other.
 */
export function listen(surface, acts) {
  const ratio = () => window.devicePixelRatio || 1;
  const pointers = new Map(); // of the fingers and buttons that are down: {x, y}
  let tool = null; // of the drag that goes on
  let several = false; // whether two fingers were down in it: the one that stays does nothing more

  const place = (event) => {
    const corner = surface.getBoundingClientRect();
    return { x: (event.clientX - corner.left) * ratio(), y: (event.clientY - corner.top) * ratio() };
  };
  const middle = () => {
    const all = [...pointers.values()];
    const mean = (axis) => all.reduce((sum, point) => sum + point[axis], 0) / all.length;
    const apart = all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0;
    return { x: mean("x"), y: mean("y"), apart };
  };

  surface.addEventListener("pointerdown", (event) => {
    surface.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    several = pointers.size > 1;
    const other = event.button > 0 || event.shiftKey;
    tool = other ? (acts.tool() === "window" ? "move" : "window") : acts.tool();
    surface.focus({ preventScroll: true });
  });
  surface.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = middle();
    pointers.set(event.pointerId, place(event));
    const after = middle();
    if (pointers.size > 1) {
      acts.move(after.x - before.x, after.y - before.y);
      if (before.apart > 0 && after.apart > 0) acts.zoom(after.apart / before.apart, after);
    } else if (!several) {
      acts[tool](after.x - before.x, after.y - before.y);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    surface.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  surface.addEventListener("contextmenu", (event) => event.preventDefault());
  surface.addEventListener("dblclick", () => acts.whole());
  surface.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
      acts.zoom(Math.exp(-WHEEL_ZOOM * pixels), place(event));
    },
    { passive: false },
  );
  surface.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const centre = { x: (surface.clientWidth * ratio()) / 2, y: (surface.clientHeight * ratio()) / 2 };
    if (ways[event.key]) {
      const [right, down] = ways[event.key].map((way) => way * KEY_STEP);
      if (event.shiftKey) acts.window(right, down);
      else acts.move(-right, -down);
    } else if (event.key === "+" || event.key === "=") acts.zoom(KEY_ZOOM, centre);
    else if (event.key === "-") acts.zoom(1 / KEY_ZOOM, centre);
    else return;
    event.preventDefault();
  });
}
