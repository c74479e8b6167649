/** Thumbnails of images: requested while somebody wants them, cancelled when nobody does. */

import { request } from "./api.js";

const AT_ONCE = 4; // of a browser's six connections to a server: one has the events
const STORED = 1000; // thumbnails in memory, of about 10 kB each

const stored = new Map(); // id -> address of a Blob, or null for an unreadable image
const wanted = new Map(); // id -> {callbacks, controller or null if it waits}
let running = 0;

/** Call `callback(address)` when the thumbnail has loaded (null: unreadable). Returns a function that cancels. */
export function wantThumbnail(id, version, callback) {
  if (stored.has(id)) {
    const address = stored.get(id);
    stored.delete(id); // the last in the map is the newest
    stored.set(id, address);
    callback(address);
    return () => {};
  }
  const entry = wanted.get(id) ?? { version, callbacks: new Set(), controller: null };
  entry.callbacks.add(callback);
  wanted.set(id, entry);
  start();
  return () => {
    entry.callbacks.delete(callback);
    if (entry.callbacks.size > 0 || wanted.get(id) !== entry) return;
    wanted.delete(id);
    entry.controller?.abort();
  };
}

/** Request the thumbnails that could not be loaded while the server was away. */
export function retryThumbnails() {
  start();
}

/** Return the numbers of waiting and of running requests. */
export function thumbnailLoad() {
  return { waiting: wanted.size - running, running };
}

function start() {
  for (const [id, entry] of wanted) {
    if (running >= AT_ONCE) return;
    if (entry.controller === null) load(id, entry);
  }
}

async function load(id, entry) {
  running++;
  entry.controller = new AbortController();
  let goesOn = true;
  try {
    const options = { signal: entry.controller.signal };
    const response = await request("GET", `/api/thumbnails/${id}?v=${entry.version}`, options);
    finish(id, entry, URL.createObjectURL(await response.blob()));
  } catch (error) {
    entry.controller = null;
    if (error.status >= 400 && error.status < 500) finish(id, entry, null);
    else goesOn = error.name === "AbortError"; // the server is away: wait for retryThumbnails
  }
  running--;
  if (goesOn) start();
}

function finish(id, entry, address) {
  if (wanted.get(id) === entry) wanted.delete(id);
  stored.set(id, address);
  for (const callback of entry.callbacks) callback(address);
  if (stored.size <= STORED) return;
  const [oldest, forgotten] = stored.entries().next().value;
  stored.delete(oldest);
  if (forgotten !== null) URL.revokeObjectURL(forgotten);
}
