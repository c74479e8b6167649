/** The run that the views are about: the newest, or the one that was chosen. */

import { useEffect, useState } from "../vendor/preact/hooks.js";
import { shown } from "../page/dom.js";
import { ask } from "./api.js";
import { html } from "./parts.js";
import { attempt, set, store } from "./store.js";

const loaded = new Map(); // name -> the answer to GET /api/runs/{run}

/** Return the name of the run; undefined without one. */
export function runName() {
  const usable = store.runs.filter((run) => run.finished && !run.error);
  return (usable.find((run) => run.name === store.run) ?? usable[0])?.name;
}

/** Return the run, undefined while it is loaded. */
export function useRun() {
  const name = runName();
  const [, again] = useState(0);
  useEffect(() => {
    if (name === undefined || loaded.has(name)) return;
    attempt(async () => {
      loaded.set(name, await ask("GET", `/api/runs/${encodeURIComponent(name)}`));
      again((count) => count + 1);
    });
  }, [name, store.runs]);
  return loaded.get(name);
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
