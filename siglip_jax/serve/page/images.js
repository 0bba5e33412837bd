// Images that were dropped, pasted or chosen, as files and as what a request holds.

/** An image of the user's; `input` is what goes into a request, its bytes as they are. */
export class Picture {
  constructor(file) {
    this.name = file.name || "pasted image";
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.scores = null; // of the last answer
    this.asked = ""; // what that was the answer to
    this.error = "";
  }

  input() {
    this.read ??= read(this.file);
    return this.read;
  }

  close() {
    URL.revokeObjectURL(this.url);
  }
}

async function read(file) {
  const uri = await new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
  // Browsers know no type for some formats; the server looks at the bytes.
  return file.type.startsWith("image/") ? uri : uri.slice(uri.indexOf(",") + 1);
}

const OTHERS = /\.(heic|heif|avif|tiff?|bmp|webp)$/i;

/** Files that may be images, and the names of those that are not. */
export function sorted(files) {
  const images = [];
  const others = [];
  for (const file of files) {
    const known = file.type ? file.type.startsWith("image/") : OTHERS.test(file.name);
    (known ? images : others).push(file);
  }
  return { images, others: others.map((file) => file.name) };
}

/** Calls `add` with files that are dropped on, or pasted into, the page. */
export function listen(add, veil) {
  const files = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // dragenter and dragleave come for every element on the way
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(depth + change, 0);
    veil.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => files(event) && show(1));
  document.addEventListener("dragleave", (event) => files(event) && show(-1));
  document.addEventListener("dragover", (event) => files(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    show(0);
    if (!files(event)) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (!pasted.length) return;
    event.preventDefault();
    add(pasted);
  });
}
