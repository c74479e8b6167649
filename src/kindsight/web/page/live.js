/** The webcam on the page: live results, and photos that join the other images. */

import { byId } from "./dom.js";
import { spoken, summary } from "./verdict.js";
import { startWebcam } from "./webcam.js";

const QUIET_SECONDS = 2; // between announcements

/**
 * Return the webcam's part of the page: {stop, isOn}.
 *
 * `page` has the functions that it needs: `show(image)` shows a result, `started()` and `stopped()`
 * are called when the webcam replaces the selected image and when it ends, `add(images)` adds a
 * photo, `say(text)` makes a screen reader announce a text, `status(text)` shows one.
 */
export function createLive(classifier, ready, page) {
  let webcam = null;
  let taken = 0;

  async function toggle() {
    if (webcam !== null) {
      stop();
      return;
    }
    byId("webcam").disabled = byId("take").disabled = true;
    try {
      await ready;
      byId("live").hidden = false;
      webcam = await startWebcam(byId("video"), frameReader());
      webcam.finished.catch((error) => {
        stop();
        page.status(error.message);
      });
      page.started();
      byId("switch").hidden = webcam.cameras < 2;
      byId("webcam").textContent = "Stop webcam";
      byId("take").disabled = false;
      byId("take").focus();
    } catch (error) {
      byId("live").hidden = true;
      page.status(error.message);
    }
    byId("webcam").disabled = false;
  }

  /** Return a function that shows the result of a frame, and announces it when it changes. */
  function frameReader() {
    let said = "";
    let saidAt = 0;
    return async (bitmap) => {
      const { width, height } = bitmap;
      const answer = await classifier.classify({ bitmap }, 0);
      if (webcam === null) return;
      const image = { answer, error: "", size: { width, height } };
      page.show(image);
      const { text } = summary(image, classifier.info.classes);
      if (text !== said && performance.now() - saidAt > 1000 * QUIET_SECONDS) {
        [said, saidAt] = [text, performance.now()];
        page.say(spoken(image, classifier.info));
      }
    };
  }

  function stop() {
    if (webcam === null) return;
    webcam.stop();
    webcam = null;
    byId("live").hidden = true;
    byId("webcam").textContent = "Use the webcam";
    page.stopped();
  }

  async function take() {
    const file = await webcam?.capture(`webcam-${++taken}.png`);
    if (file) page.add([{ name: file.name, file }]);
  }

  byId("webcam").addEventListener("click", toggle);
  byId("take").addEventListener("click", take);
  byId("switch").addEventListener("click", () => webcam.next().catch((e) => page.status(e.message)));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || webcam === null) return;
    stop();
    byId("webcam").focus();
  });
  return { stop, isOn: () => webcam !== null };
}
