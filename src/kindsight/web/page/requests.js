/** Requests to the server: with a token if the server requires one, and repeated after "too many requests". */

import { byId, element } from "./dom.js";

const PLACE = "kindsight-token"; // in the session's storage
const PATIENCE = 300; // seconds of "too many requests" before a person is asked
const GONE = "The server does not answer. Is it still running?";

let asked = null; // the promise of a token that is asked for

/** An error that is not about the image: the same request may succeed later. */
function passing(text) {
  return Object.assign(new Error(text), { isPassing: true });
}

/**
 * Return the JSON of a response; `blob` is the file that the request sends. Errors are in plain
 * words; they have `isPassing` if the same request may succeed later.
 */
export async function send(path, { blob = null, ...options } = {}) {
  const patient = performance.now() + 1000 * PATIENCE;
  for (let tries = 1; ; tries++) {
    const token = sessionStorage.getItem(PLACE);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response = null;
    try {
      response = await fetch(new URL(path, document.baseURI), { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      await explain(blob, tries);
      continue;
    }
    if (response.status === 401) await tokenAfter(token);
    else if (response.status === 429 && performance.now() < patient) await pause(response, options.signal);
    else if (response.ok) return response.status === 204 ? null : response.json();
    else throw await problem(response);
  }
}

/** Throw an error that explains a request without a response; return if the request should be repeated. */
async function explain(blob, tries) {
  if (blob !== null) {
    try {
      await blob.slice(0, 1).arrayBuffer();
    } catch {
      throw new Error("The file could not be read: it was moved, changed or deleted.");
    }
  }
  let isThere = false;
  try {
    isThere = (await fetch(new URL("healthz", document.baseURI))).ok;
  } catch {
    // reported below
  }
  if (!isThere) throw passing(GONE);
  if (tries > 1) {
    throw Object.assign(new Error("The server closed the connection while the file was sent. "
      + "The file may be larger than the server accepts."), { code: "refused" });
  }
}

/** Wait for as long as the server requests, and a little longer so that not all come back at once. */
function pause(response, signal) {
  const seconds = Math.min(60, Math.max(0.1, Number(response.headers.get("Retry-After")) || 1));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds * (1 + Math.random() / 4));
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** Return the error of a response: an RFC 9457 problem, or a proxy's message. */
async function problem(response) {
  let detail = "";
  try {
    const { detail: text, title } = await response.json();
    detail = String(text ?? title ?? "");
  } catch {
    // no JSON
  }
  const text = detail || `The server answered with an error (${response.status}).`;
  if ([429, 502, 503, 504].includes(response.status)) return passing(text);
  return Object.assign(new Error(text), { code: "refused" });
}

/** Wait for a token other than the rejected one. */
async function tokenAfter(refused) {
  if (sessionStorage.getItem(PLACE) !== refused) return;
  asked ??= ask(refused !== null);
  await asked;
}

/** Ask for the token once for all requests; it is kept as long as the browser's tab. */
function ask(isWrong) {
  return new Promise((resolve) => {
    const input = element("input", { type: "password", id: "token", required: true,
      autocomplete: "current-password", "aria-describedby": "token-note" });
    const form = element("form", {},
      element("h2", { id: "token-title" }, "This server needs a token"),
      element("p", { id: "token-note" }, isWrong ? "The server does not know this token. Try another."
        : "Ask the person who runs the server for it. It is kept until this tab is closed."),
      element("label", { for: "token" }, "Token"), input,
      element("button", { type: "submit", class: "primary" }, "Continue"));
    const dialog = element("dialog", { "aria-labelledby": "token-title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(PLACE, input.value.trim());
      dialog.close();
      dialog.remove();
      asked = null;
      resolve();
    });
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing works without it
    document.body.append(dialog);
    dialog.showModal();
    byId("token").focus();
  });
}
