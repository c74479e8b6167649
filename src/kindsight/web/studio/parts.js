/** Small components that the steps share. */

import htm from "../vendor/htm/htm.js";
import { Component, createRef, h } from "../vendor/preact/preact.js";
import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact/hooks.js";
import { counted, shown } from "../page/dom.js";
import { continueJob, isActive, stopJob, store } from "./store.js";
import { wantThumbnail } from "./thumbnails.js";

export const html = htm.bind(h);

/** A user's name; its text direction does not affect the surrounding text. */
export function Name({ children }) {
  return html`<bdi>${shown(String(children))}</bdi>`;
}

/** The thumbnail of an image, requested while it is in the page. */
export class Thumbnail extends Component {
  shouldComponentUpdate(props, state) {
    return props.id !== this.props.id || props.alt !== this.props.alt
      || state.address !== this.state.address;
  }

  componentDidMount() {
    this.want();
  }

  componentDidUpdate(before) {
    if (before.id === this.props.id) return;
    this.cancel();
    this.want();
  }

  componentWillUnmount() {
    this.cancel();
  }

  want() {
    this.setState({ address: undefined });
    const { id } = this.props;
    const version = store.images.versions[store.images.rows.get(id)] ?? "";
    this.cancel = wantThumbnail(id, version, (address) => this.setState({ address }));
  }

  render({ alt }, { address }) {
    if (address === null) return html`<span class="thumb is-unreadable">unreadable</span>`;
    if (address === undefined) return html`<span class="thumb"></span>`;
    return html`<span class="thumb"><img src=${address} alt=${alt ?? ""} decoding="async" draggable=${false} /></span>`;
  }
}

/** A modal dialog; `close` is called with Escape, too. */
export class Dialog extends Component {
  element = createRef();

  componentDidMount() {
    this.before = document.activeElement;
    this.element.current.showModal();
  }

  componentWillUnmount() {
    this.element.current.close(); // while it is open, no other element can have the focus
    if (this.before?.isConnected) this.before.focus();
  }

  render({ title, close, children, kind = "" }) {
    return html`<dialog ref=${this.element} class=${kind} aria-labelledby="dialog-title"
      onCancel=${(event) => { event.preventDefault(); close(); }}
      onClick=${(event) => event.target === event.currentTarget && close()}>
      <div class="dialog">
        <h2 id="dialog-title">${title}</h2>
        ${children}
      </div>
    </dialog>`;
  }
}

/**
 * Return a ref for an element whose buttons change with its state: if the button that had the focus
 * is gone, the first of the new ones has it, or the element itself (`tabindex="-1"`).
 */
export function useFocus() {
  const place = useRef(null);
  const hadFocus = place.current?.contains(document.activeElement);
  useLayoutEffect(() => {
    if (hadFocus && !place.current.contains(document.activeElement)) {
      (place.current.querySelector("button") ?? place.current).focus();
    }
  });
  return place;
}

/** Return a text without the options of commands, which this page does not have. */
export function withoutCommands(text) {
  const sentences = text.replace(/ \([^()]*--[^()]*\)/g, "").split(/(?<=[.!]) /);
  return sentences.filter((sentence) => !sentence.includes("--")).join(" ");
}

/** A command, and a button that copies it. */
export function Command({ text, label = "As a command" }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`<div class="command">
    <span class="small">${label}</span>
    <code tabindex="0" role="group" aria-label="Command">${shown(text)}</code>
    <button type="button" class="plain" onClick=${copy}>${isCopied ? "Copied" : "Copy"}</button>
  </div>`;
}

/** A job: its stage and progress, or why it ended without a result. */
export function Job({ job }) {
  if (job === undefined || job.state === "done") return null;
  return isActive(job) ? html`<${Running} job=${job} />` : html`<${Ended} job=${job} />`;
}

function Running({ job }) {
  const now = useNow();
  const stage = useRef({ name: "", at: 0, done: 0 });
  if (stage.current.name !== job.stage) stage.current = { name: job.stage, at: now, done: job.done };
  const seconds = job.started === null ? 0 : now - job.started;
  const words = { queued: "Waiting for another job to end", stopping: "Stopping" }[job.state]
    ?? (job.stage || "Starting");
  const share = job.total > 0 ? Math.min(1, job.done / job.total) : undefined;
  const left = secondsLeft(job, stage.current, now);
  const times = [left === null ? "" : `about ${duration(left)} left in this step`,
    `${duration(seconds)} so far`];
  return html`<section class="job" aria-label=${job.title}>
    <div class="job-line">
      <p><strong>${shown(words)}</strong>
        ${job.total > 0 ? html` <span class="small number">${job.done.toLocaleString("en")} of ${job.total.toLocaleString("en")}</span>` : null}</p>
      <p class="small number">${times.filter(Boolean).join(" · ")}</p>
    </div>
    <progress max="1" value=${share} aria-label=${words}></progress>
    <div class="buttons is-left">
      <button type="button" disabled=${job.state === "stopping"} onClick=${() => stopJob(job.id)}>Stop</button>
      <span class="small">The results so far are saved, and you can continue later.</span>
    </div>
  </section>`;
}

/** Return the seconds that are left of a stage; null before they can be estimated. */
function secondsLeft(job, stage, now) {
  const done = job.done - stage.done;
  if (job.total === 0 || done <= 0 || now - stage.at < 2) return null;
  return ((job.total - job.done) / done) * (now - stage.at);
}

/** Return the time in seconds since 1970, every second. */
function useNow() {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

function Ended({ job }) {
  const words = {
    stopped: "You stopped this. The results so far are saved.",
    interrupted: "This was interrupted because the studio was closed. The results so far are saved.",
    failed: job.error || "This failed for an unknown reason.",
  }[job.state];
  return html`<section class=${`job is-${job.state}`} role=${job.state === "failed" ? "alert" : "status"}>
    <p><strong>${job.title}.</strong> ${shown(words)}</p>
    <div class="buttons is-left">
      <button type="button" class="primary" onClick=${() => continueJob(job)}>${job.state === "failed" ? "Try again" : "Continue"}</button>
    </div>
  </section>`;
}

/** Return a time in words: "8 s", "2 min 5 s", "1 h 10 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** Return an accuracy with its interval: "94.0% accuracy (95% CI 83.8-97.9%)". */
export function accuracy(share, interval) {
  const text = `${(100 * share).toFixed(1)}% accuracy`;
  if (!interval) return text;
  return `${text} (95% CI ${(100 * interval[0]).toFixed(1)}–${(100 * interval[1]).toFixed(1)}%)`;
}

/** Return a colour of a class by its number, for a mark beside its name. */
export function hue(index) {
  return Math.round((205 + 137.508 * index) % 360);
}

export { counted };
