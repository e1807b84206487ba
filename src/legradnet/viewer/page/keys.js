// The keys, one table for what they do and for the page that lists them.

import { byId, element, fill, isTyping } from "./elements.js";

const LISTED = [
  ["0 – 4", "your grade"],
  ["u", "ungradable"],
  ["Space, Shift Space", "next film, previous film"],
  ["z", "undo your last mark"],
  ["n", "note; Enter or Escape leaves it"],
  ["a", "in a study: accept the model's grade"],
  ["h", "heat map"],
  ["i, f, r", "invert, fit, reset"],
  ["k", "the knee on a film of both"],
  ["b", "side by side with another film of the patient"],
  ["w, m", "dragging changes window and level, or moves the film"],
  ["Arrows", "move the film, or through the list"],
  ["Shift Arrows", "window (left, right) and level (up, down)"],
  ["+, -", "zoom"],
  ["Enter", "open the film of the list"],
  ["Escape", "back to the list"],
  ["?", "these keys"],
];

/** Listen to keys; `reading` is the view of a film, `goToList()` leads to the list. */
export function listenToKeys(reading, goToList) {
  const press = (id) => () => byId(id).click();
  const acts = {
    " ": (event) => reading.step(event.shiftKey ? -1 : 1),
    u: () => reading.reader.give({ grade: null, ungradable: true }),
    a: () => reading.reader.accept(),
    n: () => byId("note").focus(),
    h: () => reading.heat.turn(),
    i: press("invert"),
    f: press("fit"),
    k: press("fit-knee"),
    r: press("reset"),
    b: () => reading.companions.turn(),
    w: press("tool-window"),
    m: press("tool-move"),
    Escape: goToList,
  };
  for (const grade of reading.session.classes) acts[String(grade)] = () => reading.reader.give({ grade, ungradable: false });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event)) return;
    if (event.repeat) return; // one press is one mark, and one film
    const pressesButton = event.key === " " && event.target.closest?.("button, summary, input, a");
    if (pressesButton) return;
    let act = null;
    if (event.key === "?") act = showKeys;
    else if (event.key === "z") act = () => reading.reader.undo();
    else if (reading.wanted) act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
  byId("show-keys").addEventListener("click", showKeys);
}

function showKeys() {
  const dialog = byId("keys");
  if (dialog.open) return;
  const rows = LISTED.map(([key, words]) => element("tr", {}, element("th", { scope: "row" }, element("kbd", {}, key)), element("td", {}, words)));
  const table = element("table", { class: "key-table" });
  table.append(element("tbody", {}, ...rows));
  const close = element("button", { type: "button", class: "primary", on: { click: () => dialog.close() } }, "Close");
  fill(dialog, element("h2", { id: "keys-title" }, "Keys"), table, element("p", { class: "quiet" }, "Mouse: drag for window and level, drag with Shift or the right button to move, wheel to zoom, double click to fit. Fingers: one drags, two move and zoom."), close);
  dialog.showModal();
}
