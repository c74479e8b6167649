/**
 * The state of the page: the server's data with the changes made here, and the connection.
 *
 * A change of labels is shown at once and sent in the background, in order. While the server cannot
 * be reached, changes wait; they are sent when it is back.
 */

import { ask, listen } from "./api.js";
import { retryThumbnails } from "./thumbnails.js";

export const store = {
  project: null, // as returned by GET /api/project
  images: null, // columns, see toColumns
  jobs: [], // newest first
  epochs: {}, // rows of the history by the id of the training's job
  findings: null,
  runs: [],
  sources: [], // folders and tables with images that are not in the project, see findNewImages
  connection: "on", // "on", "off", "refused"
  waiting: 0, // number of changes that have not been sent yet
  message: "", // the last action
  command: "", // the command that does the same
  error: "",
  filter: { kind: "all", value: null, query: "", sort: "added" },
};

const outbox = []; // {path, json}
const subscribers = new Set();
let isPlanned = false;
let isSending = false;
const LOOK_PAUSE = 3000; // milliseconds between two searches for new images
const LOOK_SHARE = 20; // the pause as a multiple of the time that the last search took
let findingsRevision = -1; // of the project when the findings were loaded

/** Call a function after every change of the store. */
export function subscribe(callback) {
  subscribers.add(callback);
  return () => subscribers.delete(callback);
}

/** Change the store and show it. */
export function set(changes) {
  Object.assign(store, changes);
  if (isPlanned) return;
  isPlanned = true;
  queueMicrotask(() => {
    isPlanned = false;
    for (const callback of subscribers) callback();
  });
}

/** Load everything, and follow the server's events. */
export async function start() {
  await reload();
  listen(onEvent, onConnection);
  findNewImages();
  addEventListener("focus", () => findNewImages());
}

function onEvent(event, data) {
  if (event === "project") {
    refreshSoon();
  } else if (event === "job") {
    showJob(data);
    if (!isActive(data)) attempt(loadResults);
  } else if (event === "epoch") {
    const rows = store.epochs[data.job] ?? [];
    const others = rows.filter((row) => row.epoch !== data.epoch.epoch || row.phase !== data.epoch.phase);
    set({ epochs: { ...store.epochs, [data.job]: [...others, data.epoch] } });
  } else if (event === "findings" || event === "runs") {
    attempt(loadResults);
  }
}

/** Put a job into the list: at its place, or first if it is new. */
function showJob(job) {
  const place = store.jobs.findIndex(({ id }) => id === job.id);
  const jobs = store.jobs.slice();
  jobs.splice(Math.max(0, place), place < 0 ? 0 : 1, job);
  set({ jobs });
}

/** Return whether a job is active. */
export function isActive(job) {
  return job !== undefined && ["queued", "running", "stopping"].includes(job.state);
}

function onConnection(connection) {
  if (connection === store.connection) return;
  set({ connection });
  if (connection !== "on") return;
  attempt(async () => {
    await reload();
    retryThumbnails();
    send();
  });
}

/** Run a task; show its error, except a lost connection, which the page shows anyway. */
export async function attempt(task) {
  try {
    return await task();
  } catch (error) {
    if (error.status !== 0 && error.name !== "AbortError") set({ error: error.message });
    return undefined;
  }
}

async function reload() {
  const jobs = list(await ask("GET", "/api/jobs"), "jobs");
  set({ jobs });
  const training = latestJob("train");
  await Promise.all([refresh(), loadResults(), training && loadEpochs(training.id)]);
}

async function loadEpochs(id) {
  const { epochs } = await ask("GET", `/api/jobs/${id}`);
  set({ epochs: { ...store.epochs, [id]: epochs ?? [] } });
}

/** Return the list in a response, which may be the response itself. */
function list(answer, name) {
  return Array.isArray(answer) ? answer : answer[name];
}

async function loadResults() {
  const [project, findings, runs] = await Promise.all([
    ask("GET", "/api/project"), ask("GET", "/api/findings"), ask("GET", "/api/runs"),
  ]);
  set({ project, findings, runs: list(runs, "runs") });
}

let timer = 0;
function refreshSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => attempt(refresh), 120);
}

/** Load the project's counts, and the images if they are of another revision. */
async function refresh() {
  const project = await ask("GET", "/api/project");
  set({ project });
  if (findingsRevision !== project.revision && store.findings?.checked != null) {
    findingsRevision = project.revision;
    set({ findings: await ask("GET", "/api/findings") });
  }
  if (outbox.length > 0 || isSending) return; // the images on the page are newer
  if (store.images !== null && store.images.revision === project.revision) return;
  const images = toColumns(await ask("GET", "/api/images/columns"));
  if (outbox.length === 0 && !isSending) set({ filter: followed(images.classes), images });
}

/** Return the filter after a change of the classes: it follows a renamed class, and shows all images if its class is gone. */
function followed(classes) {
  const { filter, images } = store;
  if (images === null || filter.kind !== "class" || classes.includes(filter.value)) return filter;
  const place = images.classes.indexOf(filter.value);
  const isRenamed = classes.length === images.classes.length
    && classes.every((name, index) => index === place || name === images.classes[index]);
  if (place >= 0 && isRenamed) return { ...filter, value: classes[place] };
  return { ...filter, kind: "all", value: null };
}

/** Return the images as columns: ids, names, labels (-1: none), excluded, versions, and rows by id. */
function toColumns(answer) {
  const rows = new Map(answer.ids.map((id, row) => [id, row]));
  return {
    revision: answer.revision,
    classes: answer.classes,
    ids: answer.ids,
    names: answer.names,
    labels: Int32Array.from(answer.labels),
    excluded: Uint8Array.from(answer.excluded),
    versions: answer.versions,
    rows,
  };
}

/** Give images a label; null removes it. */
export function label(ids, name) {
  if (ids.length === 0) return;
  const images = { ...store.images };
  let index = images.classes.indexOf(name);
  if (name !== null && index < 0) {
    images.classes = [...images.classes, name];
    index = images.classes.length - 1;
  }
  for (const id of ids) images.labels[images.rows.get(id)] = index;
  change(images, "/api/label", { ids, label: name });
}

/** Exclude images from training, or include them again. */
export function exclude(ids, excluded) {
  if (ids.length === 0) return;
  const images = { ...store.images };
  for (const id of ids) images.excluded[images.rows.get(id)] = excluded ? 1 : 0;
  change(images, "/api/exclude", { ids, excluded });
}

function change(images, path, json) {
  outbox.push({ path, json });
  set({ images, waiting: outbox.length });
  send();
}

/** Send the waiting changes, the oldest first. */
async function send() {
  if (isSending) return;
  isSending = true;
  while (outbox.length > 0 && store.connection === "on") {
    try {
      const answer = await ask("POST", outbox[0].path, { json: outbox[0].json });
      done(answer);
      outbox.shift();
      // If nobody else changed anything, the page shows the server's state.
      if (answer.revision === store.images.revision + 1) {
        set({ images: { ...store.images, revision: answer.revision } });
      }
    } catch (error) {
      if (error.status === 0 || error.status >= 500) {
        isSending = false;
        set({ waiting: outbox.length });
        if (error.status !== 0) set({ error: error.message });
        setTimeout(() => store.connection === "on" && send(), 2000);
        return;
      }
      outbox.shift();
      set({ error: error.message, images: { ...store.images, revision: -1 } }); // load them again
    }
    set({ waiting: outbox.length });
  }
  isSending = false;
  if (outbox.length === 0) refreshSoon();
}

/** Show the effect of a change, from the server's response. */
export function done({ title, command, revision, undo, redo }) {
  set({
    message: title, command: command || store.command,
    project: { ...store.project, revision, undo, redo },
  });
}

/** Wait until all changes are sent; false if the server cannot be reached. */
async function flushed() {
  for (let i = 0; outbox.length > 0 && i < 200; i++) {
    send();
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return outbox.length === 0;
}

/** Run an action of the server that changes the project; returns its response, undefined if it failed. */
export function act(path, json = {}, method = "POST") {
  return attempt(async () => {
    set({ error: "" });
    if (!(await flushed())) throw away();
    const answer = await ask(method, path, { json });
    if (answer.revision === undefined) set({ message: answer.title, command: answer.command });
    else done(answer);
    await refresh();
    return answer;
  }).then((answer) => {
    if (answer === undefined && store.connection !== "on" && !store.error) {
      set({ error: away().message });
    }
    return answer;
  });
}

function away() {
  return new Error("The studio does not answer. Try again when the connection is back.");
}

let isLooking = false;
let nextLook = 0; // the time in milliseconds before which the folders are not read again

/** Search for new images in the folders and tables whose images are used in place. */
export async function findNewImages(isUrgent = false) {
  const begin = Date.now();
  if (isLooking || (begin < nextLook && !isUrgent)) return;
  isLooking = true;
  const sources = await attempt(() => ask("GET", "/api/sources"));
  isLooking = false;
  nextLook = Date.now() + Math.max(LOOK_PAUSE, LOOK_SHARE * (Date.now() - begin));
  if (sources !== undefined) set({ sources: sources.filter((source) => source.new > 0) });
}

/** Start a job; returns it, undefined if it failed. */
export async function startJob(path, json = {}) {
  const begin = Date.now() / 1000;
  const job = await act(path, json);
  const known = store.jobs.find(({ id }) => id === job?.id);
  // Events of the job may have arrived before this response, and are newer.
  if (job !== undefined && !(isActive(known) || known?.ended > begin)) showJob(job);
  return job;
}

/** Run the same command again: it continues. */
export function continueJob({ id }) {
  return startJob(`/api/jobs/${id}/continue`);
}

/** Stop a job; what it computed so far is stored. */
export function stopJob(id) {
  return attempt(() => ask("DELETE", `/api/jobs/${id}`));
}

/** Return the newest job of a kind. */
export function latestJob(kind) {
  return store.jobs.find((job) => job.kind === kind);
}

addEventListener("beforeunload", (event) => {
  if (outbox.length > 0) event.preventDefault();
});
