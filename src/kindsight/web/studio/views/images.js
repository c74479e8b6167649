/** First step: classes, images, labels. */

import { useEffect, useMemo, useRef, useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { fromClipboard, fromDrop, fromInput } from "../../page/files.js";
import { addedInWords, addImages, closeReport, foldersOf, stopAdding } from "./add.js";
import { Camera } from "./camera.js";
import { Classes } from "./classes.js";
import { inOrder, show, titleOf } from "../grid/filter.js";
import { Grid } from "../grid/grid.js";
import { actionOf, isTyping, keyOf } from "../grid/keys.js";
import { Dialog, Name, counted, html, hue } from "../parts.js";
import { EMPTY, kept, selectAll, selectOnly } from "../grid/selection.js";
import { act, exclude, label, findNewImages, set, store } from "../store.js";

const SIZES = { small: 96, medium: 148, large: 240 }; // least width of a cell in pixels
const MAX_FILES = 300000; // of one drop
const BUTTONS = 9; // classes with a button of their own

store.selection = EMPTY;
store.scroll = { top: 0 };
store.cells = "medium";
store.isCamera = false;

export function ImagesView() {
  const { images, filter } = store;
  const order = useMemo(() => inOrder(images, filter), [images, filter]);
  const before = useRef(order);
  if (before.current !== order) {
    store.selection = kept(store.selection, before.current, order);
    before.current = order;
  }
  const [asked, setAsked] = useState(null); // files whose folders may become classes
  const [isLarge, setLarge] = useState(false); // whether the current image is shown large
  const target = filter.kind === "class" ? filter.value : null;
  const add = (found, source) => {
    if (foldersOf(found).size > 0) setAsked({ found, source });
    else addImages(found, { label: target, source });
  };
  useDrops(add);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const select = (selection) => {
    store.selection = selection;
    set({});
  };
  const isEmpty = images.ids.length === 0;
  return html`
    <${Classes} images=${images} filter=${filter} />
    <div class="work">
      <${Toolbar} order=${order} target=${target} add=${add} />
      <${Added} />
      ${store.sources.map((source) => html`<${NewImages} key=${source.path} source=${source} />`)}
      ${store.isCamera ? html`<${Camera} target=${target} close=${() => set({ isCamera: false })} />` : null}
      ${isEmpty ? html`<${Invitation} />` : html`
        <${Selected} order=${order} />
        ${order.length === 0 ? html`<p class="empty">${target === null || filter.query !== "" ? "No images here." : html`No images of <${Name}>${target}<//> yet. Drop them here, or use the buttons above.`}</p>` : html`<${Grid} order=${order} images=${images}
          selection=${store.selection} select=${select} size=${SIZES[store.cells]}
          label=${`${titleOf(filter)}, ${counted(order.length, "image")}`} open=${(place) => { select(selectOnly(order, place)); setLarge(true); }} scroll=${store.scroll} />`}`}
    </div>
    ${asked && html`<${Folders} asked=${asked} target=${target} close=${() => setAsked(null)} />`}
    ${isLarge && html`<${Large} order=${order} select=${select} close=${() => setLarge(false)} />`}`;
}

function Toolbar({ order, target, add }) {
  const { filter } = store;
  const [files, directory] = [useRef(null), useRef(null)];
  const chosen = (source) => (event) => {
    add(fromInput(event.target.files), source);
    event.target.value = "";
  };
  return html`<div class="toolbar">
    <div class="heading">
      <h1><${Name}>${titleOf(filter)}<//></h1>
      <p class="small number">${counted(order.length, "image")}</p>
    </div>
    <div class="adding" role="group" aria-label=${target === null ? "Add images" : `Add images to ${shown(target)}`}>
      <button type="button" class="primary" onClick=${() => files.current.click()}>Add images</button>
      <button type="button" onClick=${() => directory.current.click()}>Add a folder</button>
      <button type="button" aria-pressed=${store.isCamera ? "true" : "false"}
        onClick=${() => set({ isCamera: !store.isCamera })}>Webcam</button>
      <input ref=${files} id="files" type="file" multiple hidden accept="image/*,.tif,.tiff,.heic" onChange=${chosen("choice")} />
      <input ref=${directory} id="directory" type="file" webkitdirectory hidden onChange=${chosen("folder")} />
    </div>
    <div class="tools">
      <label>Search <input type="search" value=${filter.query} placeholder="file name"
        onInput=${(event) => show({ query: event.target.value })} /></label>
      <label>Sort <select value=${filter.sort} onChange=${(event) => show({ sort: event.target.value })}>
        <option value="added">as added</option><option value="newest">newest first</option>
        <option value="name">by name</option><option value="class">by class</option></select></label>
      <label>Size <select value=${store.cells} onChange=${(event) => set({ cells: event.target.value })}>
        ${Object.keys(SIZES).map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
    </div>
  </div>`;
}

/** The actions for the selected images: buttons that show their keys. */
function Selected({ order }) {
  const { ids } = store.selection;
  if (ids.size === 0) {
    return html`<div class="selected is-idle"><p class="small">Select images: click, Shift+click, drag or use the
      arrow keys. Then press the key of a class.</p>
      <button type="button" class="plain" disabled=${order.length === 0}
        onClick=${() => { store.selection = selectAll(store.selection, order); set({}); }}>Select all</button></div>`;
  }
  return html`<div class="selected" role="group" aria-label="Selected images">
    <p class="number"><strong>${ids.size.toLocaleString("en")} selected</strong></p>
    <${LabelButtons} />
    <button type="button" class="plain" onClick=${() => { store.selection = { ...store.selection, ids: new Set() }; set({}); }}>Select none</button>
  </div>`;
}

/** The buttons that label the selected images, with the keys that do the same. */
function LabelButtons() {
  const { classes, excluded, rows } = store.images;
  const areExcluded = Array.from(store.selection.ids).every((id) => excluded[rows.get(id)] === 1);
  return html`${classes.slice(0, BUTTONS).map((name, index) => html`<button type="button" key=${name} class="label-button"
      onClick=${() => apply({ label: name })}><i class="mark" style=${{ "--hue": hue(index) }}></i><${Name}>${name}<//> <kbd>${keyOf(index)}</kbd></button>`)}
    ${classes.length > BUTTONS ? html`<select aria-label="Label as" value=""
      onChange=${(event) => { apply({ label: event.target.value }); event.target.value = ""; }}>
      <option value="">more classes</option>
      ${classes.slice(BUTTONS).map((name, index) => html`<option key=${name} value=${name}>${shown(name)} ${keyOf(index + BUTTONS)}</option>`)}</select>` : null}
    <button type="button" onClick=${() => apply({ label: null })}>No label <kbd>u</kbd></button>
    <button type="button" onClick=${() => apply({ exclude: true })}>${areExcluded ? "Include" : "Exclude"} <kbd>x</kbd></button>`;
}

/** Apply an action to the selected images, and go on to the next image after a single one. */
function apply(action) {
  const { selection, images, filter } = store;
  const ids = Array.from(selection.ids);
  if (ids.length === 0) return;
  const before = inOrder(images, filter);
  if ("label" in action) {
    label(ids, action.label);
  } else {
    const areExcluded = ids.every((id) => images.excluded[images.rows.get(id)] === 1);
    exclude(ids, action.exclude && !areExcluded);
  }
  const after = inOrder(store.images, filter);
  if (ids.length === 1 && "label" in action && after[selection.active] === before[selection.active]
    && selection.active + 1 < after.length) {
    store.selection = selectOnly(after, selection.active + 1);
  }
}

function onKey(event) {
  if (isTyping(event) || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]:not(.is-image)") !== null) return;
  const action = actionOf(event, store.images.classes);
  if (action === null || store.selection.ids.size === 0) return;
  event.preventDefault();
  apply(action);
}

/** The big invitation of an empty project. */
function Invitation() {
  return html`<div class="invitation">
    <svg viewBox="0 0 48 48" aria-hidden="true"><rect x="5" y="9" width="38" height="30" rx="4"/><circle cx="16" cy="19" r="3.5"/><path d="M7 35l11-11 8 8 6-6 9 9"/></svg>
    <p><strong>Drop images or folders here.</strong></p>
    <p class="quiet">The quickest way is one folder for each class, with the name of the class. Or add classes on the
      left, choose one, and add its images with the buttons above or the webcam. No image leaves this computer.</p>
  </div>`;
}

/** The progress of adding images, and the files that were not added. */
function Added() {
  const { upload } = store;
  if (!upload) return null;
  if (upload.isRunning) {
    return html`<div class="adding-now">
      <p class="number">Adding images: ${upload.done.toLocaleString("en")} of ${upload.total.toLocaleString("en")}</p>
      <progress max=${upload.total} value=${upload.done} aria-label="Adding images"></progress>
      <button type="button" class="plain" onClick=${stopAdding}>Stop</button></div>`;
  }
  return html`<div class="adding-now is-done" role="status">
    <p>${addedInWords(upload)}.</p>
    ${upload.reasons.size > 0 ? html`<details><summary>Which files, and why</summary>
      <ul class="reasons">${Array.from(upload.reasons, ([reason, { count, names }]) => html`<li key=${reason}>
        ${shown(reason)} <span class="number small">${counted(count, "file")}</span>
        <ul>${names.map((name, place) => html`<li key=${place}><${Name}>${name}<//></li>`)}
          ${count > names.length ? html`<li>${`${(count - names.length).toLocaleString("en")} more`}</li>` : null}</ul></li>`)}
    </ul></details>` : null}
    <button type="button" class="plain" onClick=${closeReport}>Close</button></div>`;
}

/** New images in a folder or table whose images are used where they are. */
function NewImages({ source }) {
  const add = async () => {
    await act("/api/import", { path: source.path });
    await findNewImages(true);
  };
  return html`<div class="adding-now is-done" role="status">
    <p title=${shown(source.path)}>${counted(source.new, "new image")} in <${Name}>${source.name}<//>.</p>
    <button type="button" onClick=${add}>Add</button></div>`;
}

/** Ask whether the names of folders become classes. */
function Folders({ asked, target, close }) {
  const folders = Array.from(foldersOf(asked.found)).sort((a, b) => b[1] - a[1]);
  const go = (options) => {
    close();
    addImages(asked.found, { source: asked.source, ...options });
  };
  const title = folders.length === 1 ? "Use the folder's name as the class?" : "Use the folders' names as classes?";
  return html`<${Dialog} title=${title} close=${close}>
    <p>${counted(asked.found.length, "file")} in ${counted(folders.length, "folder")}:</p>
    <ul class="folders">${folders.slice(0, 12).map(([name, count]) => html`<li key=${name}><${Name}>${name}<//> <span class="number small">${count.toLocaleString("en")}</span></li>`)}
      ${folders.length > 12 ? html`<li class="small">and ${folders.length - 12} more</li>` : null}</ul>
    <div class="buttons is-left">
      <button type="button" class="primary" onClick=${() => go({ byFolder: true })}>Use as classes</button>
      ${target === null ? null : html`<button type="button" onClick=${() => go({ label: target })}>Label all as <${Name}>${target}<//></button>`}
      <button type="button" onClick=${() => go({})}>Add without labels</button>
      <button type="button" class="plain" onClick=${close}>Cancel</button>
    </div>
  <//>`;
}

/** The current image, large; the arrow keys go to others, and the keys of the classes label it. */
function Large({ order, select, close }) {
  const { images, selection } = store;
  const place = selection.active;
  const isGone = place < 0 || place >= order.length;
  useEffect(() => isGone && close(), [isGone]);
  if (isGone) return null;
  const id = order[place];
  const row = images.rows.get(id);
  const label = images.labels[row];
  const go = (next) => next >= 0 && next < order.length && select(selectOnly(order, next));
  const state = images.excluded[row] === 1 ? "excluded" : label < 0 ? "no label" : images.classes[label];
  const onArrow = (event) => {
    if (event.key === "ArrowRight") go(place + 1);
    if (event.key === "ArrowLeft") go(place - 1);
  };
  return html`<${Dialog} title=${shown(images.names[row])} close=${close} kind="is-image">
    <div class="large" onKeyDown=${onArrow}>
      <img src=${`/api/images/${id}?v=${images.versions[row]}`} alt=${shown(images.names[row])} />
      <p role="status"><strong><${Name}>${state}<//></strong> <span class="small number">image ${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}</span></p>
      <div class="selected"><${LabelButtons} /></div>
      <div class="buttons is-left">
        <button type="button" disabled=${place === 0} onClick=${() => go(place - 1)}>Previous</button>
        <button type="button" disabled=${place === order.length - 1} onClick=${() => go(place + 1)}>Next</button>
        <button type="button" onClick=${close}>Close</button>
      </div>
    </div>
  <//>`;
}

/** Take images that are dropped or pasted anywhere on the page. */
function useDrops(add) {
  const latest = useRef(add);
  latest.current = add;
  useEffect(() => {
    let depth = 0; // of the elements that were entered and not left
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      document.body.classList.toggle("is-dropping", depth > 0);
    };
    const handlers = {
      dragenter: (event) => { event.preventDefault(); mark(1); },
      dragleave: () => mark(-1),
      dragover: (event) => event.preventDefault(),
      drop: async (event) => {
        event.preventDefault();
        mark(-depth);
        latest.current(await fromDrop(event.dataTransfer, MAX_FILES), "drop");
      },
      paste: (event) => {
        const found = fromClipboard(event.clipboardData);
        if (found.length > 0) latest.current(found, "paste");
      },
    };
    for (const [name, handler] of Object.entries(handlers)) addEventListener(name, handler);
    return () => {
      for (const [name, handler] of Object.entries(handlers)) removeEventListener(name, handler);
    };
  }, []);
}
