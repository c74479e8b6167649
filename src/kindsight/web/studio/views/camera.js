/** The webcam: takes images of a class while a button is held. */

import { useEffect, useRef, useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { startWebcam } from "../../page/webcam.js";
import { addImages, newBatch } from "./add.js";
import { counted, html } from "../parts.js";
import { set, store } from "../store.js";

const PERIOD = 150; // milliseconds between two images

export function Camera({ target, close }) {
  const video = useRef(null);
  const camera = useRef(null);
  const held = useRef(false);
  const [problem, setProblem] = useState("");
  const [isReady, setReady] = useState(false);
  const [label, setLabel] = useState(target ?? "");
  const [count, setCount] = useState(0);

  useEffect(() => setLabel(target ?? ""), [target]);
  useEffect(() => {
    let isClosed = false;
    startWebcam(video.current, async (bitmap) => bitmap.close()).then((started) => {
      camera.current = started;
      if (isClosed) started.stop();
      else setReady(true);
    }, (error) => setProblem(error.message));
    return () => {
      isClosed = true;
      held.current = false;
      camera.current?.stop();
    };
  }, []);

  /** Take images until the button is released. */
  const hold = async () => {
    if (held.current || !isReady) return;
    held.current = true;
    const batch = newBatch();
    const into = label === "" ? null : label;
    const sent = [];
    let number = 0;
    while (held.current || number === 0) {
      const start = performance.now();
      const name = `webcam-${stamp()}-${String(++number).padStart(3, "0")}.jpg`;
      const file = await camera.current.capture(name, "image/jpeg");
      setCount((before) => before + 1);
      sent.push(addImages([{ name, file }], { label: into, source: "webcam", batch }));
      const pause = Math.max(0, PERIOD - (performance.now() - start));
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    await Promise.all(sent);
    set({ message: `${counted(number, "image")} taken${into === null ? "" : ` for ${shown(into)}`}` });
  };
  const release = () => {
    held.current = false;
  };
  const onKey = (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    if (event.type === "keydown") hold();
    else release();
  };

  return html`<section class="camera" aria-label="Webcam"
    onKeyDown=${(event) => event.key === "Escape" && close()}>
    <div class="camera-view"><video ref=${video} muted playsinline></video></div>
    <div class="camera-side">
      ${problem ? html`<p role="alert" class="is-wrong">${problem}</p>` : null}
      <label class="field">Add images to class
        <select value=${label} onChange=${(event) => setLabel(event.target.value)}>
          <option value="">no class yet</option>
          ${store.images.classes.map((name) => html`<option key=${name} value=${name}>${shown(name)}</option>`)}
        </select></label>
      <button type="button" class="primary hold" disabled=${!isReady}
        onPointerDown=${(event) => { event.currentTarget.setPointerCapture(event.pointerId); hold(); }}
        onPointerUp=${release} onPointerCancel=${release} onBlur=${release}
        onContextMenu=${(event) => event.preventDefault()} onKeyDown=${onKey} onKeyUp=${onKey}>Hold to take images</button>
      <p class="small">Turn and move the object while you hold the button. You can also hold the space bar.
        Images stay on this computer.</p>
      <p class="number" role="status">${count > 0 ? `${counted(count, "image")} taken` : ""}</p>
      <div class="buttons is-left"><button type="button" onClick=${close}>Close the webcam</button></div>
    </div>
  </section>`;
}

/** Return the time of day for the name of a file. */
function stamp() {
  return new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-");
}
