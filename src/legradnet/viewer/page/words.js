// How the page says what predictions.csv and README say.

const SIDES = { R: "right", L: "left" };
const KL = ["none", "doubtful", "minimal", "moderate", "severe"]; // Kellgren and Lawrence 1957

/** A probability, as 0.61. */
export const probability = (value) => value.toFixed(2);

/** "right" or "left"; "" where nobody knows. */
export const sideOf = (film) => SIDES[film.knee || film.side] ?? "";

/** What a grade of `classes` is called: Kellgren and Lawrence's word for it, or none. */
export const gradeWord = (grade, classes) => (classes === KL.length ? KL[grade] : "");

/** A reader's mark as a person says it. */
export const markOf = (mark) => (mark.ungradable ? "ungradable" : String(mark.grade));

/** A reader's mark in one letter, which is also its key. */
export const markKey = (mark) => (mark.ungradable ? "u" : String(mark.grade));

/** A prediction set as predictions.csv has it, "1 2". */
export const setOf = (grades) => (grades ?? []).join(" ");

/** So many of something: count(1, "film") is "1 film". */
export const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

/** A time of the day, as 14:03:22. */
export const clock = (date) => date.toLocaleTimeString("en-GB");
