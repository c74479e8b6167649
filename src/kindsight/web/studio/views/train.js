/** Third step: the training, its result in words, and ways to improve it. */

import { useEffect, useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { ask } from "../api.js";
import { Curves } from "./curves.js";
import { accuracy, Command, counted, duration, html, Job, Name, withoutCommands } from "../parts.js";
import { ChooseRun, useRun } from "../run.js";
import { isActive, latestJob, startJob, store } from "../store.js";

const MINUTES = [2, 5, 10, 20, 30, 60, 120];
const FEWEST = 2; // images of a class with which a training can begin

export function TrainView() {
  const job = latestJob("train");
  const isBusy = isActive(job);
  const missing = whatIsMissing();
  const rows = store.epochs[job?.id] ?? [];
  return html`
    <div class="lead"><h1>Train</h1>
      <p class="quiet">The project has ${counted(store.project.labelled, "labelled image")} of ${store.project.classes.length === 1 ? "1 class" : `${store.project.classes.length.toLocaleString("en")} classes`}.
        A fifth of them are not used for training, but to measure the accuracy.</p></div>
    ${isBusy ? null : html`<${Choice} missing=${missing} />`}
    <${Job} job=${job} />
    ${isBusy && rows.length > 0 ? html`<${Curves} rows=${rows} />` : null}
    ${store.runs.length > 0 ? html`<${Result} isBusy=${isBusy} />` : null}`;
}

/** Return why no training can begin; an empty text if one can. */
function whatIsMissing() {
  const { classes } = store.project;
  const filled = classes.filter((each) => each.images > 0);
  if (filled.length < 2) return "Training needs images of at least two classes.";
  const small = filled.filter((each) => each.images < FEWEST);
  if (small.length === 0) return "";
  return `Training needs at least ${FEWEST} images of each class. Too few: ${small.map(({ name }) => shown(name)).slice(0, 3).join(", ")}.`;
}

function Choice({ missing }) {
  const [kind, setKind] = useState("quick");
  const [minutes, setMinutes] = useState(10);
  const body = kind === "quick" ? {} : { budget: `${minutes}m` };
  const command = usePreview(body, missing);
  const start = (event) => {
    event.preventDefault();
    startJob("/api/train", body);
  };
  return html`<form class="choice" onSubmit=${start}>
    <fieldset><legend class="unseen">How to train</legend>
      <label class="option"><input type="radio" name="kind" checked=${kind === "quick"} onChange=${() => setKind("quick")} />
        <span><strong>Quick</strong> <span class="small">usually a minute or two</span><br />
        Uses a network that was trained on a million photographs, and trains only a small new layer that tells
        your classes apart.</span></label>
      <label class="option"><input type="radio" name="kind" checked=${kind === "budget"} onChange=${() => setKind("budget")} />
        <span><strong>As good as the time allows</strong>
        <select aria-label="Time" value=${minutes} onChange=${(event) => { setMinutes(Number(event.target.value)); setKind("budget"); }}>
          ${MINUTES.map((each) => html`<option key=${each} value=${each}>${each} minutes</option>`)}</select><br />
        Tries several methods, including larger networks and fine-tuning, and uses the best.</span></label>
    </fieldset>
    ${missing ? html`<p class="note">${missing} <a href="#images">To the images</a></p>` : null}
    <div class="buttons is-left"><button type="submit" class="primary" disabled=${missing !== ""}>Train</button>
      <span class="small">You can stop and continue later. The images stay on this computer.</span></div>
    ${command ? html`<${Command} text=${command} label="This will run" />` : null}
  </form>`;
}

/** Return the command of a training before it is run. */
function usePreview(body, missing) {
  const [command, setCommand] = useState("");
  useEffect(() => {
    let isCurrent = true;
    if (missing === "") {
      ask("POST", "/api/train/preview", { json: body }).then((answer) => isCurrent && setCommand(answer.command), () => {});
    }
    return () => { isCurrent = false; };
  }, [JSON.stringify(body), missing]);
  return missing === "" ? command : "";
}

function Result({ isBusy }) {
  const run = useRun();
  if (run === undefined) return null;
  return html`<section class="result" aria-labelledby="result-title">
    <div class="bar"><h2 id="result-title">Result</h2><${ChooseRun} /></div>
    ${run.error ? html`<p class="is-wrong">${shown(run.error)}</p>` : html`
      <div class="headline">
        ${run.accuracy == null ? null : html`<p class="big number">${(100 * run.accuracy).toFixed(0)}<span>%</span></p>`}
        <div><p class="says">${inWords(run)}</p>
          ${run.accuracy == null ? null : html`<p class="small">${accuracy(run.accuracy, run.interval)} on the ${run.split} images${run.seconds ? `; trained in ${duration(run.seconds)}` : ""}.</p>`}
          ${(run.words ?? []).slice(1).map((sentence) => html`<p key=${sentence} class="small">${shown(sentence)}</p>`)}</div>
      </div>
      <${Classwise} run=${run} />
      <${Curves} rows=${run.epochs ?? []} />
      <${Diagnosis} run=${run} isBusy=${isBusy} />
      <div class="buttons is-left">
        <a class="button" href="#mistakes">See the mistakes</a><a class="button" href="#try">Try it</a>
        <a class="button" href="#export">Export</a>
        ${run.report ? html`<a class="button" href=${run.report} target="_blank" rel="noopener">Open the full report</a>` : null}</div>`}
  </section>`;
}

/** Return sentences that explain an accuracy and its interval. */
export function inWords({ accuracy: share, interval, correct, total }) {
  if (share == null) return "All images were used for training, so the accuracy was not measured.";
  const counts = total ? `${correct.toLocaleString("en")} of ${counted(total, "image")} that it had not seen were classified correctly.` : "";
  if (!interval) return counts;
  const [low, high] = interval.map((value) => Math.round(100 * value));
  const range = high - low >= 2 ? `On other images like these, expect ${low} to ${high} of 100 to be correct.` : `On other images like these, expect about ${high} of 100 to be correct.`;
  const wide = high - low > 20 ? " The range is wide because it is measured on few images: more images make it narrower." : "";
  return `${counts} ${range}${wide}`;
}

function Classwise({ run }) {
  const classes = (run.per_class ?? []).filter((each) => Number.isFinite(each.recall));
  if (classes.length === 0) return null;
  const sorted = [...classes].sort((a, b) => a.recall - b.recall).slice(0, 12);
  return html`<div class="classwise"><h3>${classes.length > 12 ? "The 12 hardest classes" : "Class by class"}</h3>
    <table><thead><tr><th scope="col">class</th><th scope="col">recognised</th><th scope="col" class="wide"><span class="unseen">bar</span></th><th scope="col">images</th></tr></thead>
    <tbody>${sorted.map((each) => html`<tr key=${each.name}><th scope="row"><${Name}>${each.name}<//></th>
      <td class="number">${(100 * each.recall).toFixed(0)}%</td>
      <td class="wide"><i class="meter" style=${{ "--share": each.recall }}></i></td>
      <td class="number">${each.images.toLocaleString("en")}</td></tr>`)}</tbody></table></div>`;
}

function Diagnosis({ run, isBusy }) {
  const found = run.diagnosis ?? [];
  if (found.length === 0) return html`<p class="quiet">No problem was found that limits the accuracy. More images of the classes that it confuses help most.</p>`;
  return html`<div class="diagnosis"><h3>What limits the accuracy, and what to try</h3>
    ${found.map((finding) => html`<section key=${finding.code} class=${`finding is-${finding.severity}`}>
      <h4>${shown(finding.title)} <span class="small">${finding.code}</span></h4>
      <p>${shown(withoutCommands(finding.message))}</p>
      <p class="small">${shown(withoutCommands(finding.evidence))}</p>
      ${(finding.trainings ?? []).map((body, place) => html`<div key=${place} class="buttons is-left">
        <button type="button" disabled=${isBusy} onClick=${() => startJob("/api/train", body)}>${remedyTitle(finding.remedies[place])}</button></div>`)}
      ${(finding.trainings ?? []).length === 0 && finding.code === "KD109" ? html`<div class="buttons is-left"><a class="button" href="#check">Check thoroughly</a></div>` : null}
      ${finding.commands.length === 0 ? null : html`<details><summary>${finding.commands.length === 1 ? "As a command" : "As commands"}</summary>
        ${finding.commands.map((command) => html`<${Command} key=${command} text=${command} label="" />`)}</details>`}
    </section>`)}</div>`;
}

/** Return the title of a training with changed options; null stands for an option's default. */
function remedyTitle(changes) {
  const changed = Object.entries(changes).filter(([, value]) => value !== null).map(([name, value]) => inTitle(name, value));
  return changed.length === 0 ? "Train again with the default settings" : `Train again: ${shown(changed.slice(0, 4).join(", "))}`;
}

/** Return an option and its value as a beginner reads them. */
function inTitle(name, value) {
  const isCount = (name === "validation" || name === "test") && value >= 1;
  if (isCount) return `measure on ${counted(value, "image")}`;
  if (name === "class_weight" && value === "balanced") return "give all classes equal weight";
  if (name === "group_near_duplicates" && value) return "keep near-duplicates in one split";
  if (name === "leakage" && value === "drop") return "drop duplicates across splits";
  if (name === "epochs") return counted(value, "epoch");
  return `${name.replaceAll("_", " ")} ${Array.isArray(value) ? value.join(", ") : value}`;
}
