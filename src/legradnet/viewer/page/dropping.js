// Films that a reader brings: dropped files and folders, or chosen ones, sent one after the other.

import * as api from "./api.js";
import { byId, element, fill } from "./elements.js";
import { count } from "./words.js";

const AT_ONCE = 2; // uploads
const TRIES = 20; // of a file while the connection is lost
const LISTED = 200; // sent files that are named; all with an error are

const waiting = []; // {name, file}
const tally = { sent: 0, there: 0, failed: 0 };
let going = 0;
let limit = Infinity;

/** Take films from now on. `onAdded(id)` hears of each that the server has. */
export function listenToDrops(session, onAdded) {
  limit = session.upload_limit;
  byId("add").hidden = Boolean(session.words.adding);
  const shade = byId("drop");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (hasFiles(event)) shade.hidden = false;
  });
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) shade.hidden = true;
  });
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    shade.hidden = true;
    take(await filesOf(event.dataTransfer), onAdded);
  });
  for (const id of ["files", "folder"]) {
    byId(id).addEventListener("change", () => {
      const chosen = [...byId(id).files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
      byId(id).value = ""; // so that the same may be chosen again
      take(chosen, onAdded);
    });
  }
  for (const id of ["add", "add-first"]) byId(id).addEventListener("click", choose);
  byId("added-close").addEventListener("click", () => (byId("added").hidden = true));
}

function choose() {
  const dialog = byId("choose");
  const way = (words, id) => {
    const act = () => {
      dialog.close();
      byId(id).click();
    };
    return element("button", { type: "button", class: "wide", on: { click: act } }, words);
  };
  fill(
    dialog,
    element("h2", { id: "choose-title" }, "Add films"),
    element("p", { class: "quiet" }, "PNG, JPEG, TIFF, BMP or DICOM. They go to the program that shows this page, and nowhere else. You can also drop files and folders on the page."),
    element("div", { class: "ways" }, way("Files", "files"), way("A folder", "folder")),
    element("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"),
  );
  dialog.showModal();
}

/** All files of a drop, those of folders too, with their names inside the folder: [{name, file}]. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ name: file.name, file }));
  const files = [];
  while (entries.length) {
    const entry = entries.shift();
    const name = entry.fullPath.replace(/^\//, "");
    if (entry.isDirectory) {
      const reader = entry.createReader();
      let some;
      do {
        some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
        entries.push(...some);
      } while (some.length); // a folder is told by hundreds
    } else {
      const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
      if (file) files.push({ name, file });
      else tell(name, "it can't be read", "failed");
    }
  }
  return files.filter(({ name }) => !name.split("/").at(-1).startsWith(".")); // what systems put beside films
}

function take(files, onAdded) {
  if (!files.length) return;
  byId("added").hidden = false;
  waiting.push(...files.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true })));
  showCount();
  while (going < AT_ONCE && going < waiting.length) send(onAdded);
}

async function send(onAdded) {
  going += 1;
  while (waiting.length) {
    const { name, file } = waiting.shift();
    try {
      if (file.size > limit) throw new api.Refusal(413, `it is larger than ${Math.floor(limit / 2 ** 20)} MB`);
      if (!file.size) throw new api.Refusal(400, "it is empty");
      onAdded((await patiently(() => api.upload(name, file))).id);
      tally.sent += 1;
      tell(name, "added", "sent");
    } catch (error) {
      tell(name, error.message, "failed");
    }
    showCount();
  }
  going -= 1;
  showCount();
}

async function patiently(ask) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof api.LostConnection) || tried === TRIES) throw error;
      await new Promise((resume) => setTimeout(resume, Math.min(500 * tried, 5000)));
    }
  }
}

function tell(name, words, kind) {
  if (kind === "failed") tally.failed += 1;
  const list = byId("added-files");
  const line = element("li", { class: kind }, element("span", { class: "name", title: name }, name), element("span", {}, words));
  if (kind === "failed") list.prepend(line);
  else {
    list.append(line);
    const sent = list.querySelectorAll("li.sent");
    if (sent.length > LISTED) sent[0].remove();
  }
}

function showCount() {
  const parts = [`${tally.sent.toLocaleString("en")} added`];
  if (waiting.length + going) parts.push(`${(waiting.length + going).toLocaleString("en")} to go`);
  if (tally.failed) parts.push(`${count(tally.failed, "file")} failed`);
  byId("added-count").textContent = parts.join(", ");
}
