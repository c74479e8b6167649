/** The webcam: frames to the classifier, one after the other, as fast as it takes them. */

/**
 * Start the webcam in a video element and call `classify(bitmap)` for each frame until it is
 * stopped. Returns {stop, next, capture, cameras}; `next` changes to another camera.
 */
export async function startWebcam(video, classify) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("This browser allows the webcam only on pages opened over https or from this device.");
  }
  let stream = await open({ facingMode: "environment" });
  let isStopped = false;
  const show = async () => {
    video.srcObject = stream;
    await video.play();
  };
  await show();
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter((device) => device.kind === "videoinput");
  let current = cameras.findIndex((camera) => {
    return camera.deviceId === stream.getVideoTracks()[0]?.getSettings().deviceId;
  });
  const run = async () => {
    while (!isStopped) {
      if (video.readyState >= 2) await classify(await createImageBitmap(video));
      await new Promise((resolve) => {
        if (video.requestVideoFrameCallback && !document.hidden) {
          video.requestVideoFrameCallback(resolve);
        }
        setTimeout(resolve, 200); // a hidden video has no frames
      });
    }
  };
  const finished = run();
  return {
    cameras: cameras.length,
    finished,
    async next() {
      current = (current + 1) % cameras.length;
      close(stream);
      stream = await open({ deviceId: { exact: cameras[current].deviceId } });
      await show();
    },
    /** Return the current frame as a file. */
    async capture(name, type = "image/png") {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      canvas.getContext("2d").drawImage(video, 0, 0);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
      return new File([blob], name, { type });
    },
    stop() {
      isStopped = true;
      close(stream);
      video.srcObject = null;
    },
  };
}

async function open(video) {
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    const reasons = {
      NotAllowedError: "Access to the webcam was denied. Allow it for this page in the browser's settings.",
      NotFoundError: "This device has no webcam.",
      NotReadableError: "Another program uses the webcam.",
    };
    throw new Error(reasons[error.name] ?? `The webcam could not be started (${error.name}).`);
  }
}

function close(stream) {
  for (const track of stream.getTracks()) track.stop();
}
