/** Image files from all sources: a drop with folders, a file dialog, the clipboard. */

const ENDINGS = /\.(jpe?g|jfif|png|gif|webp|bmp|avif|tiff?|jp2|heic|heif|ico|ppm|pgm|pbm)$/i;
const MAX_FILES = 20000; // of a drop, unless the page sets another limit

/** Return [{name, file}] of chosen files; of a folder, the images in it. */
export function fromInput(list) {
  return Array.from(list, (file) => ({ name: file.webkitRelativePath || file.name, file }))
    .filter(({ name, file }) => !name.includes("/") || isImage(file));
}

/** Return [{name, file}] of a drop; folders are searched, for at most `limit` files. */
export async function fromDrop(transfer, limit = MAX_FILES) {
  const entries = Array.from(transfer.items ?? [], (item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return fromInput(transfer.files);
  const found = [];
  for (const entry of entries) if (entry !== null) await search(entry, "", found, limit);
  return found;
}

/** Return [{name, file}] of images in the clipboard. */
export function fromClipboard(transfer) {
  return Array.from(transfer?.files ?? []).filter(isImage).map((file) => {
    return { name: file.name === "image.png" ? "pasted.png" : file.name, file };
  });
}

function isImage(file) {
  return file.type.startsWith("image/") || ENDINGS.test(file.name);
}

async function search(entry, folder, found, limit) {
  if (found.length >= limit || entry.name.startsWith(".")) return;
  const name = folder + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file !== null && (folder === "" || isImage(file))) found.push({ name, file });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a reader gives a hundred entries at a time
    const entries = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (entries.length === 0) return;
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const inner of entries) await search(inner, `${name}/`, found, limit);
  }
}
