// How far the grading behind the page is, and what a reader may tell it.

import * as api from "./api.js";
import { announce, byId } from "./elements.js";
import { count } from "./words.js";

const WORDS = { grading: "Grading", paused: "Paused at", stopped: "Stopped at", done: "Graded" };

let told = null; // the state that a screen reader was told last

/** Show {total, finished, graded, failed, state, error} of the session or of an event. */
export function showProgress({ total, finished, graded, failed, state, error, ready }) {
  const bar = byId("progress-bar");
  bar.max = Math.max(total, 1);
  bar.value = finished;
  const number = (value) => value.toLocaleString("en");
  const place = `${WORDS[state]} ${number(state === "done" ? graded : finished)} of ${number(total)}`;
  const words = ready ? place : "Loading the model";
  byId("progress-words").textContent = total ? words : "No films yet";
  byId("progress-failed").textContent = failed ? `${count(failed, "error")}` : "";
  if (told !== null && told !== state && state !== "grading") announce(words);
  told = state;
  const ongoing = total > 0 && (state === "grading" || state === "paused");
  for (const name of ["pause", "stop"]) byId(name).hidden = !ongoing;
  byId("pause").textContent = state === "paused" ? "Go on" : "Pause";
  byId("pause").dataset.action = state === "paused" ? "resume" : "pause";
  byId("progress").classList.toggle("ongoing", state === "grading");
  byId("grading-error").hidden = !error;
  byId("grading-error").textContent = error ? `Grading has ended: ${error}` : "";
}

/** Have the buttons work; `onChange(session)` hears the server's answer. */
export function listenToProgress(onChange) {
  const act = async (action) => {
    try {
      onChange(await api.grading(action));
    } catch (error) {
      announce(`Grading could not be changed: ${error.message}`);
    }
  };
  byId("pause").addEventListener("click", () => act(byId("pause").dataset.action));
  byId("stop").addEventListener("click", () => act("stop"));
}
