/** The start of the studio's page. */

import { render } from "../vendor/preact/preact.js";
import { App } from "./app.js";
import { html } from "./parts.js";
import { start, store } from "./store.js";
import { thumbnailLoad } from "./thumbnails.js";

const place = document.getElementById("app");

async function open() {
  for (;;) {
    try {
      await start();
      break;
    } catch (error) {
      place.textContent = error.message;
      if (error.status !== 0) return;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  place.replaceChildren();
  render(html`<${App} />`, place);
}

// For scripts of the browser's console.
globalThis.kindsight = { store, thumbnailLoad, ready: open() };
