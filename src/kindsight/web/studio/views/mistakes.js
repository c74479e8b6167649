/** Fourth step: the validation images that the classifier gets wrong. */

import { useState } from "../../vendor/preact/hooks.js";
import { percent, shown } from "../../page/dom.js";
import { counted, html, Name, Thumbnail, useFocus } from "../parts.js";
import { ChooseRun, NotTrained, runName, useRun } from "../run.js";
import { exclude, label, store } from "../store.js";

const MATRIX = 16; // classes up to which the confusion matrix is shown
const PAGE = 24; // mistakes that are shown at first

export function MistakesView() {
  const run = useRun();
  const [cell, setCell] = useState(null); // {label, prediction}
  const [count, setCount] = useState(PAGE);
  if (runName() === undefined) return html`<div class="lead"><h1>Mistakes</h1></div><${NotTrained} what="This step" />`;
  if (run === undefined) return html`<p class="empty">Loading</p>`;
  const mistakes = run.mistakes.filter((each) => cell === null || (each.label === cell.label && each.prediction === cell.prediction));
  const choose = (next) => {
    setCell(next);
    setCount(PAGE);
  };
  return html`
    <div class="lead"><div class="bar"><h1>Mistakes</h1><${ChooseRun} /></div>
      <p class="quiet">${run.wrong === 0 ? `No mistakes on the ${run.split} images.` : `${counted(run.wrong, "mistake")} on the ${run.split} images${run.wrong === 1 ? "" : ", the most confident first"}. A confident mistake is
        often an image with a wrong label: correct it here, and train again.`}</p></div>
    ${run.labels.length <= MATRIX ? html`<${Matrix} run=${run} cell=${cell} choose=${choose} />` : html`<${Confusions} run=${run} cell=${cell} choose=${choose} />`}
    ${cell === null ? null : html`<p class="filter-line"><strong><${Name}>${cell.label}<//> predicted as <${Name}>${cell.prediction}<//></strong>: ${counted(mistakes.length, "image")}
      <button type="button" class="plain" onClick=${() => choose(null)}>Show all mistakes</button></p>`}
    <ul class="mistakes">${mistakes.slice(0, count).map((each) => html`<${Mistake} key=${each.path} mistake=${each} />`)}</ul>
    ${count < mistakes.length ? html`<button type="button" onClick=${() => setCount(count + 2 * PAGE)}>Show more</button>` : null}`;
}

function Matrix({ run, cell, choose }) {
  const { labels, confusion } = run;
  const totals = confusion.map((row) => Math.max(1, row.reduce((sum, value) => sum + value, 0)));
  return html`<p class="small" id="matrix-help">Rows: the label. Columns: the prediction. Choose a number to see its images.</p>
    <div class="matrix" tabindex="0" role="region" aria-label="Confusion matrix" aria-describedby="matrix-help">
    <table>
      <thead><tr><td></td>${labels.map((name) => html`<th key=${name} scope="col"><span><${Name}>${name}<//></span></th>`)}</tr></thead>
      <tbody>${labels.map((name, row) => html`<tr key=${name}><th scope="row"><${Name}>${name}<//></th>
        ${labels.map((other, column) => {
          const value = confusion[row][column];
          const share = value / totals[row];
          const isWrong = row !== column && value > 0;
          const isChosen = cell !== null && cell.label === name && cell.prediction === other;
          return html`<td key=${other} class=${row === column ? "is-right" : isWrong ? "is-mistake" : "is-zero"} style=${{ "--share": share }}>
            ${isWrong ? html`<button type="button" aria-pressed=${isChosen ? "true" : "false"} aria-label=${`${value} of ${shown(name)} predicted as ${shown(other)}`}
              onClick=${() => choose(isChosen ? null : { label: name, prediction: other })}>${value.toLocaleString("en")}</button>` : value === 0 ? "·" : value.toLocaleString("en")}</td>`;
        })}</tr>`)}</tbody></table></div>`;
}

/** The most frequent confusions, where a matrix would be too large. */
function Confusions({ run, cell, choose }) {
  const { labels, confusion } = run;
  const found = confusion.flatMap((row, from) => row.map((value, to) => ({ value, label: labels[from], prediction: labels[to] })))
    .filter(({ value, label: name, prediction }) => value > 0 && name !== prediction)
    .sort((a, b) => b.value - a.value).slice(0, 20);
  return html`<ul class="confusions" aria-label="Most frequent confusions">${found.map((each) => {
    const isChosen = cell !== null && cell.label === each.label && cell.prediction === each.prediction;
    return html`<li key=${`${each.label}/${each.prediction}`}><button type="button" aria-pressed=${isChosen ? "true" : "false"} onClick=${() => choose(isChosen ? null : each)}>
      <${Name}>${each.label}<//> as <${Name}>${each.prediction}<//> <span class="number">${each.value}</span></button></li>`;
  })}</ul>`;
}

function Mistake({ mistake }) {
  const { images } = store;
  const row = images.rows.get(mistake.id);
  const isKnown = mistake.id !== null && row !== undefined;
  const now = !isKnown ? mistake.label : images.labels[row] < 0 ? null : images.classes[images.labels[row]];
  const isExcluded = isKnown && images.excluded[row] === 1;
  const place = useFocus();
  const state = isExcluded ? "Excluded." : now !== mistake.label ? html`Label now: <strong><${Name}>${now ?? "none"}<//></strong>.` : null;
  const name = isKnown ? images.names[row] : mistake.path;
  const probabilities = Object.entries(mistake.probabilities ?? { [mistake.prediction]: mistake.confidence })
    .sort((a, b) => b[1] - a[1]).slice(0, 3);
  return html`<li ref=${place} tabindex="-1" class=${`mistake ${state === null ? "" : "is-mended"}`}>
    ${isKnown ? html`<${Thumbnail} id=${mistake.id} alt=${shown(name)} />` : html`<span class="thumb is-unreadable">not in the project</span>`}
    <div class="mistake-text">
      <p>Label <strong><${Name}>${mistake.label}<//></strong>, predicted <strong class="is-predicted"><${Name}>${mistake.prediction}<//></strong></p>
      <ul class="small-bars">${probabilities.map(([each, share]) => html`<li key=${each}><span><${Name}>${each}<//></span>
        <span class="number">${percent(share)}</span><i class="meter" style=${{ "--share": share}}></i></li>`)}</ul>
      <p class="cell-name"><${Name}>${name}<//></p>
      ${state === null ? html`<div class="buttons is-left">
        ${isKnown ? html`<button type="button" onClick=${() => label([mistake.id], mistake.prediction)}>It is <${Name}>${mistake.prediction}<//></button>
        <select aria-label=${`Another label for ${shown(name)}`} value="" onChange=${(event) => label([mistake.id], event.target.value)}>
          <option value="">It is…</option>${images.classes.filter((each) => each !== mistake.label && each !== mistake.prediction).map((each) => html`<option key=${each} value=${each}>${shown(each)}</option>`)}</select>
        <button type="button" onClick=${() => exclude([mistake.id], true)}>Exclude</button>` : null}</div>`
        : html`<p class="small">${state} Train again to apply the change. <button type="button" class="plain" onClick=${() => (isExcluded ? exclude([mistake.id], false) : label([mistake.id], mistake.label))}>Take back</button></p>`}
    </div></li>`;
}
