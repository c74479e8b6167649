/** The worker as seen by the page: each task gets a promise of its result. */

/** Return a client of the worker of a script: `call(task, values, moved)` and `close()`. */
export function connect(url) {
  const worker = new Worker(url);
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data.answer);
    else reject(new Error(data.error));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const { reject } of waiting.values()) {
      reject(new Error(event.message || "This browser cannot start the classifier."));
    }
    waiting.clear();
  };
  return {
    call(task, values, moved = []) {
      return new Promise((resolve, reject) => {
        waiting.set(++count, { resolve, reject });
        worker.postMessage({ ...values, task, id: count }, moved);
      });
    },
    close: () => worker.terminate(),
  };
}
