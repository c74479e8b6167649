/** Adding images: in requests of a few files, one after the other, as one change that can be undone. */

import { counted } from "../../page/dom.js";
import { ask } from "../api.js";
import { attempt, done, set, store } from "../store.js";

const FILES = 24; // maximum per request
const BYTES = 24e6; // maximum per request, unless a single file is larger
const SHOWN = 200; // maximum number of listed files that were not added
const REASONS = 30; // maximum number of listed reasons

/**
 * Add files, [{name, file}]. `label` is a class or null; with `byFolder`, the name of each file's
 * folder is its class. `source` is "drop", "folder", "choice", "paste" or "webcam".
 */
export async function addImages(found, { label = null, byFolder = false, source, batch = newBatch() }) {
  if (found.length === 0) {
    set({ message: "No images found." });
    return;
  }
  const { compare } = new Intl.Collator("en", { numeric: true });
  const queue = found.slice().sort((a, b) => compare(a.name, b.name)); // browsers list folders in any order
  const upload = store.upload?.isRunning ? store.upload
    : { isRunning: true, total: 0, done: 0, added: 0, duplicates: 0, unreadable: 0, failed: 0,
      reasons: new Map(), listed: 0 }; // reasons: {count, names} of the files that were not added
  upload.total += found.length;
  show(upload);
  while (queue.length > 0 && !upload.isStopped) {
    const files = taken(queue);
    const answer = await attempt(() => send(files, { label, byFolder, source, batch }, upload));
    upload.done += files.length;
    if (answer === undefined) {
      skip(upload, "failed", files.map(({ name }) => ({ name, reason: store.error || "It was not added, for an unknown reason." })));
    } else {
      upload.added += answer.added.length;
      skip(upload, "duplicates", answer.duplicates);
      skip(upload, "unreadable", answer.unreadable);
      done({ ...answer, title: addedInWords(upload) }); // of all requests, not only this one
    }
    show(upload);
  }
  if (upload.done < upload.total && !upload.isStopped) return; // another call adds the rest
  upload.isRunning = false;
  if (upload.reasons.size === 0) set({ upload: null });
  else show(upload);
}

/** Return a summary of all files so far: "28 images added, 1 duplicate and 1 unreadable file not added". */
export function addedInWords({ added, duplicates, unreadable, failed }) {
  const kinds = [[duplicates, "duplicate"], [unreadable, "unreadable file"], [failed, "other file"]];
  const skipped = kinds.filter(([count]) => count > 0).map(([count, noun]) => counted(count, noun));
  const list = skipped.length > 1 ? `${skipped.slice(0, -1).join(", ")} and ${skipped.at(-1)}` : skipped.join("");
  return `${counted(added, "image")} added${list === "" ? "" : `, ${list} not added`}`;
}

/** Return a name for images that are added together and undone together. */
export function newBatch() {
  return crypto.randomUUID();
}

/** Stop adding; files that were already added stay. */
export function stopAdding() {
  store.upload.isStopped = true;
}

/** Close the report of the last addition. */
export function closeReport() {
  set({ upload: null });
}

function taken(queue) {
  const files = [queue.shift()];
  let bytes = files[0].file.size;
  while (queue.length > 0 && files.length < FILES && bytes + queue[0].file.size <= BYTES) {
    bytes += queue[0].file.size;
    files.push(queue.shift());
  }
  return files;
}

/** Send files; wait while the server cannot be reached. Files are not added twice. */
async function send(files, { label, byFolder, source, batch }, upload) {
  for (;;) {
    const body = new FormData();
    for (const { name, file } of files) body.append("files", file, name);
    if (label !== null && !byFolder) body.append("label", label);
    if (byFolder) body.append("label_from", "folder");
    body.append("source", source);
    body.append("batch", batch);
    try {
      return await ask("POST", "/api/images", { body });
    } catch (error) {
      if (error.status !== 0 || upload.isStopped) throw error;
      do {
        await new Promise((resolve) => setTimeout(resolve, 500));
      } while (store.connection !== "on" && !upload.isStopped);
    }
  }
}

/** Count files of a kind that were not added, and list them by reason. */
function skip(upload, kind, files) {
  const { reasons } = upload;
  upload[kind] += files.length;
  for (const { name, reason: given } of files) {
    const reason = reasons.has(given) || reasons.size < REASONS ? given : "Other reasons.";
    const entry = reasons.get(reason) ?? { count: 0, names: [] };
    entry.count++;
    if (upload.listed++ < SHOWN) entry.names.push(name);
    reasons.set(reason, entry);
  }
}

function show(upload) {
  set({ upload });
}

/** Return the names of the folders that directly hold files, each with the number of files. */
export function foldersOf(found) {
  const folders = new Map();
  for (const { name } of found) {
    const parts = name.split("/");
    if (parts.length < 2) continue;
    const folder = parts.at(-2);
    folders.set(folder, (folders.get(folder) ?? 0) + 1);
  }
  return folders;
}
