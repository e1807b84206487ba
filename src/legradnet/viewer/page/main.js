// The page: what is on it, and what it hears from the server.

import * as api from "./api.js";
import { listenToDrops } from "./dropping.js";
import { byId, element, fill } from "./elements.js";
import { Choice } from "./filters.js";
import { listenToKeys } from "./keys.js";
import * as marks from "./marks.js";
import { listenToProgress, showProgress } from "./progress.js";
import { Reading } from "./reading.js";
import { describeRows } from "./row.js";
import { exportLinks, showSummary } from "./summary.js";
import { count } from "./words.js";
import { Worklist } from "./worklist.js";

const REFRESH = 1_000; // milliseconds between two looks at a list that changes
const TRY_AGAIN = 2_000;

let session;
let list;
let reading;
let choice;
let indexWanted = 0; // where the film that the address names was in the list

const later = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

async function start() {
  showConnection();
  for (;;) {
    try {
      session = await api.session();
      break;
    } catch (error) {
      if (api.isOver(error)) return ended();
      await later(TRY_AGAIN);
    }
  }
  describeRows(session);
  list = new Worklist(byId("scroller"), byId("rows"), {
    load: (offset, limit) => api.films({ offset, limit, ...choice.query }),
    onOpen: (film, index) => open(film.id, index),
    onTotal: showTotal,
  });
  const parts = { headings: byId("headings"), sort: byId("sort"), form: byId("filters"), toggle: byId("show-filters"), clear: byId("clear-filters") };
  choice = new Choice(parts, session, () => list.restart().catch(() => {}));
  reading = new Reading(session, list, { open, onSaved: (film) => list.update(film.id, rowOf(film)) });
  byId("who").textContent = session.reader;
  byId("who").title = `Reader ${session.reader}${session.study ? `, ${session.study} study` : ""}`;
  byId("about").textContent = [session.model, `LegRadNet ${session.version}`, session.study ? `${session.study} study` : ""].filter(Boolean).join(" · ");
  fill(byId("export-links"), ...exportLinks(session));
  showProgress(session);
  listenToProgress(heard);
  listenToKeys(reading, () => (location.hash = "#/"));
  listenToDrops(session, () => refreshSoon());
  window.addEventListener("hashchange", route);
  document.addEventListener("click", (event) => {
    if (!byId("export").contains(event.target)) byId("export").open = false;
  });
  await list.restart().catch(() => {});
  route();
  listen();
  return undefined;
}

/** The part of a whole film that a row of the list has. */
function rowOf(film) {
  const { probabilities, expected_grade, gate_weights, reasons, other_knee, earlier, ...row } = film;
  return row;
}

function open(id, index = list.find(id)) {
  indexWanted = Math.max(index, 0);
  location.hash = `#/film/${encodeURIComponent(id)}`;
}

function route() {
  const [, page, id] = location.hash.split("/");
  const view = page === "film" && id ? "reading" : page === "summary" ? "summary" : "worklist";
  document.body.dataset.view = view;
  byId("reading").hidden = view !== "reading";
  byId("summary").hidden = view !== "summary";
  for (const [link, on] of [["to-films", view !== "summary"], ["to-summary", view === "summary"]]) {
    if (on) byId(link).setAttribute("aria-current", "page");
    else byId(link).removeAttribute("aria-current");
  }
  if (view === "reading") reading.show(decodeURIComponent(id), indexWanted);
  else {
    const index = list.focused;
    const wasReading = Boolean(reading.film);
    if (wasReading) reading.leave();
    document.title = "LegRadNet reading room";
    if (view === "summary") showSummary(byId("summary-body"), session).then(() => byId("main").focus());
    else list.focus(index, { only: !wasReading });
  }
  list.draw();
}

function showTotal(total) {
  byId("list-count").textContent = count(total, "film");
  byId("grid").setAttribute("aria-rowcount", total + 1);
  byId("grid").hidden = !total;
  byId("empty").hidden = Boolean(total);
  byId("add-first").hidden = choice.isFiltered;
  byId("empty-words").textContent = choice.isFiltered ? "No film passes this filter." : "There are no films yet.";
}

let refreshing = false;
let refreshAgain = false;

/** Look at the list anew, at most once in a while however much is heard. */
async function refreshSoon() {
  refreshAgain = true;
  if (refreshing) return;
  refreshing = true;
  while (refreshAgain) {
    refreshAgain = false;
    await list.refresh().catch(() => {}); // told by the connection
    await later(REFRESH);
  }
  refreshing = false;
}

let revision;

function heard(news) {
  const { ready } = session;
  Object.assign(session, news);
  showProgress(session);
  if (news.revision !== undefined && news.revision !== revision) {
    revision = news.revision;
    refreshSoon();
  }
  if (news.ready && !ready) {
    api.session().then((now) => {
      Object.assign(session, now);
      reading.heat.describe(session);
      reading.heat.follow(reading.film);
    });
  }
}

/** Hear what changes, for as long as the page is open, from whatever server is at its address. */
function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("open", () => connected(true));
  events.addEventListener("progress", (event) => heard(JSON.parse(event.data)));
  events.addEventListener("film", (event) => {
    refreshSoon();
    if (JSON.parse(event.data).id === reading.film?.id && !marks.unsaved()) reading.refresh().catch(() => {});
  });
  events.addEventListener("error", async () => {
    connected(false);
    events.close();
    await later(TRY_AGAIN);
    try {
      heard(await api.session());
      refreshSoon();
      reading.retry();
    } catch (error) {
      if (api.isOver(error)) ended();
    }
    listen();
  });
}

function showConnection() {
  api.onConnection(connected);
}

function connected(there) {
  const lost = byId("lost");
  if (there) lost.hidden = true;
  else if (lost.hidden) {
    lost.textContent = "The connection to LegRadNet is lost. Trying again; what was shown as saved is safe.";
    lost.hidden = false;
  }
}

function ended() {
  const lost = byId("lost");
  lost.hidden = false;
  fill(lost, "This session has ended. Open the address that ", element("code", {}, "legradnet-view"), " prints in this tab; marks that are not saved yet are then sent.");
}

start();
