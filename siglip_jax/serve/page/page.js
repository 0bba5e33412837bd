// The page: what is asked of the server when images, labels, templates or the model change.

import { Refusal, ask, file, pause, useKey } from "./api.js";
import { Card } from "./cards.js";
import { Code } from "./code.js";
import { afterwards, find, make, percent, say, sigmoid, signed } from "./elements.js";
import { Picture, listen, sorted } from "./images.js";
import { Labels } from "./labels.js";
import { Search } from "./search.js";

const AT_ONCE = 4; // requests, one image each: then one that is refused spoils no other
const TYPING = 180; // milliseconds without a key after which is asked

const cards = new Map(); // picture to card
const code = new Code();
const labels = new Labels(changed, afterwards(changed, TYPING));
let models = [];
let ready = false; // before that the server refuses
let search = null;
let running = new AbortController();

// What is asked.

const bias = () => Number(find("bias").value);
const templates = () =>
  find("templates").value.split("\n").map((line) => line.trim()).filter(Boolean);
const question = () => ({
  model: find("model").value,
  labels: labels.all,
  ...(templates().length && { templates: templates() }),
});

function changed() {
  running.abort();
  running = new AbortController();
  show();
  const asked = question();
  if (!ready || !asked.labels.length) return;
  problem(null);
  const name = JSON.stringify(asked);
  const waiting = [...cards.values()].filter(({ picture }) => picture.asked !== name);
  const { signal } = running;
  const worker = async () => {
    for (let card; (card = waiting.shift()) && !signal.aborted; ) {
      await score(card, asked, name, signal);
    }
  };
  const workers = Array.from({ length: AT_ONCE }, worker);
  Promise.all(workers).then(() => !signal.aborted && tell());
}

async function score(card, asked, name, signal) {
  const { picture } = card;
  card.waiting = true;
  try {
    const answer = await ask("v1/classify", { ...asked, input: await picture.input() }, signal);
    Object.assign(picture, { scores: answer.data[0].scores, asked: name, error: "" });
  } catch (error) {
    if (error.name === "AbortError") return; // another question is on its way
    // What is wrong with the image is said beside it, what is wrong with all of them once.
    const own = !(error instanceof Refusal) || /^(input|image)/.test(error.param ?? "");
    const said = error.message.replace(/^(input|image): /, "");
    if (own) Object.assign(picture, { asked: name, error: said });
    else {
      problem(error);
      running.abort(); // the others would be told the same
    }
  } finally {
    card.waiting = false;
  }
  show();
}

// What is shown.

function show() {
  const asked = question();
  const last = { labels: asked.labels, draft: labels.draft, bias: bias(), thresholds };
  for (const card of cards.values()) card.show(last);
  const names = [...cards.keys()].map((picture) => picture.name);
  code.show({ ...asked, names, templates: templates() });
  const complete = cards.size > 0 && asked.labels.length > 0;
  find("empty").hidden = complete;
  find("examples").hidden = cards.size > 0 || !find("examples").querySelector("li");
  find("empty-text").textContent = !cards.size && !asked.labels.length
    ? "Add an image and some labels."
    : cards.size ? "Add some labels." : "Add an image.";
  find("bias-value").textContent = signed(bias(), 1);
  find("bias-reset").disabled = bias() === 0;
}

/**
 * The logit from which a calibration of the server accepts a label. A logit, as it is the same
 * whatever the calibration makes of it, and moves with the bars.
 */
function thresholds(label) {
  const model = models.find(({ id }) => id === find("model").value);
  const known = model?.calibration?.thresholds ?? {};
  return Object.hasOwn(known, label) ? known[label] : undefined;
}

/** For those who hear the page: the best label of every image, once all are there. */
function tell() {
  const said = [...cards.keys()].filter(({ scores, error }) => scores?.length && !error)
    .map(({ name, scores: [{ label, logit }] }) =>
      `${name}: ${label}, ${percent(sigmoid(logit + bias()))}`);
  if (said.length) say(said.join("; "));
}

function problem(error) {
  find("problem").hidden = !error;
  find("problem").textContent = error?.message ?? "";
  if (error?.status === 401) {
    find("key-form").hidden = false;
    find("key").focus();
  }
}

// What comes in.

function add(files) {
  const { images, others } = sorted(files);
  if (!find("search").hidden) {
    if (images.length) search.take(images[0]);
  } else {
    for (const image of images) {
      const picture = new Picture(image);
      const card = new Card(picture, () => remove(picture));
      cards.set(picture, card);
      find("cards").append(card.element);
    }
    changed();
  }
  if (others.length) problem({ message: `${others.join(", ")}: not an image` });
}

function remove(picture) {
  const { element } = cards.get(picture);
  const next = (element.nextElementSibling ?? element.previousElementSibling)
    ?.querySelector(".remove");
  element.remove();
  cards.delete(picture);
  picture.close();
  (next ?? find("files")).focus();
  say(`Removed ${picture.name}`);
  changed();
}

async function examples() {
  const { pictures } = await ask("static/examples.json");
  const items = pictures.map(({ name, path, labels: named }) => {
    const button = make("button", { type: "button" },
      make("img", { src: path, alt: name, width: 32, height: 32 }));
    button.addEventListener("click", async () => {
      const blob = await file(path);
      add([new File([blob], path.split("/").at(-1), { type: blob.type })]);
      if (!labels.entered.length) labels.add(named);
    });
    return make("li", {}, button);
  });
  find("examples").querySelector("ul").replaceChildren(...items);
  show();
}

// The server.

async function start() {
  try {
    models = (await ask("v1/models")).data;
    const choices = models.map(({ id }) => make("option", { value: id }, id));
    find("model").replaceChildren(...choices);
    find("model").disabled = choices.length < 2;
    problem(null);
    find("key-form").hidden = true;
    const [index] = (await ask("v1/index")).data;
    if (index && !search) search = new Search(index, problem);
    find("views").hidden = !index;
    view();
    for (;;) {
      const { status } = await ask("health");
      find("starting").hidden = status !== "starting";
      if (status !== "starting") break;
      await pause(500);
    }
    ready = true;
    changed();
  } catch (error) {
    problem(error);
  }
}

function view() {
  const searching = location.hash === "#search" && search !== null;
  find("classify").hidden = searching;
  find("search").hidden = !searching;
  for (const link of find("views").children) {
    if (link.hash === (searching ? "#search" : "#classify")) {
      link.setAttribute("aria-current", "page");
    } else link.removeAttribute("aria-current");
  }
  document.title = searching ? "Search · siglip_jax" : "siglip_jax";
}

find("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = ""; // so that the same file can be chosen again
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value);
  start();
});
find("model").addEventListener("change", changed);
find("templates").addEventListener("input", afterwards(changed, 2 * TYPING));
find("bias").addEventListener("input", show);
find("bias-reset").addEventListener("click", () => {
  find("bias").value = 0;
  find("bias").focus();
  show();
});
addEventListener("hashchange", view);
listen(add, find("veil"));
examples().catch(() => {}); // nothing that is missed
start();
