/** The frame of the page: steps at the top, the last action and its command at the bottom. */

import { Component } from "../vendor/preact/preact.js";
import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "../vendor/preact/hooks.js";
import { shown } from "../page/dom.js";
import { CheckView } from "./views/check.js";
import { ExportView } from "./views/export.js";
import { ImagesView } from "./views/images.js";
import { isTyping } from "./grid/keys.js";
import { MistakesView } from "./views/mistakes.js";
import { Command, counted, html, Name } from "./parts.js";
import { act, isActive, latestJob, set, store, subscribe } from "./store.js";
import { TrainView } from "./views/train.js";
import { TryView } from "./views/try.js";

const VIEWS = {
  images: ["Images", ImagesView],
  check: ["Check", CheckView],
  train: ["Train", TrainView],
  mistakes: ["Mistakes", MistakesView],
  try: ["Try", TryView],
  export: ["Export", ExportView],
};

export function App() {
  const [, again] = useReducer((count) => count + 1, 0);
  useLayoutEffect(() => subscribe(again), []);
  const name = useView();
  const [title, View] = VIEWS[name];
  const main = useRef(null);
  const before = useRef(name);
  useEffect(() => {
    document.title = `${title} · ${shown(store.project.name)} · kindsight studio`;
    if (before.current === name) return;
    before.current = name;
    main.current.focus();
    scrollTo(0, 0);
  }, [name]);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <${Top} view=${name} />
    <${Connection} />
    ${store.error ? html`<div class="problem" role="alert"><p>${shown(store.error)}</p>
      <button type="button" class="plain" onClick=${() => set({ error: "" })}>Close</button></div>` : null}
    <main id="main" class=${`view-${name}`} ref=${main} tabindex="-1" aria-label=${title}><${Guarded} key=${name}><${View} /><//></main>
    <${Bottom} />`;
}

/** A step, or a message that it could not be shown; the other steps continue to work. */
class Guarded extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ problem: error.message });
  }

  render({ children }, { problem }) {
    if (problem === undefined) return children;
    return html`<div class="empty" role="alert"><p>This step could not be shown: ${shown(problem)}</p>
      <p>Nothing is lost. <button type="button" onClick=${() => this.setState({ problem: undefined })}>Try again</button></p></div>`;
  }
}

/** Return the name of the view in the address. */
function useView() {
  const read = () => location.hash.slice(1).split("/")[0];
  const [name, setName] = useState(read);
  useEffect(() => {
    const change = () => setName(read());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return name in VIEWS ? name : "images";
}

function Top({ view }) {
  return html`<header class="top">
    <p class="brand">kindsight <span>studio</span></p>
    <p class="project" title=${store.project.folder}><${Name}>${store.project.name}<//></p>
    <nav aria-label="Steps"><ol>
      ${Object.entries(VIEWS).map(([name, [title]]) => html`<li key=${name}>
        <a href=${`#${name}`} aria-current=${name === view ? "page" : null}>
          <span class="step">${title}</span><span class="fact number">${fact(name)}</span></a></li>`)}
    </ol></nav>
  </header>`;
}

/** Return the most important fact of a step, in a word or two. */
function fact(name) {
  const { images, excluded, findings, checked } = store.project;
  if (name === "images") return (images - excluded).toLocaleString("en");
  if (name === "check") {
    if (isActive(latestJob("check"))) return "running";
    return checked ? counted(findings, "finding") : "";
  }
  const newest = store.runs.find((run) => run.accuracy !== null && run.accuracy !== undefined);
  if (name === "train") {
    if (isActive(latestJob("train"))) return "running";
    return newest ? `${(100 * newest.accuracy).toFixed(0)}%` : "";
  }
  if (name === "export" && isActive(latestJob("export"))) return "running";
  return "";
}

function Connection() {
  if (store.connection === "on") return html`<div role="status" class="unseen"></div>`;
  const waiting = store.waiting > 0
    ? ` ${counted(store.waiting, "change")} will be sent when the studio is back.` : " Nothing is lost.";
  const words = store.connection === "refused"
    ? "The studio was started again after this page was opened. Reload the page."
    : `The studio does not answer: it was closed, or the computer is asleep.${waiting} To start it again, run: ${store.project.command}`;
  return html`<div role="status" class="offline"><p>${shown(words)}</p>
    ${store.connection === "refused" ? html`<button type="button" onClick=${() => location.reload()}>Reload</button>` : null}
  </div>`;
}

function Bottom() {
  const { undo, redo } = store.project;
  return html`<footer class="bottom">
    <div class="undo">
      <button type="button" class="plain" disabled=${!undo} title=${undo ? `${undo} (Ctrl+Z)` : "Nothing to undo"}
        onClick=${() => act("/api/undo")}>Undo</button>
      <button type="button" class="plain" disabled=${!redo} title=${redo ? `${redo} (Ctrl+Y)` : "Nothing to redo"}
        onClick=${() => act("/api/redo")}>Redo</button>
    </div>
    <p class="message" role="status">${shown(store.message)}${store.waiting > 0 ? ` (${counted(store.waiting, "change")} not sent yet)` : ""}</p>
    <${Command} text=${store.command || store.project.command} />
  </footer>`;
}

function onKey(event) {
  if (isTyping(event) || event.altKey || !(event.ctrlKey || event.metaKey)) return;
  if (document.querySelector("dialog[open]") !== null) return;
  const key = event.key.toLowerCase();
  if (key === "z" && !event.shiftKey) act("/api/undo");
  else if (key === "y" || (key === "z" && event.shiftKey)) act("/api/redo");
  else return;
  event.preventDefault();
}
