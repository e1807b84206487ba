// Marks on their way to the journal. A mark is shown as saved only when the server has answered that it is; one that it
// has not answered for is sent again until it has, also after the page was loaded anew in the same tab.

import * as api from "./api.js";

const KEPT = "legradnet marks on their way"; // in sessionStorage, which ends with the tab
const FIRST_WAIT = 500; // milliseconds until a lost connection is tried again
const LONGEST_WAIT = 5_000;

let waiting = []; // {kind: "mark" | "undo", id, name, knee, body, reader}, in the order in which they were given
let sending = false;
let reader = "";
let hear = () => {};

/**
 * Begin, for this reader. `listener({state, ...})` hears "saving", "saved" with {entry, answer}, "lost" with {count,
 * over, words}, "unknown" for an undo of which nobody knows whether it was heard, and "refused" with {entry, words}.
 */
export function begin(name, listener) {
  [reader, hear] = [name, listener];
  waiting = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]").filter((entry) => entry.reader === reader);
  window.addEventListener("beforeunload", (event) => {
    if (waiting.length) event.preventDefault();
  });
  sendAll();
}

/** How many marks are not saved yet. */
export const unsaved = () => waiting.length;

/** Give a film {id, name, knee} a mark: `body` as the server takes it. */
export const give = ({ id, name, knee }, body) => add({ kind: "mark", id, name, knee, body, reader });

/** Take back this reader's last mark. */
export const takeBack = () => add({ kind: "undo", id: null, body: {}, reader });

function add(entry) {
  waiting.push(entry);
  keep();
  hear({ state: "saving", entry });
  sendAll();
}

const keep = () => sessionStorage.setItem(KEPT, JSON.stringify(waiting));

async function sendAll() {
  if (sending) return;
  sending = true;
  let wait = FIRST_WAIT;
  while (waiting.length) {
    const [entry] = waiting;
    try {
      const answer = entry.kind === "undo" ? await api.undo() : await api.mark(entry.id, entry.body);
      done();
      hear({ state: "saved", entry, answer });
      wait = FIRST_WAIT;
    } catch (error) {
      if (entry.kind === "undo" && error instanceof api.LostConnection) {
        done(); // sent twice it might take back two
        hear({ state: "unknown", entry });
      } else if (error instanceof api.LostConnection || api.isOver(error) || error.status >= 500) {
        const words = error.status >= 500 ? error.message : ""; // as of a full disk
        hear({ state: "lost", count: waiting.length, over: api.isOver(error), words });
        await new Promise((resume) => setTimeout(resume, wait));
        wait = Math.min(2 * wait, LONGEST_WAIT);
      } else if (error.status === 404 && (await isElsewhere(entry))) {
        keep();
      } else {
        done();
        hear({ state: "refused", entry, words: error.message });
      }
    }
  }
  sending = false;
}

/** Whether the film is there by another id, as after a new start of the server; the entry then has that. */
async function isElsewhere(entry) {
  const id = await idOf(entry).catch(() => null);
  if (!id || id === entry.id) return false;
  entry.id = id;
  return true;
}

/** The id of the one film of this name and knee, or null. */
export async function idOf({ name, knee }) {
  const { items } = await api.films({ q: name, limit: 1000 });
  const same = items.filter((film) => film.name === name && film.knee === knee);
  return same.length === 1 ? same[0].id : null;
}

function done() {
  waiting.shift();
  keep();
}
