/** Second step: possible problems of the images, and actions that fix them. */

import { useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { show } from "../grid/filter.js";
import { counted, Dialog, html, Job, Name, Thumbnail, useFocus, withoutCommands } from "../parts.js";
import { act, isActive, latestJob, startJob, store } from "../store.js";

const FEW = 8; // maximum number of findings of a check that are shown at first
const MANY = 12; // maximum number of images shown per finding
const SEVERITIES = { error: "Fix this", warning: "Look at this", note: "Good to know" };

export function CheckView() {
  const job = latestJob("check");
  const isBusy = isActive(job);
  const [asked, setAsked] = useState(null); // an action on many images, before it is confirmed
  const { findings, project } = store;
  const isChecked = findings.checked !== null;
  return html`
    <div class="lead"><h1>Check the images</h1>
      <p class="quiet">Find damaged files, duplicates, unusual images and labels that are probably wrong before you train.
        Nothing is changed until you choose an action, and no file is ever deleted.</p></div>
    <div class="buttons is-left">
      <button type="button" class="primary" disabled=${isBusy || project.images === 0} onClick=${() => startJob("/api/check", { full: false })}>Check</button>
      <button type="button" disabled=${isBusy || project.labelled === 0} onClick=${() => startJob("/api/check", { full: true })}>Check thoroughly</button>
      <span class="small">A thorough check also finds labels that are probably wrong and crops of the same image. It takes about as long as a quick training.</span>
    </div>
    <${Job} job=${job} />
    ${isChecked ? html`<${Summary} findings=${findings} ask=${setAsked} />` : null}
    ${isChecked ? findings.groups.map((group) => html`<${Group} key=${group.code} group=${group} ask=${setAsked} />`) : null}
    ${asked && html`<${Dialog} title=${shown(asked.title)} close=${() => setAsked(null)}>
      <p>${consequence(asked)}</p>
      <div class="buttons is-left">
        <button type="button" class="primary" onClick=${() => { setAsked(null); send(asked); }}>${shown(asked.title)}</button>
        <button type="button" class="plain" onClick=${() => setAsked(null)}>Cancel</button>
      </div><//>`}`;
}

function Summary({ findings, ask }) {
  const { counts } = findings;
  const open = counts.error + counts.warning + counts.note;
  const isOutdated = findings.revision !== store.project.revision;
  const parts = [
    counts.error > 0 && counted(counts.error, "error"),
    counts.warning > 0 && counted(counts.warning, "warning"),
    counts.note > 0 && counted(counts.note, "note"),
  ].filter(Boolean);
  return html`<section class="summary" aria-label="Result of the check">
    <p><strong>${open === 0 ? "Nothing is left to fix." : parts.join(", ")}</strong>
      <span class="quiet"> ${counted(findings.images, "image")} checked${findings.full ? " thoroughly" : ""}; ${counted(findings.passed, "check")} found no problem.
      ${isOutdated ? " Images or labels have changed since then." : ""}</span></p>
    ${findings.actions.length > 0 ? html`<div class="buttons is-left">
      ${findings.actions.map((action) => html`<button type="button" key=${action.title} onClick=${() => ask(action)}>${shown(action.title)}</button>`)}</div>` : null}
  </section>`;
}

function Group({ group, ask }) {
  const [isAll, setAll] = useState(false);
  const shownOnes = isAll ? group.findings : group.findings.slice(0, FEW);
  const ids = group.findings.flatMap((finding) => finding.images);
  return html`<section class=${`finding is-${group.severity} ${group.open === 0 ? "is-mended" : ""}`} aria-labelledby=${`check-${group.code}`}>
    <div class="finding-head">
      <h2 id=${`check-${group.code}`}>${shown(group.title)} <span class="number count">${group.open === 0 ? "fixed" : group.open.toLocaleString("en")}</span></h2>
      <p class="severity">${group.open === 0 ? "Done" : SEVERITIES[group.severity]} <span class="small">${group.code}</span></p>
    </div>
    <p>${shown(group.description)}</p>
    <p class="quiet">${shown(withoutCommands(group.advice))}</p>
    <div class="buttons is-left">
      ${group.open < 2 ? null : group.actions.map((action) => html`<button type="button" key=${action.title} onClick=${() => ask(action)}>${shown(action.title)}</button>`)}
      ${ids.length > 0 ? html`<a class="button" href="#images" onClick=${() => show({ kind: "finding", value: { title: group.title, ids }, query: "" })}>Show these images</a>` : null}
    </div>
    <ul class="cases">${shownOnes.map((finding) => html`<${Case} key=${finding.id} finding=${finding} isOnly=${group.findings.length === 1} />`)}</ul>
    ${shownOnes.length < group.findings.length ? html`<button type="button" class="plain" onClick=${() => setAll(true)}>Show all ${group.findings.length.toLocaleString("en")}</button>` : null}
  </section>`;
}

/** One finding: its images and its actions. */
function Case({ finding }) {
  const { images } = store;
  const known = finding.images.filter((id) => images.rows.has(id));
  const place = useFocus();
  return html`<li ref=${place} tabindex="-1" class=${`case ${finding.open ? "" : "is-mended"}`}>
    ${known.length > 0 ? html`<ul class="thumbs">${known.slice(0, MANY).map((id) => {
      const row = images.rows.get(id);
      const label = images.labels[row] < 0 ? "no label" : images.classes[images.labels[row]];
      return html`<li key=${id}><${Thumbnail} id=${id} alt=${shown(images.names[row])} />
        <span class="small"><${Name}>${images.excluded[row] === 1 ? "excluded" : label}<//></span></li>`;
    })}${known.length > MANY ? html`<li class="small">and ${known.length - MANY} more</li>` : null}</ul>`
      : finding.names.length > 0 ? html`<p class="small">${finding.names.slice(0, MANY).map((name) => html`<${Name} key=${name}>${name}<//> `)}</p>` : null}
    <div>
      <p>${shown(finding.message)}</p>
      ${finding.open ? html`<div class="buttons is-left">${finding.actions.map((action) => html`<button type="button"
        key=${action.title} title=${consequence(action)} onClick=${() => send(action)}>${shown(action.title)}</button>`)}</div>`
        : html`<p class="small">Fixed.</p>`}
    </div>
  </li>`;
}

function send({ path, body, method }) {
  act(path, body, method);
}

/** Return a sentence that says what an action changes. */
export function consequence({ path, body, title }) {
  const count = counted(body?.ids?.length ?? 0, "image");
  const stays = "No file is changed, and you can undo this.";
  if (path === "/api/exclude") {
    return `${count} will ${body.excluded ? "no longer be used for training and evaluation" : "be used again"}. ${stays}`;
  }
  if (path === "/api/label") {
    return `${count} will ${body.label === null ? "lose the label" : `get the label ${shown(body.label)}`}. ${stays}`;
  }
  return `${shown(title)}. ${stays}`;
}
