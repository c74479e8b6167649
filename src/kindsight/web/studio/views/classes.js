/** The list of classes: selects the images that are shown, and the class to which new images are added. */

import { useMemo, useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { show } from "../grid/filter.js";
import { keyOf } from "../grid/keys.js";
import { counted, Dialog, html, hue, Name } from "../parts.js";
import { act, store } from "../store.js";

export function Classes({ images, filter }) {
  const [name, setName] = useState("");
  const [edited, setEdited] = useState(null);
  const counts = useMemo(() => countsOf(images), [images]);
  const add = async (event) => {
    event.preventDefault();
    const wanted = name.trim();
    if (wanted === "") return;
    if (images.classes.includes(wanted) || await act("/api/classes", { add: wanted })) {
      setName("");
      show({ kind: "class", value: wanted });
    }
  };
  const item = (kind, text, count) => html`<li key=${kind}>
    <button type="button" class="class-button" aria-pressed=${filter.kind === kind ? "true" : "false"}
      onClick=${() => show({ kind, value: null })}><span class="class-name">${text}</span>
      <span class="number">${count.toLocaleString("en")}</span></button></li>`;
  return html`<aside class="classes" aria-label="Classes">
    <ul>
      ${item("all", "All images", images.ids.length)}
      ${item("unlabelled", "Without a label", counts.unlabelled)}
      ${item("excluded", "Excluded", counts.excluded)}
      ${filter.kind === "finding" ? item("finding", shown(filter.value.title), filter.value.ids.length) : null}
    </ul>
    <h2>Classes</h2>
    <ul class="class-list">
      ${images.classes.map((each, index) => html`<li key=${each}>
        <button type="button" class="class-button" aria-pressed=${filter.kind === "class" && filter.value === each ? "true" : "false"}
          onClick=${() => show({ kind: "class", value: each })}>
          <i class="mark" style=${{ "--hue": hue(index) }}></i>
          <span class="class-name"><${Name}>${each}<//></span>
          ${keyOf(index) ? html`<kbd title="Key that gives this label">${keyOf(index)}</kbd>` : null}
          <span class="number">${counts.labelled[index].toLocaleString("en")}</span></button>
        <button type="button" class="plain edit" aria-label=${`Change ${shown(each)}`} onClick=${() => setEdited(each)}>⋯</button></li>`)}
    </ul>
    <form class="new-class" onSubmit=${add}>
      <input aria-label="Name of a new class" placeholder="New class" maxlength="100" value=${name}
        onInput=${(event) => setName(event.target.value)} />
      <button type="submit" disabled=${name.trim() === ""}>Add</button>
    </form>
    ${store.project.notes.map((note) => html`<p key=${note} class="note">${shown(note)}</p>`)}
    ${edited !== null && html`<${ClassDialog} name=${edited} images=${images} count=${counts.labelled[images.classes.indexOf(edited)] ?? 0} close=${() => setEdited(null)} />`}
  </aside>`;
}

function countsOf(images) {
  const labelled = new Array(images.classes.length).fill(0);
  let [unlabelled, excluded] = [0, 0];
  for (let row = 0; row < images.ids.length; row++) {
    if (images.excluded[row] === 1) excluded++;
    else if (images.labels[row] < 0) unlabelled++;
    else labelled[images.labels[row]]++;
  }
  return { labelled, unlabelled, excluded };
}

function ClassDialog({ name, images, count, close }) {
  const [text, setText] = useState(name);
  const others = images.classes.filter((each) => each !== name);
  const [into, setInto] = useState(others[0] ?? "");
  const go = async (json, shownNext) => {
    if (await act("/api/classes", json)) show(shownNext);
    close();
  };
  const rename = (event) => {
    event.preventDefault();
    if (text.trim() !== "") go({ rename: name, to: text.trim() }, { kind: "class", value: text.trim() });
  };
  return html`<${Dialog} title=${`Class ${shown(name)}`} close=${close}>
    <p class="small">${counted(count, "image")}. Each of these changes can be undone, and no file is changed.</p>
    <form class="field-line" onSubmit=${rename}>
      <label class="field">New name <input value=${text} maxlength="100" onFocus=${(event) => event.target.select()} onInput=${(event) => setText(event.target.value)} /></label>
      <button type="submit" class="primary" disabled=${text.trim() === "" || text.trim() === name}>Rename</button>
    </form>
    ${others.length > 0 ? html`<div class="field-line">
      <label class="field">Merge it into <select value=${into} onChange=${(event) => setInto(event.target.value)}>
        ${others.map((each) => html`<option key=${each} value=${each}>${shown(each)}</option>`)}</select></label>
      <button type="button" onClick=${() => go({ merge: [name], to: into }, { kind: "class", value: into })}>Merge</button>
    </div>` : null}
    <div class="buttons is-left">
      <button type="button" onClick=${() => go({ remove: name }, { kind: "all", value: null })}>Remove the class (its images lose their label)</button>
      <button type="button" class="plain" onClick=${close}>Cancel</button>
    </div>
  <//>`;
}
