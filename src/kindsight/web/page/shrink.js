/** The worker of the served page: small copies of images, off the page's thread. */

/** Handle a message of the page, {id, blob, side}; the response has the same id. */
self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, answer: await shrunk(data.blob, data.side) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};

/** Return {thumbnail, width, height}: a small image as a Blob, and the size of the whole one. */
async function shrunk(blob, side) {
  const image = await createImageBitmap(blob);
  const { width, height } = image;
  const scale = Math.min(1, side / Math.max(width, height));
  const size = [width, height].map((length) => Math.max(1, Math.round(length * scale)));
  const canvas = new OffscreenCanvas(...size);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "medium";
  pen.fillStyle = "#fff"; // where an image is transparent
  pen.fillRect(0, 0, ...size);
  pen.drawImage(image, 0, 0, ...size);
  image.close();
  return { thumbnail: await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 }), width, height };
}
