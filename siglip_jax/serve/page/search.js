// Search in the index that the server was started with: a text or an image, and a grid of hits.

import { ask, file } from "./api.js";
import { find, make, percent, remover, say } from "./elements.js";
import { Picture } from "./images.js";

export class Search {
  /** `failed` is called with an error of the server, or null when all is well. */
  constructor(index, failed) {
    this.index = index;
    this.failed = failed;
    this.urls = [];
    const count = index.rows.toLocaleString("en");
    find("index-about").textContent = `${count} ${index.what}, as ${index.model} sees them`;
    find("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    find("count").addEventListener("change", () => this.run());
    find("query-file").addEventListener("change", (event) => {
      const [chosen] = event.target.files;
      event.target.value = "";
      if (chosen) this.take(chosen);
    });
    find("query").addEventListener("input", () => this.take(null));
  }

  /** Searches for an image; null takes it away. */
  take(given) {
    if (!given && !this.picture) return;
    this.picture?.close();
    this.picture = given && new Picture(given);
    const chip = find("query-image");
    chip.hidden = !given;
    chip.replaceChildren();
    if (!given) return;
    find("query").value = "";
    chip.append(make("img", { src: this.picture.url, alt: "" }),
      make("span", {}, this.picture.name),
      remover(this.picture.name, () => {
        this.take(null);
        find("query").focus();
      }));
    this.run();
  }

  async run() {
    const text = find("query").value.trim();
    if (!text && !this.picture) return;
    this.running?.abort();
    const { signal } = (this.running = new AbortController());
    find("hits").setAttribute("aria-busy", "true");
    try {
      const query = this.picture ? { image: await this.picture.input() } : { text };
      const body = { model: this.index.model, query, k: Number(find("count").value) };
      const answer = await ask("v1/search", body, signal);
      this.failed(null);
      this.show(answer.data[0].hits, signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.failed(error);
    }
    find("hits").setAttribute("aria-busy", "false");
  }

  show(hits, signal) {
    this.urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
    find("hits").replaceChildren(...hits.map((hit) => this.hit(hit, signal)));
    find("search-empty").hidden = hits.length > 0;
    say(hits.length ? `${hits.length} found, the best is ${hits[0].key}` : "Nothing was found");
  }

  hit(hit, signal) {
    const seen = make("div", { className: "image" });
    if (hit.image) this.load(hit, seen, signal);
    else seen.append(make("p", {}, hit.caption ?? hit.key));
    const score = make("span", { className: "score" });
    if ("score" in hit) score.append(make("b", { title: "probability" }, percent(hit.score)), " ");
    score.append(make("span", { title: "similarity" }, hit.similarity.toFixed(3)));
    return make("li", { className: "hit" }, make("figure", {}, seen, make("figcaption", {},
      score, make("span", { className: "key", title: hit.key }, hit.key))));
  }

  async load(hit, seen, signal) {
    try {
      const url = URL.createObjectURL(await file(hit.image.replace(/^\//, ""), signal));
      this.urls.push(url);
      seen.append(make("img", { src: url, alt: hit.caption ?? hit.key }));
    } catch (error) {
      if (error.name !== "AbortError") seen.append(make("p", {}, error.message));
    }
  }
}
