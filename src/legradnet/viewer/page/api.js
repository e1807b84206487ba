// What the page asks of the server that it came from, and of nobody else.

const PATIENCE = 20_000; // milliseconds after which an unanswered question counts as a lost connection
const SLOW = 120_000; // for what is computed when it is asked for, as heat maps

/** The server said no, in its own words. `status` is HTTP's. */
export class Refusal extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

/** There was no answer. */
export class LostConnection extends Error {}

/** The session is over, as after a new start of the command: another address is needed. */
export const isOver = (error) => error instanceof Refusal && error.status === 401;

const listeners = new Set();

/** Call `listener(true)` when an answer comes and `listener(false)` when a question stays without one. */
export const onConnection = (listener) => listeners.add(listener);

async function send(path, { patience = PATIENCE, signal, ...options } = {}) {
  const signals = [AbortSignal.timeout(patience), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.any(signals), cache: options.cache ?? "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    for (const listener of listeners) listener(false);
    throw new LostConnection("the connection is lost");
  }
  if (response.status !== 401) for (const listener of listeners) listener(true);
  if (!response.ok) throw new Refusal(response.status, await refusalOf(response));
  return response;
}

async function refusalOf(response) {
  const said = await response.text().catch(() => "");
  try {
    return JSON.parse(said).error ?? said;
  } catch {
    return said || `the server answered ${response.status}`;
  }
}

const query = (values) => {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
};
const json = async (response) => (await response).json();
const post = (path, body) =>
  json(send(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));
const film = (id) => `/api/films/${encodeURIComponent(id)}`;

export const session = () => json(send("/api/session"));
export const films = (values) => json(send(`/api/films${query(values)}`));
export const oneFilm = (id, signal) => json(send(film(id), { signal }));
export const grading = (action) => post("/api/grading", { action });
export const mark = (id, body) => post(`${film(id)}/mark`, body);
export const undo = () => post("/api/undo", {});
export const table = (path) => send(path);
export const summary = () => json(send("/api/summary", { patience: SLOW }));

/** Send a dropped file; the answer tells what became of it. */
export const upload = (name, file) => {
  const headers = { "Content-Type": "application/octet-stream" };
  return json(send(`/films${query({ name })}`, { method: "PUT", body: file, patience: SLOW, headers }));
};

/**
 * The values of a film as it is shown: {values: Uint16Array, width, height, bits, window: {level, width}}. A film that
 * was looked at before comes from the browser's cache, if the server allows it.
 */
export async function pixels(id, signal) {
  const response = await send(`${film(id)}/pixels`, { signal, patience: SLOW, cache: "default" });
  const number = (name) => Number(response.headers.get(name));
  const bytes = await response.arrayBuffer();
  return {
    values: new Uint16Array(bytes),
    width: number("X-Width"),
    height: number("X-Height"),
    bits: number("X-Bits"),
    window: { level: number("X-Window-Center"), width: number("X-Window-Width") },
  };
}

/** A heat map: {picture: ImageBitmap of grays, scale: what white means, as a multiple of an even spread, share}. */
export async function heatMap(id, method, backbone, signal) {
  const response = await send(`${film(id)}/map${query({ method, backbone })}`, { signal, patience: SLOW, cache: "default" });
  const number = (name) => (response.headers.has(name) ? Number(response.headers.get(name)) : null);
  return { picture: await createImageBitmap(await response.blob()), scale: number("X-Scale"), share: number("X-Share") };
}
