/** Last step: export of the classifier as a web page, or for a phone or another program. */

import { useEffect, useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { ask, request } from "../api.js";
import { counted, html, Job, Name } from "../parts.js";
import { ChooseRun, NotTrained, runName } from "../run.js";
import { attempt, isActive, latestJob, startJob, store } from "../store.js";

const FORMATS = {
  web: ["Web page in one file", "Opens in any browser, without an internet connection. Send it, or put it on a website."],
  litert: ["Android, Raspberry Pi", "For an app on a phone or a small computer; full precision."],
  "litert-float16": ["Android, half the size", "Half precision; almost the same probabilities."],
  "litert-dynamic": ["Android, a third of the size", "8-bit weights; may differ on a few images."],
  "litert-int8": ["Android, fastest", "8-bit weights and arithmetic; may differ on a few images."],
  coreml: ["iPhone, iPad and Mac", "For an app in Xcode."],
  onnx: ["Windows, servers, C++, C#, Java", "ONNX, a format that many programs can read."],
  openvino: ["Intel processors", "OpenVINO, full precision."],
  "openvino-float16": ["Intel processors, half the size", "OpenVINO, half precision; almost the same probabilities."],
  savedmodel: ["TensorFlow Serving", "For servers with TensorFlow."],
};
const ORDER = Object.keys(FORMATS);

export function ExportView() {
  const [chosen, setChosen] = useState(["web"]);
  const [exports_, setExports] = useState([]);
  const job = latestJob("export");
  const run = runName();
  const isBusy = isActive(job);
  useEffect(() => {
    attempt(async () => {
      const answer = await ask("GET", "/api/exports");
      setExports(Array.isArray(answer) ? answer : answer.exports);
    });
  }, [job?.state, store.runs]);
  if (run === undefined) return html`<div class="lead"><h1>Export</h1></div><${NotTrained} what="This step" />`;
  const formats = [...store.project.formats].sort((a, b) => place(a.name) - place(b.name));
  const toggle = (name) => setChosen(chosen.includes(name) ? chosen.filter((each) => each !== name) : [...chosen, name]);
  const start = (event) => {
    event.preventDefault();
    startJob("/api/export", { run, to: chosen });
  };
  return html`
    <div class="lead"><div class="bar"><h1>Export</h1><${ChooseRun} /></div>
      <p class="quiet">Use the classifier outside the studio. Each export is run on the validation images and compared with
        the classifier. It is saved only if both agree.</p></div>
    <form onSubmit=${start}>
      <fieldset class="formats"><legend class="unseen">Formats</legend>
        ${formats.map(({ name, needs }) => html`<label key=${name} class=${`option ${needs ? "is-missing" : ""}`}>
          <input type="checkbox" checked=${chosen.includes(name) && !needs} disabled=${!!needs} onChange=${() => toggle(name)} />
          <span><strong>${FORMATS[name]?.[0] ?? name}</strong><br />${FORMATS[name]?.[1] ?? ""}
          <span class="small"><br />${needs ? html`Needs: <code>${needs}</code>` : name}</span></span></label>`)}
      </fieldset>
      <div class="buttons is-left"><button type="submit" class="primary" disabled=${isBusy || chosen.length === 0}>Export</button></div>
    </form>
    <${Job} job=${job} />
    ${exports_.length > 0 ? html`<section class="exports" aria-labelledby="exports-title"><h2 id="exports-title">${counted(exports_.length, "export")}</h2>
      <ul>${exports_.map((each) => html`<${Exported} key=${`${each.run}/${each.format}/${each.folder}`} exported=${each} />`)}</ul></section>` : null}`;
}

function place(name) {
  const found = ORDER.indexOf(name);
  return found < 0 ? ORDER.length : found;
}

function Exported({ exported }) {
  const { run, format, folder, main, proof } = exported;
  const address = `/api/exports/${encodeURIComponent(run)}/${encodeURIComponent(format)}/${encodeURIComponent(main)}`;
  return html`<li class="export">
    <h3>${FORMATS[format]?.[0] ?? format} <span class="small">${format} of <${Name}>${run}<//></span></h3>
    <p class="path"><code>${shown(folder)}</code></p>
    <div class="buttons is-left">${main ? html`<button type="button" onClick=${() => download(address, main)}>Download <${Name}>${main}<//></button>` : null}</div>
    ${proof ? html`<${Proof} proof=${proof} />` : null}
  </li>`;
}

/** The comparison of an export with its classifier. */
function Proof({ proof }) {
  const percentage = (value) => (value == null ? null : `${(100 * value).toFixed(1)}%`);
  const { largest } = proof.probability_difference;
  const rows = [
    ["images compared", proof.images.toLocaleString("en")],
    ["same label as the classifier", percentage(proof.label_agreement)],
    ["largest difference between probabilities", largest == null ? null : String(Number(largest.toPrecision(1)))],
    ["accuracy of the export", percentage(proof.exported_accuracy?.accuracy)],
    ["accuracy of the classifier", percentage(proof.accuracy?.accuracy)],
    ["time for one image", proof.latency_seconds == null ? null : `${(1000 * proof.latency_seconds).toPrecision(2)} ms`],
  ].filter(([, value]) => value !== null);
  return html`<table class="proof"><caption class="unseen">Comparison with the classifier</caption><tbody>
    ${rows.map(([name, value]) => html`<tr key=${name}><th scope="row">${name}</th><td class="number">${value}</td></tr>`)}</tbody></table>`;
}

async function download(address, name) {
  await attempt(async () => {
    const blob = await (await request("GET", address)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
