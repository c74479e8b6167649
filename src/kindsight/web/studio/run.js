/** The run that the views are about: the newest, or the one that was chosen. */

import { useEffect, useState } from "../vendor/preact/hooks.js";
import { shown } from "../page/dom.js";
import { ask } from "./api.js";
import { html } from "./parts.js";
import { attempt, set, store } from "./store.js";

const loaded = new Map(); // name and time of the bundle -> the answer to GET /api/runs/{run}

function current() {
  const usable = store.runs.filter((run) => run.finished && !run.error);
  return usable.find((run) => run.name === store.run) ?? usable[0];
}

/** Return the name of the run; undefined without one. */
export function runName() {
  return current()?.name;
}

/** Return the run, undefined while it is loaded. */
export function useRun() {
  const run = current();
  // A training writes its bundle twice: before its diagnosis and report, and after them.
  const key = run && `${run.name} ${run.created}`;
  const [, again] = useState(0);
  useEffect(() => {
    if (run === undefined || loaded.has(key)) return;
    attempt(async () => {
      loaded.set(key, await ask("GET", `/api/runs/${encodeURIComponent(run.name)}`));
      again((count) => count + 1);
    });
  }, [key, store.runs]);
  return loaded.get(key);
}

/** The choice of a run, if there are several. */
export function ChooseRun() {
  const usable = store.runs.filter((run) => run.finished && !run.error);
  if (usable.length < 2) return null;
  return html`<label class="choose-run">Run <select value=${runName()} onChange=${(event) => set({ run: event.target.value })}>
    ${usable.map((run, place) => html`<option key=${run.name} value=${run.name}>${shown(run.name)}${run.accuracy == null ? "" : ` · ${(100 * run.accuracy).toFixed(1)}%`}${place === 0 ? " · newest" : ""}</option>`)}</select></label>`;
}

/** The message of a view that needs a trained classifier, before there is one. */
export function NotTrained({ what }) {
  return html`<p class="empty">${what} needs a trained classifier. <a href="#train">Train one</a></p>`;
}
