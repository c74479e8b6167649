/** The queue of images to classify; several are classified at the same time. */

const THUMBNAIL = 320; // pixels of the longer side

/**
 * Return the queue of a page: {add, clear, resume, isBusy}.
 *
 * `events` are called: `finished(image)`, `progress(left)`, `idle(done, image)`
 * and `stopped(error, left)`, after an error that is not about the image: `error.isPassing`.
 */
export function createQueue(classifier, ready, events) {
  let batch = newBatch();

  function newBatch() {
    return { waiting: [], running: 0, done: 0, isStopped: false, last: null,
      controller: new AbortController() };
  }

  function add(images) {
    batch.waiting.push(...images);
    resume();
  }

  /** Forget all images, and cancel what is under way. */
  function clear() {
    batch.controller.abort();
    batch = newBatch();
  }

  /** Continue, also after a stop. */
  async function resume() {
    const started = batch;
    started.isStopped = false;
    try {
      await ready;
    } catch {
      return; // the page shows why
    }
    if (started === batch) start(batch);
  }

  function start(current) {
    const most = classifier.atOnce ?? 1;
    while (!current.isStopped && current.running < most && current.waiting.length > 0) {
      current.running++;
      run(current, current.waiting.shift());
    }
  }

  async function run(current, image) {
    const { signal } = current.controller;
    let error = null;
    let answer = null;
    try {
      const side = image.url === null ? THUMBNAIL : 0;
      answer = await classifier.classify({ blob: image.file, signal }, side);
    } catch (caught) {
      error = caught;
    }
    if (current !== batch) return; // cleared meanwhile
    current.running--;
    if (error?.isPassing) {
      current.waiting.unshift(image);
      if (!current.isStopped) events.stopped(error, current.waiting.length + current.running);
      current.isStopped = true;
      return;
    }
    keep(image, answer, error);
    current.done++;
    current.last = image;
    events.finished(image);
    const left = current.waiting.length + current.running;
    if (current.isStopped) return;
    events.progress(left);
    start(current);
    if (left === 0) {
      events.idle(current.done, image);
      current.done = 0;
    }
  }

  function keep(image, answer, error) {
    image.error = error === null ? "" : error.message;
    image.code = error === null ? "" : error.code ?? "unreadable";
    image.answer = answer;
    if (answer?.width) image.size = { width: answer.width, height: answer.height };
    if (answer?.thumbnail) image.url = URL.createObjectURL(answer.thumbnail);
  }

  return { add, clear, resume, isBusy: () => batch.running + batch.waiting.length > 0 };
}
